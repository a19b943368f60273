"""Programs that end, that do not, that say too much, and that are not there."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from common.base.errors import Timeout
from common.base.limits import COMMAND_OUTPUT_BYTES_MAX
from common.host.clock import SystemClock
from common.host.command import CommandMissing, Output, run

CLOCK = SystemClock()
SOON_S = 5.0
"""Far below the seconds for which the programs here would go on by themselves."""


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


async def pid_in(path: Path) -> int:
    async with asyncio.timeout(10):
        while not (text := text_of(path)):
            await CLOCK.sleep(0.01)
    return int(text)


def text_of(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()


async def is_gone(pid: int) -> bool:
    """A process that nobody reaps but init may take a moment."""
    async with asyncio.timeout(10):
        while is_alive(pid):
            await CLOCK.sleep(0.01)
    return True


async def test_a_program_s_status_and_both_outputs_are_kept() -> None:
    ran = await run(*sh("echo out; echo err >&2; exit 3"), timeout_s=20)
    assert ran == Output(3, "out\n", "err\n")


async def test_a_program_is_given_its_input_its_environment_and_its_folder(tmp_path: Path) -> None:
    ran = await run(*sh('cat; echo "$WORD"; pwd'), timeout_s=20, stdin=b"in\n", env={"WORD": "w"}, cwd=str(tmp_path))
    assert ran.stdout == f"in\nw\n{tmp_path}\n"


async def test_input_that_the_program_does_not_read_is_no_error() -> None:
    assert (await run("true", timeout_s=20, stdin=b"x" * 1_000_000)).status == 0


async def test_without_input_a_program_reads_nothing() -> None:
    assert (await run("cat", timeout_s=20)).stdout == ""


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(CommandMissing, match=r"The program no-such-program is not on this machine: No such file"):
        await run("no-such-program", timeout_s=20)


async def test_a_program_that_may_not_be_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("")
    with pytest.raises(CommandMissing, match="Permission denied"):
        await run(str(path), timeout_s=20)


async def test_a_program_is_killed_at_its_deadline_and_its_arguments_are_not_told(tmp_path: Path) -> None:
    with pytest.raises(Timeout) as found:
        await run(*sh(f"echo $$ > {tmp_path}/pid; exec sleep 30 # hunter2"), timeout_s=0.3)
    assert not is_alive(await pid_in(tmp_path / "pid"))
    assert "/bin/sh gave no answer within 0.3 s" in str(found.value)
    assert "hunter2" not in str(found.value)


async def test_what_a_program_began_is_killed_with_it_and_cannot_hold_the_caller_up(tmp_path: Path) -> None:
    started = CLOCK.monotonic()
    with pytest.raises(Timeout):
        await run(*sh(f"sleep 30 & echo $! > {tmp_path}/pid; wait"), timeout_s=0.3)
    assert CLOCK.monotonic() - started < SOON_S
    assert await is_gone(await pid_in(tmp_path / "pid"))


async def test_a_program_that_left_somebody_behind_with_its_output_cannot_hold_the_caller_up(tmp_path: Path) -> None:
    started = CLOCK.monotonic()
    with pytest.raises(Timeout):
        await run(*sh(f"sleep 20 & echo $! > {tmp_path}/pid"), timeout_s=0.3)
    assert CLOCK.monotonic() - started < SOON_S
    os.kill(await pid_in(tmp_path / "pid"), 9)


async def test_a_program_that_writes_for_ever_ends_at_its_deadline() -> None:
    started = CLOCK.monotonic()
    with pytest.raises(Timeout):
        await run("cat", "/dev/zero", timeout_s=0.3)
    assert CLOCK.monotonic() - started < SOON_S


async def test_what_is_kept_of_an_output_is_bounded_and_the_program_still_ends() -> None:
    script = f"import sys; sys.stdout.write('x' * {3 * COMMAND_OUTPUT_BYTES_MAX}); sys.stderr.write('end')"
    ran = await run(sys.executable, "-c", script, timeout_s=20)
    assert (ran.status, len(ran.stdout), ran.stderr) == (0, COMMAND_OUTPUT_BYTES_MAX, "end")


async def test_a_cancelled_caller_takes_the_program_with_it(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run(*sh(f"echo $$ > {path}; exec sleep 30"), timeout_s=40))
        pid = await pid_in(path)
        task.cancel()
    assert task.cancelled()
    assert not is_alive(pid)


async def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert (await run(*sh(r"printf '\377'"), timeout_s=20)).stdout == "�"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (Output(1, "out\n", "first\nlast\n\n"), "last"),
        (Output(1, "a\nb\n", " \n"), "b"),
        (Output(7, "", ""), "exit status 7 without a word"),
    ],
)
def test_what_a_program_said_is_its_last_line(output: Output, said: str) -> None:
    assert output.said == said
