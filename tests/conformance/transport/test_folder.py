"""What only several processes can show: kombu's filesystem transport as the bus of a machine."""

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.host.clock import SystemClock
from common.transport.port import BusUnavailable, Queue, Transport
from common.transport.url import open_transport
from tests.conformance.transport.support import consume, send, to_queue

ROOT = Path(__file__).parents[3]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"kombu+filesystem://{tmp_path}/bus"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Transport]:
    transport = await open_transport(url, clock=SystemClock(), connection_name="suite")
    try:
        yield transport
    finally:
        await transport.close()


async def test_the_folder_is_for_its_user_alone(url: str, tmp_path: Path) -> None:
    async with connected(url) as transport:
        await consume(transport, Queue("q"))
        for path in [tmp_path / "bus", *(tmp_path / "bus").rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


async def test_a_folder_that_cannot_be_made_is_an_unavailable_bus_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BusUnavailable, match="Not a directory"):
        await open_transport(f"kombu+filesystem://{tmp_path}/file/bus", clock=SystemClock(), connection_name="suite")


async def test_a_file_that_is_no_message_is_dropped_and_holds_up_nobody(url: str, tmp_path: Path) -> None:
    async with connected(url) as transport:
        inbox, _ = await consume(transport, Queue("q"))
        for name, text in (("1_empty.msg", ""), ("2_list.msg", "[]"), ("3_other.msg", '{"properties": {}}')):
            (tmp_path / "bus" / "messages" / "q" / name).write_text(text)
        await send(transport, to_queue("q", b"good"))
        assert await inbox.bodies(1) == [b"good"]
        assert [path.name for path in (tmp_path / "bus" / "messages" / "q").iterdir()] == [".queue"]
