"""Casts by post, and what is written for a caller's flow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from common.app.carrier import for_the_caller
from common.app.post import Post
from common.base.context import Context
from common.base.limits import MESSAGE_BYTES_MAX
from common.db import fence
from common.db.engine import Database
from common.db.fence import Fence
from common.db.outbox import Outbox
from common.db.owner import Owner
from common.flow.relay import message_of
from common.rpc.client import RpcClient
from common.rpc.contract import Contract, call, cast
from common.rpc.middleware import Incoming
from common.rpc.options import RpcOptions
from common.rpc.session import client
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import MessageTooLarge, Queue


class Doors(Contract, Protocol, topic="doors", version="1.0", exchange="doors"):
    @cast()
    async def open(self, ctx: Context, *, door: str) -> None: ...

    @call()
    async def is_open(self, ctx: Context, *, door: str) -> bool: ...


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport(MemoryBus(JumpingClock()))


@pytest.fixture
async def rpc(transport: MemoryTransport) -> AsyncIterator[RpcClient]:
    async with client(transport, clock=JumpingClock(), options=RpcOptions()) as made:
        yield made


@pytest.fixture
def post(rpc: RpcClient, sqlite_database: Database) -> Post:
    return Post(rpc, Outbox(sqlite_database, JumpingClock(), owner=Owner(process="p", home="p")))


async def test_casts_go_into_the_transaction_in_their_order_and_none_to_the_bus(
    post: Post, transport: MemoryTransport, sqlite_database: Database
) -> None:
    ctx = Context()
    doors = Doors.over(post.sender)
    with post.letters() as letters:
        await doors.open(ctx, door="a")
        await doors.on("h1").open(ctx, door="b")
        assert letters == []
    async with sqlite_database.begin() as conn:
        await post.entering(letters)(conn)
    kept = await post._outbox.pending()
    assert [(letter.routing_key, letter.request_id) for letter in kept] == [("doors", ctx.request_id), ("doors.h1", ctx.request_id)]
    assert message_of(kept[0]).mandatory
    assert await transport.depth("doors") is None


async def test_two_tasks_that_write_letters_at_once_have_their_own(post: Post) -> None:
    async def write(door: str) -> str:
        with post.letters() as letters:
            await asyncio.sleep(0)
            await Doors.over(post.sender).on(door).open(Context(), door=door)
            await asyncio.sleep(0)
        [letter] = letters
        return letter.routing_key

    assert tuple(await asyncio.gather(write("a"), write("b"))) == ("doors.a", "doors.b")


async def test_a_call_cannot_go_by_post_nor_a_cast_outside_of_letters(post: Post) -> None:
    with post.letters(), pytest.raises(RuntimeError, match=r"is_open .* waits for an answer"):
        await Doors.over(post.sender).is_open(Context(), door="a")
    with pytest.raises(RuntimeError, match="nobody would send it"):
        await Doors.over(post.sender).open(Context(), door="a")


async def test_a_cast_that_no_bus_would_take_is_refused_before_it_is_promised(post: Post) -> None:
    with post.letters() as letters, pytest.raises(MessageTooLarge):
        await Doors.over(post.sender).open(Context(), door="x" * MESSAGE_BYTES_MAX)
    assert letters == []


async def test_a_letter_that_is_sent_is_what_the_cast_would_have_been(
    post: Post, rpc: RpcClient, transport: MemoryTransport
) -> None:
    ctx = Context()
    await transport.declare(Queue("q"))
    with post.letters() as letters:
        await Doors.over(post.sender).open(ctx, door="a")
    draft = message_of(letters[0])
    assert (draft.exchange is not None, draft.key, draft.content_type) == (True, "doors", "application/json")
    assert b"_unique_id" in draft.body


@pytest.mark.parametrize(("said", "held"), [("f#1#3", Fence("f#1", 3)), (None, None), ("nonsense", None)])
async def test_an_endpoint_works_under_the_fence_that_its_request_brings_and_nothing_after_it(
    said: str | None, held: Fence | None
) -> None:
    seen: list[Fence | None] = []

    class Request:
        ctx = Context(fence=said)

    async def proceed(request: Incoming) -> str:
        seen.append(fence.held())
        return "answer"

    asked: Any = Request()
    with fence.fenced(Fence("of another", 1)):
        assert await for_the_caller(asked, proceed) == "answer"
        assert fence.held() == Fence("of another", 1)
    assert seen == [held]
