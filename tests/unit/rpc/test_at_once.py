"""A request that is served in one go, and the same one that goes the long way, come to the same: reply, settlement, counts, metrics."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from common.base.context import Context
from common.base.errors import Conflict, Unavailable
from common.host.clock import SystemClock
from common.host.lean_metrics import CollectorRegistry
from common.rpc.contract import Contract, call, cast
from common.rpc.dead_letters import ATTEMPTS, REQUEUES
from common.rpc.metrics import Labels, ServerMetrics
from common.rpc.options import RpcOptions
from common.rpc.server import RpcServer
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message, MessageTooLarge
from common.wire.messages import Request, UsualRequest, cancellation, decode_reply, encode_request, encoded
from tests.unit.rpc.given import Given


class Clock(SystemClock):
    """Sleeps by giving way."""

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(0)


class DoAPI(Contract, Protocol, topic="do", version="1.2"):
    @call()
    async def ask(self, ctx: Context, *, what: str, number: int = 0) -> dict[str, Any]: ...

    @cast()
    async def tell(self, ctx: Context, *, what: str, number: int = 0) -> None: ...


@dataclass
class Does(DoAPI):
    began: list[tuple[Any, ...]] = field(default_factory=list)
    running: int = 0
    most: int = 0

    async def ask(self, ctx: Context, *, what: str, number: int = 0) -> dict[str, Any]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            return await self._do(ctx, what, number)
        finally:
            self.running -= 1

    async def tell(self, ctx: Context, *, what: str, number: int = 0) -> None:
        await self._do(ctx, what, number)

    async def _do(self, ctx: Context, what: str, number: int) -> dict[str, Any]:
        request_id = ctx.request_id if ctx.request_id == CONTEXT["request_id"] else "one of its own"
        self.began.append((what, number, request_id, ctx.user_id, ctx.roles, ctx.is_admin, ctx.message_id, ctx.trace))
        if "later" in what:
            await asyncio.sleep(0)
        if "refuse" in what:
            raise Conflict("taken")
        if "away" in what and len(self.began) < 3:
            raise Unavailable(what="database", reason="away")
        if "bug" in what:
            raise ZeroDivisionError
        if "gone" in what:
            raise asyncio.CancelledError
        return {"number": float("nan") if "unsendable" in what else number, "text": "x" * (70_000_000 if "huge" in what else 1)}


class Bus(MemoryTransport):
    """Implements `Pipelining` as well: what is published soon is there at once, or with `is_full` must be waited for."""

    is_full = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(MemoryBus(clock), name="test")
        self.sent: list[Message] = []

    def publish_soon(self, message: Message, on_end: Callable[[Exception | None], None]) -> bool:
        if len(message.body) > 67_108_864:
            raise MessageTooLarge(size_bytes=len(message.body), limit_bytes=67_108_864)
        if self.is_full:
            return False
        self.sent.append(message)
        asyncio.get_running_loop().call_soon(on_end, None)
        return True

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        if len(message.body) > 67_108_864:
            raise MessageTooLarge(size_bytes=len(message.body), limit_bytes=67_108_864)
        self.sent.append(message)


@dataclass(frozen=True)
class Case:
    """Requests that come at once, and what becomes of each."""

    bodies: tuple[bytes, ...]
    is_full: bool = False
    is_redelivered: bool = False
    prefetch: int = 8
    headers: Mapping[str, Any] = field(default_factory=dict)


async def outcome(case: Case, *, at_once: bool) -> dict[str, Any]:
    """Everything that anybody sees of it."""
    clock, registry, does = Clock(), CollectorRegistry(), Does()
    bus = Bus(clock)
    bus.is_full = case.is_full
    metrics = ServerMetrics(registry, clock=clock, labels=Labels())
    server = RpcServer(
        bus, [does], topic="do", server="h", exchange=None, options=RpcOptions(prefetch=case.prefetch), clock=clock, grace_s=5,
        middleware=[metrics],
    )  # fmt: skip
    if not at_once:
        server._dispatcher.bind_usual = lambda request: None  # type: ignore[method-assign]  # the long way
    given_ = [Given(body, redelivered=case.is_redelivered, headers=case.headers) for body in case.bodies]
    async with asyncio.timeout(20), server:
        for each in given_:
            server._on_delivery(each, "do.h")
        await server._replying.wait(5)
        while server._running:
            await asyncio.wait(server._running)
        await server._replying.wait(5)
    assert not server._at_work
    assert does.most <= case.prefetch
    replies = [
        msgspec.structs.replace(decode_reply(sent.body), unique_id=None)
        for sent in bus.sent
        if sent.exchange is None and sent.key == "reply_r"
    ]
    counted = {
        name: registry.get_sample_value(f"lite_rpc_server_{name}", {"topic": "do", "method": method, **more})
        for method in ("ask", "tell")
        for name, more in (("in_flight", {}), ("requests_total", {"outcome": "ok"}), ("requests_total", {"outcome": "bug"}))
    }
    return {
        "began": does.began,
        "settled": [each.settled for each in given_],
        "replies": sorted((reply.msg_id, str(reply.result), _error(reply.failure)) for reply in replies),
        "others": sorted(f"{sent.exchange and sent.exchange.name}/{sent.key}" for sent in bus.sent if sent.key != "reply_r"),
        "counts": sorted(server.counts),
        "metrics": counted,
    }


def _error(failure: str | None) -> str:
    return "" if failure is None else f"{msgspec.json.decode(failure)['class']}: {msgspec.json.decode(failure)['message'][:60]}"


CONTEXT = {"request_id": "req-1", "user_id": "u", "project_id": "p", "is_admin": True, "roles": ["a", "b"]}
TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
WORDS = ("now", "later", "refuse", "bug", "unsendable", "later refuse", "later bug", "later unsendable", "away", "later away")


def rarely(usual: tuple[Any, ...], odd: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of the usual ones, four times of five."""
    return st.sampled_from([each for each in usual for _ in range(4 * len(odd))] + [each for each in odd for _ in usual])


