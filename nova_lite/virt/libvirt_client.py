"""Operations on libvirt, each in a process of its own that is killed when its time is over (libvirt_child).

Libvirt's library waits for libvirtd without end, whatever its caller does. So nova-compute never loads it: a libvirtd that hangs
costs an operation, and one that was restarted is noticed by nobody.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.base.errors import Misconfigured, Timeout
from common.host.command import CommandMissing, run
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable

CHILD = Path(__file__).with_name("libvirt_child.py")

DEBIANS_PYTHON = "/usr/bin/python3"
"""Debian's package python3-libvirt serves this one, and no virtual environment sees it."""

_WATCH_ABOUT_TIMEOUT_S = 30.0

_NO_MACHINE = frozenset({42, 55})
"""VIR_ERR_NO_DOMAIN, VIR_ERR_OPERATION_INVALID: the domain is not there, or does not run."""
_NO_ANSWER = frozenset({5, 39, 68, 80, 86})
"""VIR_ERR_NO_CONNECT, RPC, OPERATION_TIMEOUT, OPERATION_ABORTED, AGENT_UNRESPONSIVE: libvirtd is down, or waits for the machine."""
_OF_CONNECTION = frozenset({7, 13})
"""VIR_FROM_RPC, VIR_FROM_REMOTE: the error is of the way to libvirtd, whatever its code."""


class LibvirtClient:
    """Libvirt at `uri`. `pythons`: interpreters that may have its binding; the first that has it is used."""

    def __init__(self, uri: str, *, pythons: Iterable[str] = ()) -> None:
        self._uri = uri
        self._pythons = list(pythons) or [sys.executable, DEBIANS_PYTHON]
        self._lacking: list[str] = []

    async def ask(self, verb: str, *, name: str, timeout_s: float, hidden: str | None = None, **fields: Any) -> Any:
        """What the verb of libvirt_child returns.

        name     the machine that it is about, for errors
        hidden   a secret that no error may show
        Raises HypervisorRefused when libvirt or the machine refuses, HypervisorUnavailable when either does not answer in time or
        is not there, Misconfigured when no interpreter has libvirt's binding.
        """
        request = json.dumps({"uri": self._uri, "verb": verb, **fields}).encode()
        answer = await self._answer(request, verb=verb, name=name, timeout_s=timeout_s)
        if "error" in answer:
            raise _fault(answer["error"], verb=verb, name=name, uri=self._uri, hidden=hidden)
        return answer["result"]

    async def watch(self, tell: Callable[[], None]) -> None:
        """Calls `tell` once it watches, and at each machine that starts or stops, until libvirtd or its process ends.

        Raises Misconfigured as `ask` does.
        """
        await self.ask("about", name=self._uri, timeout_s=_WATCH_ABOUT_TIMEOUT_S)  # finds the interpreter
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            self._pythons[0], "-I", str(CHILD), stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"uri": self._uri, "verb": "watch"}).encode())
            process.stdin.close()
            while line := await process.stdout.readline():
                if {"uuid", "watching"} & (_parsed(line.decode(errors="replace")) or {}).keys():
                    tell()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _answer(self, request: bytes, *, verb: str, name: str, timeout_s: float) -> dict[str, Any]:
        while self._pythons:
            python = self._pythons[0]
            try:
                output = await run(python, "-I", str(CHILD), timeout_s=timeout_s, stdin=request)
            except Timeout as exc:
                reason = f"libvirt at {self._uri} has not done {verb} within {timeout_s:g} s; it hangs, or the machine does"
                raise HypervisorUnavailable(name=name, reason=reason) from exc
            except CommandMissing as exc:
                self._lack(python, str(exc))
                continue
            answer = _parsed(output.stdout)
            if answer is None:
                raise HypervisorUnavailable(name=name, reason=f"libvirt's process ended: {output.said}")
            if "missing" not in answer:
                return answer
            self._lack(python, answer["missing"])
        raise Misconfigured(
            reason=f"no Python here can import libvirt ({'; '.join(self._lacking)}): "
            "install the package python3-libvirt, or libvirt-python into this environment"
        )

    def _lack(self, python: str, why: str) -> None:
        if python in self._pythons:
            self._pythons.remove(python)
            self._lacking.append(f"{python}: {why}")


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _fault(
    error: dict[str, Any], *, verb: str, name: str, uri: str, hidden: str | None
) -> HypervisorRefused | HypervisorUnavailable:
    code, domain, message = int(error["code"]), int(error["domain"]), str(error["message"])
    if hidden:
        message = message.replace(hidden, "***")
    if code in _NO_MACHINE:
        return HypervisorUnavailable(name=name, reason=f"it is not running: {message}")
    if code in _NO_ANSWER or domain in _OF_CONNECTION:
        return HypervisorUnavailable(name=name, reason=f"libvirt at {uri}: {message}")
    return HypervisorRefused(name=name, command=verb, reason=message)
