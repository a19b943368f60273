"""Child processes of one command: real ones, small ones. The numbers are those of common/app/children.py."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.app.children import Child, ChildFailed, Children
from common.base.errors import Misconfigured
from common.base.retry import Retry

pytestmark = pytest.mark.timeout(40)

PREAMBLE = """
import os, signal, socket, subprocess, sys, time
def say(text):
    sys.stderr.write(text + "\\n"); sys.stderr.flush()
def ready():
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
def until_told():
    signal.sigwait({signal.SIGTERM})
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
"""
GOOD = "say('begun'); ready(); until_told(); say('drained')"
AT_ONCE = Retry(attempts=3, first_delay_s=0.0, delay_s_max=0.0)


def child(name: str, code: str = GOOD, **env: str) -> Child:
    return Child(name, (sys.executable, "-I", "-S", "-c", PREAMBLE + code), env)


class Heard:
    """What is shown, and a way to wait for it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Event()

    def __call__(self, text: str) -> None:
        assert text.endswith("\n")
        self.lines.append(text.removesuffix("\n"))
        self._changed.set()

    async def until(self, line: str, times: int = 1) -> None:
        while self.lines.count(line) < times:
            self._changed.clear()
            await self._changed.wait()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def children(heard: Heard) -> Callable[..., Children]:
    def make(**settings: object) -> Children:
        return Children(**{"write": heard, "colors": False, "restarts": AT_ONCE, **settings})  # type: ignore[arg-type]  # by name

    return make