arguments = st.fixed_dictionaries({"what": st.sampled_from(WORDS)}, optional={"number": st.integers(0, 9)})
odd_arguments = st.sampled_from(({"what": "now", "number": "x"}, {"what": "now", "odd": None}, {}, {"what": 5}))
requests = st.builds(
    lambda is_call, args, number, version, more, context: encode_request(
        Request(
            "ask" if is_call else "tell",
            args,
            f"{'c' if is_call else 't'}{number}",
            version=version,
            context=context,
            msg_id=f"m{number}" if is_call else None,
            reply_q="reply_r" if is_call else None,
            **more,
        )
    ),
    st.booleans(),
    st.one_of(arguments, arguments, arguments, odd_arguments),
    st.integers(0, 5),
    rarely((None, "1.0", "1.2"), ("1.3", "2.0")),
    rarely(({}, {"deadline_s": 60.0}, {"monitor_timeout_s": 60.0}), ({"deadline_s": -1.0}, {"namespace": "other"})),
    rarely((CONTEXT, {**CONTEXT, **TRACE}), ({}, {**CONTEXT, "user_id": ""}, {**CONTEXT, "service": "x"}, {"roles": "wrong"})),
)
cases = st.builds(
    Case,
    st.lists(requests, min_size=1, max_size=5).map(tuple),
    st.booleans(),
    rarely((False,), (True,)),
    st.sampled_from((1, 2, 8)),
    rarely(({}, {"traceparent": "x"}, {REQUEUES: 2}), ({ATTEMPTS: 1}, {ATTEMPTS: 9})),
)


@settings(max_examples=150)
@given(case=cases)
def test_it_comes_to_the_same_as_by_the_long_way(case: Case) -> None:
    assert asyncio.run(outcome(case, at_once=True)) == asyncio.run(outcome(case, at_once=False))


def usual(method: str, args: bytes, **words: Any) -> bytes:
    made = UsualRequest(method, msgspec.Raw(args), unique_id="u1", msg_id="m1", reply_q="reply_r", request_id="req-1", **words)
    return encoded(made)[0]


@pytest.mark.parametrize(
    ("body", "settled", "error"),
    [
        (usual("ask", b'{"what": "now"}'), "acked", ""),
        (usual("ask", b'{"what": "huge"}'), "acked", "MessageTooLarge"),
        (usual("ask", b'{"what": "gone"}'), "given back", None),
        (usual("ask", b'{"what": "now", "number": "\\ud800"}'), "acked", None),
        (usual("ask", b"[1]"), "acked", None),
        (usual("none", b"{}"), "acked", "NoSuchMethod"),
    ],
    ids=["served", "too large", "cancelled by itself", "half a pair", "no object", "no method"],
)
async def test_each_end_settles_the_request(body: bytes, settled: str, error: str | None) -> None:
    case = Case((body,))
    found = await outcome(case, at_once=True)
    assert found["settled"] == [settled]
    errors = [failure.partition(":")[0] for _, _, failure in found["replies"]]
    assert errors == ([] if error is None else [error])
    assert found == await outcome(case, at_once=False)


async def test_a_call_whose_caller_left_before_it_came_is_not_begun() -> None:
    found = await outcome(Case((cancellation("m1", unique_id="c"), usual("ask", b'{"what": "now"}'))), at_once=True)
    assert (found["began"], found["settled"], found["replies"]) == ([], ["acked", "acked"], [])


async def test_the_same_request_twice_is_served_once_and_answered_twice() -> None:
    body = usual("ask", b'{"what": "now"}')
    found = await outcome(Case((body, body)), at_once=True)
    assert (len(found["began"]), found["settled"], len(found["replies"])) == (1, ["acked", "acked"], 2)


async def test_no_more_are_begun_than_there_are_places() -> None:
    bodies = tuple(usual("ask", b'{"what": "later"}').replace(b"u1", b"u%d" % number) for number in range(5))
    found = await outcome(Case(bodies, prefetch=2), at_once=True)
    assert (len(found["began"]), found["settled"]) == (5, ["acked"] * 5)


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_copy_that_comes_while_the_first_is_at_work_is_not_begun(at_once: bool) -> None:
    body = usual("ask", b'{"what": "later"}')
    found = await outcome(Case((body, body)), at_once=at_once)
    assert (len(found["began"]), found["settled"], len(found["replies"])) == (1, ["acked", "acked"], 2)
