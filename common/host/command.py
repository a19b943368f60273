"""Run a program with a deadline; its output is bounded and it never outlives the caller."""

import asyncio
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from common.base.errors import Broken, Timeout
from common.base.limits import COMMAND_OUTPUT_BYTES_MAX


class CommandMissing(Broken):
    """The program {program} is not on this machine: {reason}. Install it, or choose a driver that does not need it."""


@dataclass(frozen=True, slots=True)
class Output:
    """How a program ended. The argument vector is not kept: it may hold secrets."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """What it said went wrong: the last line of stderr, else of stdout."""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1] if lines else f"exit status {self.status} without a word"


async def run(
    *argv: str, timeout_s: float, stdin: bytes | None = None, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> Output:
    """Run `argv` and wait for its end and for that of everybody who holds its output open.

    Raises CommandMissing when there is no such program, Timeout when it does not end in time; it and what it began are
    killed then, as they are when the caller is cancelled.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        transport, program = await asyncio.get_running_loop().subprocess_exec(
            _Program,
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else pipe,
            stdout=pipe,
            stderr=pipe,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as exc:
        raise CommandMissing(program=argv[0], reason=exc.strerror) from exc
    try:
        async with asyncio.timeout(timeout_s):
            _feed(transport, stdin)
            await program.ended.wait()
    except TimeoutError as exc:
        raise Timeout(what=argv[0], timeout_s=timeout_s) from exc
    finally:
        await _end(transport, program)
    status = transport.get_returncode()
    assert status is not None
    return Output(status, program.text(1), program.text(2))


class _Program(asyncio.SubprocessProtocol):
    """Keeps the first bytes of what the program writes and reads on to its end: a full pipe would stop it."""

    def __init__(self) -> None:
        self._kept = {1: bytearray(), 2: bytearray()}
        self.ended = asyncio.Event()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self._kept[fd]
        kept += data[: COMMAND_OUTPUT_BYTES_MAX - len(kept)]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's word for: exited, and all pipes closed
        self.ended.set()

    def text(self, fd: int) -> str:
        return self._kept[fd].decode(errors="replace")


def _feed(transport: asyncio.SubprocessTransport, stdin: bytes | None) -> None:
    pipe = transport.get_pipe_transport(0)
    if stdin is not None and isinstance(pipe, asyncio.WriteTransport):
        pipe.write(stdin)
        pipe.close()


async def _end(transport: asyncio.SubprocessTransport, program: _Program) -> None:
    """Nothing when it has ended; else it is killed with its group, which is its own, and reaped."""
    if transport.get_returncode() is None:
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
    transport.close()
    await program.ended.wait()
