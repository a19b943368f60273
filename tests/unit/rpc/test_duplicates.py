"""A request that the bus gives again while it is at work: the connection that brought it was lost, the process was not."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from common.base.context import Context
from common.base.errors import Unavailable
from common.host.clock import SystemClock
from common.rpc.contract import Contract, cast
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.transport.memory import MemoryBus, MemoryTransport
from common.wire.messages import Request, encode_request
from tests.unit.rpc.given import Given


class NoteAPI(Contract, Protocol, topic="notes", version="1.0"):
    @cast()
    async def note(self, ctx: Context) -> None: ...


@dataclass
class Notes(NoteAPI):
    """Waits at the gate; the first `away` requests end with the database away."""

    away: int = 0
    begun: int = 0
    done: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def note(self, ctx: Context) -> None:
        self.begun += 1
        await self.gate.wait()
        if self.away:
            self.away -= 1
            raise Unavailable(what="database", reason="away")
        self.done += 1


class NoWait(SystemClock):
    """Sleeps by giving way once."""

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(0)


REQUEST = encode_request(Request("note", {}, unique_id="u1", version="1.0"))


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def server(notes: Notes) -> AsyncIterator[RpcServer]:
    clock = NoWait()
    transport = MemoryTransport(MemoryBus(clock))
    made = RpcServer(transport, [notes], topic="notes", server="h", exchange=None, options=RpcOptions(), clock=clock, grace_s=0.01)
    async with made:
        yield made
    await transport.close()


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def ended(server: RpcServer) -> None:
    _, late = await asyncio.wait(server._running, timeout=10)
    assert not late


async def test_a_copy_waits_for_the_first_and_is_dropped_when_that_is_done(server: RpcServer, notes: Notes) -> None:
    first, copy = Given(REQUEST, is_lost=True), Given(REQUEST, redelivered=True)
    server._on_delivery(first)
    server._on_delivery(copy)
    await turns()
    assert (notes.begun, copy.settled) == (1, "")
    notes.gate.set()
    await ended(server)
    assert (notes.begun, notes.done, copy.settled) == (1, 1, "acked")


async def test_a_cast_whose_first_run_must_be_repeated_is_not_lost_with_its_connection(server: RpcServer, notes: Notes) -> None:
    notes.away = 1
    first, copy = Given(REQUEST, is_lost=True), Given(REQUEST, redelivered=True)
    server._on_delivery(first)
    server._on_delivery(copy)
    await turns()
    notes.gate.set()
    await ended(server)
    assert (notes.begun, notes.done, copy.settled) == (2, 1, "acked")


async def test_a_first_that_outlives_the_grace_and_its_copy_are_both_given_back(server: RpcServer, notes: Notes) -> None:
    first, copy = Given(REQUEST), Given(REQUEST, redelivered=True)
    server._on_delivery(first)
    server._on_delivery(copy)
    await turns()
    await server.drain()
    assert (first.settled, copy.settled, notes.done) == ("given back", "given back", 0)


async def test_requests_without_an_id_do_not_wait_for_each_other(server: RpcServer, notes: Notes) -> None:
    body = encode_request(Request("note", {}, version="1.0"))
    for _ in range(2):
        server._on_delivery(Given(body))
    await turns()
    assert notes.begun == 2
    notes.gate.set()
    await ended(server)
    assert notes.done == 2
