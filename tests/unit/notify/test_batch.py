"""What a batch listener gathers and how it settles."""

from typing import Any

import pytest

from common.notify import BatchListener, NotificationFilter, NotificationOptions, NotificationResult, Target
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryTransport
from tests.unit.notify.support import OPTIONS, BatchEndpoint, a_notifier, a_transport, rounds, send, settled, waiting

INFO = "notifications.info"


def a_listener(transport: MemoryTransport, *endpoints: object, **changes: Any) -> BatchListener:
    given: dict[str, Any] = {"clock": JumpingClock(), "options": OPTIONS, "batch_size": 3, **changes}
    return BatchListener(transport, [Target()], endpoints, **given)


async def test_a_full_batch_is_one_call_with_all_of_it() -> None:
    transport, endpoint = a_transport(), BatchEndpoint()
    notifier = a_notifier(transport)
    async with a_listener(transport, endpoint) as listener:
        for number in range(3):
            await notifier.info(None, "e", number)
        assert await endpoint.next() == ("info", [0, 1, 2])
        await settled(listener)
    assert (listener.counts.handled, endpoint.seen.empty()) == (3, True)
    assert await waiting(transport, INFO) == []


async def test_a_batch_that_is_not_full_waits_no_longer_than_its_timeout() -> None:
    transport, endpoint, clock = a_transport(), BatchEndpoint(), JumpingClock()
    async with a_listener(transport, endpoint, clock=clock, batch_timeout_s=5) as listener:
        for number in range(2):
            await send(transport, INFO, payload=number)
        await rounds()
        await clock.advance(4.9)
        assert endpoint.seen.empty()
        await clock.advance(0.2)
        assert await endpoint.next() == ("info", [0, 1])
        await settled(listener)
        for number in range(3):  # the timer of a batch that was filled does not cut the next one short
            await send(transport, INFO, payload=number)
        assert await endpoint.next() == ("info", [0, 1, 2])
        await send(transport, INFO, payload=3)
        await rounds()
        await clock.advance(4.9)
        assert endpoint.seen.empty()
    assert await endpoint.next() == ("info", [3])


async def test_a_batch_is_divided_by_priority() -> None:
    transport, endpoint = a_transport(), BatchEndpoint()
    async with a_listener(transport, endpoint, batch_size=4):
        notifier = a_notifier(transport)
        for number in range(2):
            await notifier.info(None, "e", number)
            await notifier.error(None, "e", number)
        assert await endpoint.next() == ("info", [0, 1])
        assert await endpoint.next() == ("error", [0, 1])


async def test_a_batch_is_no_larger_than_the_prefetch() -> None:
    transport, endpoint = a_transport(), BatchEndpoint()
    async with a_listener(transport, endpoint, batch_size=100, options=NotificationOptions(prefetch=2)):
        for number in range(4):
            await send(transport, INFO, payload=number)
        assert await endpoint.next() == ("info", [0, 1])
        assert await endpoint.next() == ("info", [2, 3])


async def test_of_a_batch_each_endpoint_gets_what_its_filter_lets_through() -> None:
    transport, some, none = a_transport(), BatchEndpoint(), BatchEndpoint()
    some.filter_rule = NotificationFilter(event_type="compute")  # type: ignore[attr-defined]
    none.filter_rule = NotificationFilter(event_type="image")  # type: ignore[attr-defined]
    async with a_listener(transport, some, none, batch_size=2) as listener:
        for event_type in ("volume.create", "compute.create"):
            await send(transport, INFO, event_type=event_type, payload=event_type)
        assert await some.next() == ("info", ["compute.create"])
        await settled(listener)
    assert none.seen.empty()
    assert listener.counts.handled == 2


@pytest.mark.parametrize("answer", [NotificationResult.REQUEUE, ZeroDivisionError("x")])
async def test_a_result_holds_for_the_whole_group_and_for_no_other(answer: Any) -> None:
    transport, endpoint = a_transport(), BatchEndpoint([answer])
    clock = JumpingClock(jumps=True)
    async with a_listener(transport, endpoint, batch_size=3, clock=clock, allow_requeue=True) as listener:
        notifier = a_notifier(transport)
        await notifier.info(None, "e", 0)
        await notifier.error(None, "e", 9)
        await notifier.info(None, "e", 1)
        assert await endpoint.next() == ("info", [0, 1])
        assert await endpoint.next() == ("error", [9])
        assert await endpoint.next() == ("info", [0, 1])
        await settled(listener)
    assert (listener.counts.requeued, listener.counts.handled) == (2, 3)
    assert await waiting(transport, INFO) == []


async def test_without_allow_requeue_a_group_that_failed_is_given_up_and_counted() -> None:
    transport, endpoint = a_transport(), BatchEndpoint([ZeroDivisionError()])
    async with a_listener(transport, endpoint, batch_size=2) as listener:
        for number in range(2):
            await send(transport, INFO, payload=number)
        await endpoint.next()
        await settled(listener)
    assert (listener.counts.given_up, listener.counts.failed, listener.counts.handled) == (2, 2, 0)
    assert await waiting(transport, INFO) == []


async def test_at_the_end_a_batch_that_is_not_full_is_handled() -> None:
    transport, endpoint = a_transport(), BatchEndpoint()
    async with a_listener(transport, endpoint):
        await send(transport, INFO, payload=7)
        await rounds()
    assert await endpoint.next() == ("info", [7])
    assert await waiting(transport, INFO) == []


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size is 0; wanted: 1 or more"):
        a_listener(a_transport(), BatchEndpoint(), batch_size=0)
