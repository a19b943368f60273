"""A service's process: real ones, told by real signals."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.app import supervisor
from common.app.notify import notifications
from common.app.supervisor import Lifetime, run_process
from common.base.errors import Misconfigured, Unavailable

pytestmark = pytest.mark.timeout(30)

SERVICE = """
import asyncio, sys
from common.app import supervisor
from common.app.supervisor import Lifetime, run_service

async def drains(life):
    life.ready("up")
    print("up", flush=True)
    await life.stopped()
    print("draining", flush=True)

async def dawdles(life):
    print("up", flush=True)
    await life.stopped()
    print("draining", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaned", flush=True)

async def clings(life):
    print("up", flush=True)
    await life.stopped()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("no", flush=True)

supervisor.CANCEL_TIMEOUT_S = 0.2
sys.exit(run_service("svc", globals()[sys.argv[1]], grace_s=float(sys.argv[2])))
"""


@asynccontextmanager
async def service(body: str, grace_s: float, tmp_path: Path, **env: str) -> AsyncIterator[asyncio.subprocess.Process]:
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        script,
        body,
        str(grace_s),
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout
    return (await process.stdout.readline()).decode().strip()


async def rest(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_a_service_drain_and_end_with_0(number: signal.Signals, tmp_path: Path) -> None:
    async with service("drains", 20, tmp_path) as process:
        assert await line(process) == "up"
        process.send_signal(number)
        assert await rest(process) == (0, "draining\n", "")


async def test_a_service_that_is_not_done_in_its_grace_is_cancelled_and_ends_with_75(tmp_path: Path) -> None:
    async with service("dawdles", 0.1, tmp_path) as process:
        assert await line(process) == "up"
        process.terminate()
        code, out, err = await rest(process)
    assert (code, out) == (75, "draining\ncleaned\n")
    assert (
        err == "error: svc: not done 0.1 s after it was told to stop; what it had in hand is taken up again after the next start\n"
    )


async def test_a_second_signal_ends_a_service_at_once(tmp_path: Path) -> None:
    async with service("dawdles", 600, tmp_path) as process:
        assert await line(process) == "up"
        process.terminate()
        assert await line(process) == "draining"
        process.send_signal(signal.SIGINT)
        code, out, err = await rest(process)
    assert (code, out) == (75, "cleaned\n")
    assert err == "error: svc: told to stop twice; what it had in hand is taken up again after the next start\n"


async def test_a_service_that_clings_to_life_is_left_with_its_process(tmp_path: Path) -> None:
    async with service("clings", 0.0, tmp_path) as process:
        assert await line(process) == "up"
        process.terminate()
        code, _, err = await rest(process)
    assert code == 75
    assert err.splitlines()[-1] == "error: svc does not end even when cancelled; it is left"


async def test_systemd_hears_of_readiness_of_life_and_of_the_end(tmp_path: Path) -> None:
    heard: asyncio.Queue[list[str]] = asyncio.Queue()
    path = tmp_path / "notify"
    async with (
        notifications(path, heard.put_nowait),
        service("drains", 20, tmp_path, NOTIFY_SOCKET=str(path), WATCHDOG_USEC="20000") as process,
    ):
        early = [await heard.get() for _ in range(5)]
        assert ["READY=1", "STATUS=up"] in early
        assert early.count(["WATCHDOG=1"]) == 4
        process.terminate()
        while await heard.get() != ["STOPPING=1"]:
            pass
        assert (await rest(process))[0] == 0


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Unavailable(what="the bus", reason="refused"), 69, "error: the bus is not available: refused"),
        (Misconfigured(reason="x"), 78, "error: Configuration: x"),
        (ExceptionGroup("g", [Misconfigured(reason="rabbit://u:pw@h")]), 78, "error: Configuration: rabbit://u:***@h"),
    ],
)
async def test_a_fault_ends_a_service_with_a_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, text: str
) -> None:
    async def fails(life: Lifetime) -> None:
        raise error

    assert await run_process("svc", fails) == code
    assert capsys.readouterr().err == f"{text}\n"


async def test_a_bug_ends_a_service_with_its_traceback_and_70(capsys: pytest.CaptureFixture[str]) -> None:
    async def stumbles(life: Lifetime) -> None:
        raise KeyError("k")

    assert await run_process("svc", stumbles) == 70
    err = capsys.readouterr().err
    assert err.startswith("error: KeyError: 'k' (this is a bug)\n")
    assert "in stumbles" in err


async def test_a_body_that_returns_ends_its_process_with_0_and_gives_the_signals_back() -> None:
    async def returns(life: Lifetime) -> None:
        assert not life.is_stopping

    assert await run_process("svc", returns) == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_body_that_stops_its_own_process_drains() -> None:
    async def stops(life: Lifetime) -> None:
        life.stop()
        await life.stopped()
        assert life.is_stopping

    assert await run_process("svc", stops) == 0


def test_a_commands_broken_pipe_is_not_reported() -> None:
    def command() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        supervisor.run_command(command, trace=False)
