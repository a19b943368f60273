"""Run a program with a deadline; its output is bounded and it never outlives the caller."""

import asyncio
from collections.abc import Mapping
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
    """Run `argv` and wait for its end.

    Raises CommandMissing when there is no such program, Timeout when it does not end in time; it is killed then, as it is
    when the caller is cancelled.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=env,
            cwd=cwd,
        )
    except (FileNotFoundError, PermissionError) as exc:
        raise CommandMissing(program=argv[0], reason=exc.strerror) from exc
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await process.communicate(stdin)
    except TimeoutError as exc:
        raise Timeout(what=argv[0], timeout_s=timeout_s) from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Output(process.returncode, _text(stdout), _text(stderr))


def _text(output: bytes) -> str:
    return output[:COMMAND_OUTPUT_BYTES_MAX].decode(errors="replace")
