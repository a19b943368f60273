"""systemd's notification protocol from both ends."""

import asyncio
import os
from pathlib import Path

import pytest

from common.app.notify import notifications, sd_notify, watchdog_interval_s


def test_without_a_listener_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    assert not sd_notify("READY=1", environ={})
    assert not sd_notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "none")})
    assert not sd_notify("READY=1", environ={"NOTIFY_SOCKET": "@there-is-no-such-abstract-socket"})


@pytest.mark.timeout(10)
async def test_what_is_sent_arrives_line_by_line(tmp_path: Path) -> None:
    heard: asyncio.Queue[list[str]] = asyncio.Queue()
    path = tmp_path / "notify"
    async with notifications(path, heard.put_nowait):
        assert sd_notify("READY=1", "STATUS=serving", environ={"NOTIFY_SOCKET": str(path)})
        assert await heard.get() == ["READY=1", "STATUS=serving"]


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "x"}, None),
    ],
)
def test_a_sign_of_life_is_due_twice_as_often_as_systemd_wants_it(environ: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environ) == interval_s
