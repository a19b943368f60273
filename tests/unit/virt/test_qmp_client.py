"""The client against a scripted monitor on a real unix socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nova_lite.errors import HypervisorRefused, HypervisorUnavailable
from nova_lite.virt.qmp import Event
from nova_lite.virt.qmp_client import QmpClient, open_qmp

Serve = Callable[["Monitor"], Awaitable[None]]


class Monitor:
    """The other side: reads commands, sends what the script says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def command(self) -> dict[str, Any]:
        return msgspec.json.decode(await self._reader.readline(), type=dict[str, Any])

    def say(self, **message: Any) -> None:
        self._writer.write(msgspec.json.encode(message) + b"\r\n")

    def raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def hang_up(self) -> None:
        self._writer.close()

    async def greet(self) -> None:
        self.say(QMP={"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}, "capabilities": []})
        self.say(**{"return": {}}, id=(await self.command())["id"])

    async def until_gone(self) -> None:
        await self._reader.read()


@asynccontextmanager
async def monitor(folder: Path, serve: Serve) -> AsyncIterator[None]:
    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(Monitor(reader, writer))
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve_one, folder / "qmp")
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def client(folder: Path, serve: Serve, *, timeout_s: float = 10.0) -> AsyncIterator[QmpClient]:
    async def greeted(peer: Monitor) -> None:
        await peer.greet()
        await serve(peer)

    async with monitor(folder, greeted), open_qmp(folder, name="vm", timeout_s=timeout_s) as qmp:
        yield qmp


async def test_an_answer_is_found_among_events_and_answers_to_what_was_given_up(tmp_path: Path) -> None:
    async def serve(peer: Monitor) -> None:
        number = (await peer.command())["id"]
        peer.say(event="STOP")
        peer.say(**{"return": "late"}, id=number - 1)
        peer.say(**{"return": "mine"}, id=number)
        await peer.until_gone()

    async with client(tmp_path, serve) as qmp:
        assert await qmp.execute("query-status") == "mine"
        assert await qmp.wait_event(lambda event: event.name == "STOP", timeout_s=10) == Event("STOP", {})


async def test_an_error_becomes_a_refusal_with_its_class(tmp_path: Path) -> None:
    async def serve(peer: Monitor) -> None:
        peer.say(error={"class": "DeviceNotFound", "desc": "Device 'd' not found"}, id=(await peer.command())["id"])
        await peer.until_gone()

    async with client(tmp_path, serve) as qmp:
        with pytest.raises(HypervisorRefused, match="vm refused device_del: Device 'd' not found") as failure:
            await qmp.execute("device_del", {"id": "d"})
    assert failure.value.fields["qmp_class"] == "DeviceNotFound"


async def test_a_secret_that_an_error_quotes_is_masked(tmp_path: Path) -> None:
    async def serve(peer: Monitor) -> None:
        secret = (await peer.command())["arguments"]["data"]
        peer.say(error={"class": "GenericError", "desc": f"bad data '{secret}'"}, id=2)
        await peer.until_gone()

    async with client(tmp_path, serve) as qmp:
        qmp.hide("sesame")
        with pytest.raises(HypervisorRefused, match=r"bad data '\*\*\*'") as failure:
            await qmp.execute("object-add", {"data": "sesame"})
    assert "sesame" not in f"{failure.value!r} {failure.value.fields}"


async def test_an_event_that_came_before_anybody_waited_is_not_lost(tmp_path: Path) -> None:
    async def serve(peer: Monitor) -> None:
        number = (await peer.command())["id"]
        peer.say(event="DEVICE_DELETED", data={"path": "/inner"})
        peer.say(event="DEVICE_DELETED", data={"device": "d"})
        peer.say(**{"return": {}}, id=number)
        await peer.until_gone()

    async with client(tmp_path, serve) as qmp:
        await qmp.execute("device_del", {"id": "d"})
        event = await qmp.wait_event(lambda event: event.data.get("device") == "d", timeout_s=10)
        assert event == Event("DEVICE_DELETED", {"device": "d"})
        assert await qmp.wait_event(lambda event: True, timeout_s=0.05) is None


async def test_a_machine_that_does_not_answer_is_unavailable_in_time(tmp_path: Path) -> None:
    async with client(tmp_path, Monitor.until_gone, timeout_s=0.1) as qmp:
        with pytest.raises(HypervisorUnavailable, match=r"no answer to query-status within 0\.1 s"):
            await qmp.execute("query-status")


async def test_a_machine_that_does_not_greet_is_unavailable_in_time(tmp_path: Path) -> None:
    async with monitor(tmp_path, Monitor.until_gone):
        with pytest.raises(HypervisorUnavailable, match="greeting"):
            async with open_qmp(tmp_path, name="vm", timeout_s=0.1):
                pass


async def test_a_machine_that_hangs_up_is_unavailable_at_once(tmp_path: Path) -> None:
    async with client(tmp_path, Monitor.hang_up) as qmp:
        with pytest.raises(HypervisorUnavailable):
            await qmp.execute("query-status")
    async with client(tmp_path, Monitor.hang_up) as qmp:
        with pytest.raises(HypervisorUnavailable):
            await qmp.wait_event(lambda event: True, timeout_s=10)


async def test_a_peer_that_speaks_something_else_is_unavailable(tmp_path: Path) -> None:
    async def serve(peer: Monitor) -> None:
        peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.until_gone()

    async with monitor(tmp_path, serve):
        with pytest.raises(HypervisorUnavailable, match="not QMP"):
            async with open_qmp(tmp_path, name="vm", timeout_s=10):
                pass


async def test_no_folder_and_no_listener_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(HypervisorUnavailable, match="no such machine"):
        async with open_qmp(tmp_path / "absent", name="vm", timeout_s=10):
            pass
    with pytest.raises(HypervisorUnavailable, match="not running"):
        async with open_qmp(tmp_path, name="vm", timeout_s=10):
            pass


async def test_a_conversation_goes_on_after_a_command_that_was_given_up(tmp_path: Path) -> None:
    async def serve(peer: Monitor) -> None:
        first = (await peer.command())["id"]
        second = (await peer.command())["id"]
        peer.say(**{"return": "first"}, id=first)
        peer.say(**{"return": "second"}, id=second)
        await peer.until_gone()

    async with client(tmp_path, serve) as qmp:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(qmp.execute("blockdev-add"), 0.05)
        assert await qmp.execute("blockdev-del") == "second"
