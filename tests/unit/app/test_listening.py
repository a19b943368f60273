"""`lite rpc listen`: what passes, seen by a private queue."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest

from common.app.listening import listen_until_told, passed, private_queues
from common.base.context import Context
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.contract import Kind, Method, Route
from common.rpc.options import RpcOptions
from common.rpc.topology import server_queues
from common.transport.memory import MemoryBuses
from common.transport.port import Delivery, Transport
from common.transport.url import open_transport
from common.wire.messages import Request, encode_request
from tests.unit.rpc.given import Given

CLOCK = SystemClock()
AT = datetime(2026, 5, 1, 12, 30, 1, 42_000)  # noqa: DTZ001 - naive UTC
OPTIONS = RpcOptions()


@pytest.fixture(params=["memory", "folder", pytest.param("rabbit", marks=pytest.mark.real("rabbitmq"))])
async def open_bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Callable[[], asyncio.Future[Transport]]]:
    buses = MemoryBuses(CLOCK)
    url = {"memory": "memory://test", "folder": f"kombu+filesystem://{tmp_path}/bus"}.get(request.param, "")
    url = url or request.getfixturevalue("rabbit_url")
    opened: list[Transport] = []

    async def open_one() -> Transport:
        opened.append(await open_transport(url, clock=CLOCK, connection_name="test", buses=buses))
        return opened[-1]

    yield lambda: asyncio.ensure_future(open_one())
    for transport in opened:
        await transport.close()


def method(name: str, kind: Kind) -> Method:
    return Method(name=name, kind=kind, version="1.5", parameters={}, optional=frozenset(), result=None)


@asynccontextmanager
async def listening(transport: Transport, *, is_all: bool) -> AsyncIterator[None]:
    """Listens inside the block, and is told to stop by SIGINT at its end."""
    ready = asyncio.Event()
    task = asyncio.create_task(
        listen_until_told(transport, "jobs", options=OPTIONS, is_all=is_all, as_json=True, clock=CLOCK, tell=lambda _: ready.set())
    )
    await ready.wait()
    yield
    os.kill(os.getpid(), signal.SIGINT)
    await task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)


async def lines(capsys: pytest.CaptureFixture[str], number: int) -> list[dict[str, object]]:
    """What was printed, as soon as it is that many lines."""
    out = ""
    async with asyncio.timeout(15):
        while out.count("\n") < number:
            out += capsys.readouterr().out
            await CLOCK.sleep(0.01)
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("is_all", [False, True])
async def test_messages_are_shown_and_reach_their_servers_all_the_same(
    open_bus: Callable[[], asyncio.Future[Transport]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    is_all: bool,
) -> None:
    monkeypatch.setattr("common.app.listening.WAITING_MAX", 1)  # each makes room for the next one
    server, listener, sender = await open_bus(), await open_bus(), await open_bus()
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    for queue in server_queues(OPTIONS, exchange=None, topic="jobs", server="h1"):
        await server.consume(queue, prefetch=9, on_delivery=arrived.put_nowait)
    rpc = RpcClient(sender, options=OPTIONS, clock=CLOCK)
    found = []
    async with listening(listener, is_all=is_all):
        for route in (Route("jobs", "1.0"), Route("jobs", "1.0", server="h1"), Route("jobs", "1.0", fanout=True)):
            await rpc.cast(route, method("start", Kind.CAST), Context(request_id="req-9"), {"auth_password": "hunter2"})  # type: ignore[arg-type]
            delivery = await asyncio.wait_for(arrived.get(), 15)
            await delivery.ack()
            if is_all or route.fanout:  # one after another: of two queues nobody promises which is read first
                found += await lines(capsys, 1)
    assert arrived.empty()
    assert [line["kind"] for line in found] == (["cast", "cast", "fanout"] if is_all else ["fanout"])
    assert found[-1]["exchange"] == "jobs_fanout"
    for line in found:
        assert (line["method"], line["version"], line["request_id"]) == ("start", "1.5", "req-9")
        assert line["arguments"] == {"auth_password": "***"}
    if is_all and listener.url.startswith("rabbit"):
        assert [(line["exchange"], line["key"]) for line in found[:2]] == [("openstack", "jobs"), ("openstack", "jobs.h1")]
    await rpc.close()


async def test_what_is_seen_leaves_nothing_behind(open_bus: Callable[[], asyncio.Future[Transport]]) -> None:
    listener = await open_bus()
    names = []
    for queue in private_queues("jobs", options=OPTIONS, is_all=True):
        names.append(queue.name)
        consumer = await listener.consume(queue, prefetch=1, on_delivery=lambda _: None)
        await consumer.cancel()
    await listener.close()
    other = await open_bus()
    assert [await other.depth(name) for name in names] == [None, None]


def shown(request: Request | bytes, *, is_fanout: bool = False) -> str:
    body = request if isinstance(request, bytes) else encode_request(request)
    return passed(Given(body), at=AT, exchange="openstack", key="jobs", is_fanout=is_fanout).line


def test_a_line_holds_time_place_kind_method_version_request_and_arguments() -> None:
    call = Request("ask", {"a": [1]}, "u", version="1.2", msg_id="m", reply_q="reply_1", context={"request_id": "req-1"})
    assert shown(call) == '12:30:01.042 openstack/jobs call ask 1.2 req-1 {"a": [1]}'
    assert shown(Request("ask", {}, "u", namespace="probe")) == "12:30:01.042 openstack/jobs cast probe:ask 1.0 - {}"
    assert " fanout " in shown(Request("ask", {}, "u"), is_fanout=True)


def test_what_is_no_request_is_one_line_too_and_is_not_quoted() -> None:
    line = shown(b"{ hunter2")
    assert line.startswith("12:30:01.042 openstack/jobs not a request: ")
    assert "hunter2" not in line


def test_a_long_message_is_a_line_of_bounded_length_that_moves_no_cursor() -> None:
    line = shown(Request("put", {"data": "x" * 100_000}, "u"))
    assert len(line) < 1200
    assert line.endswith("...")
    assert "\x1b" not in shown(Request("put", {"data": "\x1b[2J"}, "u"))
