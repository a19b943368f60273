"""A private tgtd: where it listens, how it ends, and what is said when it cannot be had."""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from stat import S_IMODE

import pytest

from cinder_lite.errors import PortalNotBound, TargetUnavailable
from cinder_lite.targets.tgt import TgtOptions
from cinder_lite.targets.tgtd import TgtDaemon
from common.host.clock import SystemClock
from common.testing.servers import free_port

pytestmark = pytest.mark.real("tgt")


@pytest.fixture
def options() -> Iterator[TgtOptions]:
    with tempfile.TemporaryDirectory(prefix="tgt") as folder:
        yield TgtOptions("127.0.0.1", free_port(), ipc_socket=Path(folder) / "run" / "tgtd")


async def test_inside_it_answers_and_listens_and_afterwards_it_is_gone(options: TgtOptions) -> None:
    async with TgtDaemon(options, SystemClock()) as daemon:
        assert await daemon.tgtadm.portals() == (options.portal,)
        assert is_alive(daemon.pid)
        socket.create_connection((options.portal_ip, options.portal_port)).close()
        assert S_IMODE(daemon.tgtadm.socket_path.parent.stat().st_mode) == 0o700
    assert not is_alive(daemon.pid)
    assert await daemon.wait() == 0


async def test_it_can_be_started_again_at_the_same_place(options: TgtOptions) -> None:
    for _ in range(2):
        async with TgtDaemon(options, SystemClock()) as daemon:
            await daemon.tgtadm.ask("new", "target", "--tid", "1", "--targetname", "iqn.2001-04.com.example:disk")
            assert len(await daemon.tgtadm.targets()) == 1


async def test_a_portal_that_is_taken_is_an_error_and_nothing_runs(options: TgtOptions) -> None:
    """Left to itself tgtd would listen at every address, at port 3260."""
    daemon = TgtDaemon(options, SystemClock())
    with socket.create_server((options.portal_ip, options.portal_port)):
        with pytest.raises(PortalNotBound, match=f"does not listen on {options.portal}"):
            await daemon.__aenter__()
        assert not is_alive(daemon.pid)


async def test_a_second_one_at_the_same_socket_is_refused(options: TgtOptions) -> None:
    async with TgtDaemon(options, SystemClock()) as first:
        second = TgtDaemon(replace(options, portal_port=free_port()), SystemClock())
        with pytest.raises(TargetUnavailable, match="another tgtd already answers there"):
            await second.__aenter__()
        assert is_alive(first.pid)


async def test_several_run_side_by_side_by_control_port(options: TgtOptions) -> None:
    other = replace(options, control_port=1, portal_port=free_port())
    async with TgtDaemon(options, SystemClock()) as first, TgtDaemon(other, SystemClock()) as second:
        await first.tgtadm.ask("new", "target", "--tid", "1", "--targetname", "iqn.2001-04.com.example:disk")
        assert (len(await first.tgtadm.targets()), len(await second.tgtadm.targets())) == (1, 0)


async def test_one_that_was_left_over_is_adopted_with_its_targets_and_stopped_in_the_end(options: TgtOptions) -> None:
    left = TgtDaemon(options, SystemClock())
    await left.__aenter__()
    await left.tgtadm.ask("new", "target", "--tid", "1", "--targetname", "iqn.2001-04.com.example:disk")
    async with TgtDaemon(options, SystemClock(), adopt=True) as daemon:
        assert daemon.pid == left.pid
        assert len(await daemon.tgtadm.targets()) == 1
    assert await left.wait() == 0
    assert await daemon.wait() == -1


async def test_one_that_listens_elsewhere_is_not_adopted(options: TgtOptions) -> None:
    async with TgtDaemon(options, SystemClock()) as left:
        elsewhere = replace(options, portal_port=free_port())
        with pytest.raises(PortalNotBound, match=f"it listens on {options.portal}"):
            await TgtDaemon(elsewhere, SystemClock(), adopt=True).__aenter__()
        assert is_alive(left.pid)


@pytest.mark.parametrize("adopt", [False, True])
async def test_its_unexpected_end_is_seen(options: TgtOptions, adopt: bool) -> None:
    async with TgtDaemon(options, SystemClock()) as started:
        watched = TgtDaemon(options, SystemClock(), adopt=True) if adopt else started
        if adopt:
            await watched.__aenter__()
        os.kill(watched.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert await watched.wait() == (-1 if adopt else -signal.SIGKILL)
        with pytest.raises(TargetUnavailable):
            await watched.tgtadm.targets()


async def test_a_stopped_tgtd_does_not_hold_up_the_end(options: TgtOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinder_lite.targets.tgtd.STOP_TIMEOUT_S", 0.2)
    async with TgtDaemon(options, SystemClock()) as daemon:
        os.kill(daemon.pid, signal.SIGSTOP)
    assert await daemon.wait() == -signal.SIGKILL


async def test_a_socket_path_that_the_kernel_cannot_take_is_said_so(options: TgtOptions) -> None:
    assert options.ipc_socket is not None
    deep = replace(options, ipc_socket=options.ipc_socket.parent / ("d" * 100) / "tgtd")
    with pytest.raises(TargetUnavailable, match="more than 107 bytes"):
        await TgtDaemon(deep, SystemClock()).__aenter__()


async def test_a_missing_program_is_said_so(options: TgtOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cinder_lite.targets.tgtadm.SYSTEM_FOLDERS", str(tmp_path))
    with pytest.raises(TargetUnavailable, match="tgtd could not be started"):
        await TgtDaemon(options, SystemClock()).__aenter__()


async def test_the_last_words_of_one_that_ends_at_once_are_told(
    options: TgtOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tgtd"
    program.write_text("#!/bin/sh\necho cannot lock >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(TargetUnavailable, match="ended with status 3; its last words: cannot lock"):
        await TgtDaemon(options, SystemClock()).__aenter__()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
