"""Retries of what surely did not happen."""

from collections.abc import Awaitable, Callable
from dataclasses import replace as readdressed
from typing import Any, Protocol

import pytest
from msgspec.structs import replace

from common.base.budget import RetryBudget
from common.base.context import Context
from common.base.errors import Conflict, Timeout, Unavailable
from common.base.retry import Retry
from common.rpc.client import NobodyListens
from common.rpc.contract import Contract, call, methods_of
from common.rpc.middleware import Outgoing
from common.rpc.retrying import Retrying, surely_did_not_happen
from common.testing.clock import JumpingClock
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable, Closed


class EchoAPI(Contract, Protocol, topic="echo", version="1.0"):
    @call(timeout_s=30)
    async def echo(self, ctx: Context) -> str: ...


REQUEST = Outgoing(EchoAPI.__rpc_route__, methods_of(EchoAPI)["echo"], Context(), {})
NOBODY = NobodyListens(address="echo", exchange="openstack")
NEVER_SENT = BusUnavailable(url="rabbit://h", reason="away", is_sent=False)
PERHAPS_SENT = BusUnavailable(url="rabbit://h", reason="away", is_sent=True)


def remote(error: Any) -> Any:
    made = type(error)(error.message, **error.fields)
    made.is_remote = True
    return made


class Failing:
    """Raises the errors in turn, then answers."""

    def __init__(self, *errors: Exception, clock: JumpingClock, takes_s: float = 0) -> None:
        self._errors = list(errors)
        self._clock = clock
        self._takes_s = takes_s
        self.requests: list[Outgoing] = []

    async def __call__(self, request: Outgoing) -> str:
        self.requests.append(request)
        await self._clock.sleep(self._takes_s)
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock(jumps=True)


def retrying(clock: JumpingClock, **words: Any) -> Callable[[Outgoing, Callable[[Outgoing], Awaitable[Any]]], Awaitable[Any]]:
    return Retrying(clock, budget=words.pop("budget", RetryBudget()), **words)


@pytest.mark.parametrize(
    ("error", "is_so"),
    [
        (NOBODY, True),
        (NEVER_SENT, True),
        (remote(NOBODY), False),
        (remote(NEVER_SENT), False),
        (PERHAPS_SENT, False),
        (BusUnavailable(url="x", reason="who knows"), False),
        (BusRefused(url="x", what="it", reason="403", is_sent=False), False),
        (Closed(url="x"), False),
        (Timeout(what="echo", timeout_s=1), False),
        (Unavailable(what="disk", reason="full"), False),
        (Conflict(kind="a", name="b", found="c", expected="d"), False),
        (ValueError(), False),
        (None, False),
    ],
)
def test_only_what_no_server_can_have_surely_did_not_happen(error: Exception | None, is_so: bool) -> None:
    assert surely_did_not_happen(error) is is_so


async def test_a_request_is_repeated_until_somebody_listens(clock: JumpingClock) -> None:
    failing = Failing(NOBODY, NEVER_SENT, NOBODY, clock=clock)
    assert await retrying(clock)(REQUEST, failing) == "answer"
    assert len(failing.requests) == 4
    pauses = [slept for slept in clock.slept if slept]
    assert all(low <= pause <= low + 0.1 for low, pause in zip((0.1, 0.2, 0.4), pauses, strict=True)), pauses


@pytest.mark.parametrize(
    "error", [Timeout(what="echo", timeout_s=1), PERHAPS_SENT, Conflict(kind="a", name="b", found="c", expected="d")]
)
async def test_what_may_have_happened_is_not_repeated(clock: JumpingClock, error: Exception) -> None:
    failing = Failing(error, clock=clock)
    with pytest.raises(type(error)) as caught:
        await retrying(clock)(REQUEST, failing)
    assert caught.value is error
    assert len(failing.requests) == 1


async def test_after_the_last_try_the_error_is_the_caller_s(clock: JumpingClock) -> None:
    failing = Failing(*[NOBODY] * 9, clock=clock)
    with pytest.raises(NobodyListens):
        await retrying(clock, retry=Retry(attempts=3))(REQUEST, failing)
    assert len(failing.requests) == 3


async def test_nothing_is_repeated_beyond_the_deadline_of_the_context(clock: JumpingClock) -> None:
    failing = Failing(*[NOBODY] * 9, clock=clock, takes_s=0.4)
    with pytest.raises(NobodyListens):
        await retrying(clock)(replace(REQUEST, ctx=Context(deadline=1.0)), failing)
    assert len(failing.requests) == 2
    assert clock.monotonic() < 1.0


async def test_all_tries_share_the_time_of_one(clock: JumpingClock) -> None:
    failing = Failing(NOBODY, NOBODY, clock=clock)
    await retrying(clock)(REQUEST, failing)
    assert {request.ctx.deadline for request in failing.requests} == {30.0}
    route = readdressed(REQUEST.route, timeout_s=7)
    await retrying(JumpingClock(jumps=True))(replace(REQUEST, route=route), failing)
    assert failing.requests[-1].ctx.deadline == 7.0


async def test_a_spent_budget_lets_errors_through_at_once(clock: JumpingClock) -> None:
    budget = RetryBudget(ratio=0.1, reserve=2)
    tried = []
    for _ in range(25):
        failing = Failing(*[NOBODY] * 9, clock=clock)
        with pytest.raises(NobodyListens):
            await retrying(clock, budget=budget)(REQUEST, failing)
        tried.append(len(failing.requests))
    assert tried[0] == 3
    assert 2 < sum(tried) - len(tried) <= 2 + 0.1 * len(tried)