Make = Callable[..., Children]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_1_they_begin_in_order_each_when_the_one_before_is_ready_and_stop_in_reverse(
    children: Make, heard: Heard, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    code = f"""
def note(word):
    with open({str(log)!r}, "a") as log: log.write(os.environ["ME"] + " " + word + "\\n")
note("begun"); time.sleep(0.05); note("ready"); ready(); until_told(); note("told"); time.sleep(0.05); note("ended")
"""
    names = ("db", "api", "compute")
    parts = children()
    async with parts.running([child(name, code, ME=name) for name in names]):
        assert list(parts.pids) == list(names)
        pids = list(parts.pids.values())
    expected = [f"{name} {word}" for name in names for word in ("begun", "ready")]
    expected += [f"{name} {word}" for name in reversed(names) for word in ("told", "ended")]
    assert log.read_text().splitlines() == expected
    assert [pid for pid in pids if is_alive(pid)] == []
    assert parts.pids == {}


async def test_2_a_child_that_dies_begins_again(children: Make, heard: Heard) -> None:
    parts = children()
    async with parts.running([child("api")]):
        first = parts.pids["api"]
        os.kill(first, signal.SIGKILL)
        await heard.until("api | begun", times=2)
        assert parts.pids["api"] != first
    assert heard.lines == [
        "api | begun",
        "api | ended with signal SIGKILL; it begins again in 0 s",
        "api | begun",
        "api | drained",
    ]


async def test_2_a_child_that_dies_too_often_ends_them_all(children: Make, heard: Heard) -> None:
    parts = children()
    with pytest.raises(ChildFailed) as caught:
        async with parts.running([child("db"), child("api", "ready(); time.sleep(0.02); say('no bus'); sys.exit(69)")]):
            await asyncio.Event().wait()
    assert str(caught.value) == "Process api ended 3 times in a row, now with exit code 69. Its last words: no bus"
    assert heard.lines[-1] == "db  | drained"
    assert parts.pids == {}


async def test_2_a_child_that_dies_before_it_was_ready_ends_them_all(children: Make, heard: Heard) -> None:
    with pytest.raises(ChildFailed) as caught:
        async with children().running([child("db"), child("api", "say('cannot'); sys.exit(1)")]):
            raise AssertionError("not all are ready")
    assert str(caught.value) == ("Process api ended with exit code 1 before it was ready (30 s at most). Its last words: cannot")
    assert heard.lines[-1] == "db  | drained"


async def test_2_a_child_that_is_not_ready_in_time_is_killed(children: Make, heard: Heard) -> None:
    with pytest.raises(ChildFailed) as caught:
        async with children(ready_s=0.3).running([child("api", "until_told()")]):
            raise AssertionError("it is not ready")
    assert str(caught.value) == ("Process api ended with signal SIGKILL before it was ready (0.3 s at most). Its last words: none")
    assert heard.lines == ["api | was not ready within 0.3 s; it is killed"]


async def test_2_a_child_that_refuses_its_configuration_is_not_begun_again(children: Make) -> None:
    with pytest.raises(Misconfigured) as caught:
        async with children().running([child("api", "say('error: Configuration: x'); sys.exit(78)")]):
            raise AssertionError("it is not ready")
    assert str(caught.value) == "Configuration: process api refused its configuration. Its last words: error: Configuration: x"


async def test_2_a_program_that_is_not_there_is_named(children: Make) -> None:
    with pytest.raises(ChildFailed) as caught:
        async with children().running([Child("api", ("/no/such/program",))]):
            raise AssertionError("it is not ready")
    assert "Its last words: error: /no/such/program cannot be run: No such file or directory" in str(caught.value)


async def test_3_a_child_that_ignores_sigterm_is_killed_after_the_grace(children: Make, heard: Heard) -> None:
    parts = children(grace_s=0.2)
    async with parts.running([child("api", "ready()\nwhile True: until_told(); say('no')")]):
        pid = parts.pids["api"]
    assert not is_alive(pid)
    assert heard.lines == ["api | no", "api | did not end within 0.2 s after SIGTERM; it is killed"]


async def test_3_a_child_is_not_in_our_session(children: Make) -> None:
    parts = children()
    async with parts.running([child("api")]):
        assert os.getsid(parts.pids["api"]) == parts.pids["api"] != os.getsid(0)


async def test_3_when_stopping_is_cancelled_nobody_is_left(children: Make, heard: Heard) -> None:
    parts = children(grace_s=600)
    pids: list[int] = []

    async def run() -> None:
        async with parts.running([child("db"), child("api", "ready()\nwhile True: until_told(); say('no')")]):
            pids.extend(parts.pids.values())

    task = asyncio.create_task(run())
    await heard.until("api | no")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [pid for pid in pids if is_alive(pid)] == []


async def test_an_error_of_the_block_stops_the_children_and_stays_what_it_is(children: Make, heard: Heard) -> None:
    with pytest.raises(LookupError):
        async with children().running([child("api")]):
            raise LookupError
    assert heard.lines[-1] == "api | drained"


async def test_a_child_gets_our_environment_and_its_own(children: Make, heard: Heard) -> None:
    async with children().running(
        [child("api", "say(os.environ['EXTRA'] + str('PATH' in os.environ)); ready(); until_told()", EXTRA="x")]
    ):
        await heard.until("api | xTrue")


async def test_5_lines_are_shown_whole_in_pieces_when_too_long_and_without_waiting_for_grandchildren(
    children: Make, heard: Heard
) -> None:
    code = """
os.write(1, b"from std"); os.write(1, b"out\\nhalf a line"); os.write(2, b", the rest\\n")
os.write(2, b"x" * 40000 + b"\\n\\xff\\n")
subprocess.Popen(["/bin/sleep", "3"])
ready(); until_told(); os.write(2, b"without an end")
"""
    async with children().running([child("api", code)]):
        await heard.until("api | \ufffd")
        began = time.monotonic()
    assert time.monotonic() - began < 2.5
    assert heard.lines[:2] == ["api | fromstdout".replace("from", "from "), "api | half a line, the rest"]
    pieces = [line.removeprefix("api | ") for line in heard.lines[2:] if "x" in line]
    assert "".join(pieces) == "x" * 40000
    assert len(pieces) > 1


async def test_5_names_are_coloured_and_of_one_width(heard: Heard) -> None:
    async with Children(write=heard, colors=True).running([child("db"), child("compute")]):
        await heard.until("\x1b[36mdb      | \x1b[0mbegun")
        await heard.until("\x1b[33mcompute | \x1b[0mbegun")


async def test_4_a_child_is_told_to_stop_when_its_parent_is_killed_outright(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = tmp_path / "up.py"
    code = f"ready(); until_told(); open({str(log)!r}, 'w').write('told')"
    script.write_text(
        "import asyncio, sys\n"
        "from common.app.children import Child, Children\n"
        "async def main():\n"
        "    parts = Children(colors=False)\n"
        f"    async with parts.running([Child('api', (sys.executable, '-I', '-S', '-c', {PREAMBLE + code!r}))]):\n"
        "        print(parts.pids['api'], flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    env = {**os.environ, "PYTHONPATH": str(Path.cwd()), "TMPDIR": str(tmp_path)}
    up = await asyncio.create_subprocess_exec(sys.executable, script, env=env, stdout=subprocess.PIPE)
    assert up.stdout
    pid = int(await up.stdout.readline())
    pidfd = os.pidfd_open(pid)
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, gone.set)
    up.kill()
    await up.communicate()
    async with asyncio.timeout(10):
        await gone.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    assert log.read_text() == "told"
