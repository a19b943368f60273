"""What a listener does with each delivery."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.base.context import Context
from common.notify import Listener, NotificationFilter, NotificationOptions, NotificationResult, Target
from common.notify.topology import listener_queues
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryTransport
from common.transport.port import Binding, Exchange, Queue
from common.wire.notification import Notification, Priority, encode_notification
from tests.unit.notify.support import CLOCK, OPTIONS, Endpoint, a_notifier, a_transport, put, rounds, send, settled, waiting
from tests.unit.rpc.given import Given

CTX = Context(user_id="u1", project_id="p1")
REQUEUE = NotificationResult.REQUEUE
INFO = "notifications.info"


def a_listener(transport: MemoryTransport, *endpoints: object, **changes: Any) -> Listener:
    given: dict[str, Any] = {"clock": JumpingClock(jumps=True), "options": OPTIONS, **changes}
    return Listener(transport, given.pop("targets", [Target()]), endpoints, **given)


async def test_an_endpoint_gets_what_was_told_with_its_context() -> None:
    transport, endpoint = a_transport(), Endpoint()
    async with a_listener(transport, endpoint):
        await a_notifier(transport).info(CTX, "compute.instance.update", {"x": 1})
        ctx, publisher_id, event_type, payload, metadata = await endpoint.next()
    assert (publisher_id, event_type, payload) == ("compute.host1", "compute.instance.update", {"x": 1})
    assert (ctx.user_id, ctx.project_id, ctx.request_id) == ("u1", "p1", CTX.request_id)
    assert metadata.keys() == {"message_id", "timestamp"}
    assert ctx.message_id is not None


async def test_what_was_told_before_anybody_listened_is_heard() -> None:
    transport, endpoint = a_transport(), Endpoint()
    notifier = a_notifier(transport)
    await notifier.info(CTX, "early", {})
    async with a_listener(transport, endpoint) as listener:
        assert await endpoint.events() == ["early"]
        await settled(listener)
    assert listener.counts.handled == 1
    assert await waiting(transport, INFO) == []


async def test_only_priorities_that_some_endpoint_has_are_consumed() -> None:
    transport = a_transport()
    async with a_listener(transport, Endpoint()):
        await a_notifier(transport).error(CTX, "e", {})
        assert await transport.consumers(INFO) == 1
    assert len(await waiting(transport, "notifications.error")) == 1


def test_endpoints_without_a_method_or_with_one_that_is_not_async_are_refused() -> None:
    class Silent:
        pass

    class Sync:
        def info(self, *given: Any) -> None:
            pass

    with pytest.raises(TypeError, match="no endpoint has a method for any priority; wanted: async methods of audit, debug"):
        a_listener(a_transport(), Silent())
    with pytest.raises(TypeError, match=r"Sync\.info is not async"):
        a_listener(a_transport(), Sync())


async def test_each_endpoint_gets_what_its_filter_lets_through() -> None:
    transport, all_of_it, some = a_transport(), Endpoint(), Endpoint()
    some.filter_rule = NotificationFilter(event_type="compute", context={"user": "u1"})  # type: ignore[attr-defined]
    notifier = a_notifier(transport)
    async with a_listener(transport, some, all_of_it) as listener:
        for event_type in ("volume.create", "compute.create"):
            await notifier.info(CTX, event_type, {})
        assert await all_of_it.events(2) == ["volume.create", "compute.create"]
        await settled(listener)
    assert await some.events() == ["compute.create"]
    assert some.seen.empty()
    assert listener.counts.handled == 2


@pytest.mark.parametrize("answer", [REQUEUE, ZeroDivisionError("x")])
async def test_with_allow_requeue_what_is_asked_back_comes_again_after_a_delay(answer: Any) -> None:
    transport, first, second = a_transport(), Endpoint([answer, answer]), Endpoint()
    clock = JumpingClock(jumps=True)
    async with a_listener(transport, first, second, allow_requeue=True, clock=clock) as listener:
        await a_notifier(transport).info(CTX, "e", {})
        assert await first.events(3) == ["e"] * 3
        await settled(listener)
    assert second.seen.qsize() == 1  # not before the first one was content
    assert clock.slept == [OPTIONS.requeue_delay_s] * 2
    counts = listener.counts
    assert (counts.requeued, counts.handled, counts.given_up, counts.duplicates) == (2, 1, 0, 0)
    assert counts.failed == (0 if answer is REQUEUE else 2)
    assert await waiting(transport, INFO) == []


@pytest.mark.parametrize("answer", [REQUEUE, ZeroDivisionError("x")])
async def test_without_it_what_is_asked_back_is_logged_and_counted_and_the_others_get_it(answer: Any) -> None:
    transport, first, second = a_transport(), Endpoint([answer]), Endpoint()
    with capture_logs() as logs:
        async with a_listener(transport, first, second) as listener:
            await a_notifier(transport).info(CTX, "compute.create", {})
            assert await second.events() == ["compute.create"]
            await settled(listener)
    assert first.seen.qsize() == 1
    assert (listener.counts.given_up, listener.counts.handled, listener.counts.requeued) == (1, 0, 0)
    assert logs[-1]["event"] == "notifications given up: this listener gives none back"
    assert logs[-1]["event_types"] == "compute.create"
    if answer is not REQUEUE:
        assert listener.counts.failed == 1
        assert (logs[0]["event"], logs[0]["event_types"]) == ("notification endpoint failed", ["compute.create"])
    assert await waiting(transport, INFO) == []


async def test_a_duplicate_is_dropped_and_acked() -> None:
    transport, endpoint = a_transport(), Endpoint()
    async with a_listener(transport, endpoint) as listener:
        for event_type in ("one", "again", "other"):
            await send(transport, INFO, event_type=event_type, unique_id="u2" if event_type == "other" else "u1")
            await endpoint.next() if event_type != "again" else await settled(listener)
            await settled(listener)
        assert endpoint.seen.empty()
    assert (listener.counts.handled, listener.counts.duplicates) == (2, 1)
    assert await waiting(transport, INFO) == []


async def test_without_an_id_each_is_new() -> None:
    transport, endpoint = a_transport(), Endpoint()
    async with a_listener(transport, endpoint):
        for _ in range(2):
            await send(transport, INFO)
        assert await endpoint.events(2) == ["e", "e"]


@pytest.mark.parametrize(("answer", "how"), [(None, "acked"), (REQUEUE, "given back")])
async def test_a_copy_that_comes_while_the_first_is_at_work_ends_as_it_does(answer: Any, how: str) -> None:
    endpoint = Endpoint([answer])
    endpoint.gate.clear()
    listener = a_listener(a_transport(), endpoint, allow_requeue=True)
    body = encode_notification(Notification("e", Priority.INFO, {}, unique_id="u"), envelope=True)
    lost, copy = Given(body, is_lost=True), Given(body)  # the connection of the first is gone: the copy is all that is left
    for delivery in (lost, copy):
        listener._on_delivery(delivery)
    await endpoint.next()
    assert copy.settled == ""
    endpoint.gate.set()
    await settled(listener)
    assert (copy.settled, endpoint.seen.qsize()) == (how, 0)


async def test_what_cannot_be_read_is_dropped_with_its_reason_and_the_listener_goes_on() -> None:
    transport, endpoint = a_transport(), Endpoint()
    with capture_logs() as logs:
        async with a_listener(transport, endpoint) as listener:
            for body in (b"\xff", b"{}", b'{"event_type": "e", "priority": "LOUD"}'):
                await put(transport, INFO, body)
            await send(transport, INFO)
            assert await endpoint.events() == ["e"]
            await settled(listener)
    assert listener.counts.refused == 3
    reasons = [log["reason"] for log in logs if log["event"] == "message refused"]
    assert [reason.split(" is ")[0] for reason in reasons] == ["body of 1 bytes", "event_type", "priority"]
    assert await waiting(transport, INFO) == []


async def test_what_is_dropped_is_settled_at_the_bus() -> None:
    listener = a_listener(a_transport(), Endpoint())
    body = encode_notification(Notification("e", Priority.INFO, {}, unique_id="u"), envelope=True)
    first, duplicate, unreadable = Given(body), Given(body), Given(b"{}")
    for delivery in (first, duplicate, unreadable):
        listener._on_delivery(delivery)
        await settled(listener)
    assert (first.settled, duplicate.settled, unreadable.settled) == ("acked", "acked", "dropped")
    assert listener.counts.duplicates == 1


async def test_ids_are_remembered_as_many_as_the_options_say() -> None:
    listener = a_listener(a_transport(), Endpoint(), options=NotificationOptions(duplicates_remembered=2))
    for unique_id in ("a", "b", "c", "b", "a"):
        body = encode_notification(Notification("e", Priority.INFO, {}, unique_id=unique_id), envelope=True)
        listener._on_delivery(Given(body))
        await settled(listener)
    assert (listener.counts.handled, listener.counts.duplicates) == (4, 1)  # "b" is a duplicate, "a" is forgotten


async def test_no_more_run_at_once_than_the_prefetch_over_all_queues() -> None:
    transport, endpoint = a_transport(), Endpoint()
    endpoint.gate.clear()
    options = NotificationOptions(prefetch=2)
    async with a_listener(transport, endpoint, targets=[Target("a"), Target("b")], options=options) as listener:
        for number in range(6):
            await send(transport, "a.info" if number % 2 else "b.info")
        await endpoint.events(2)
        await rounds()
        assert (endpoint.running, endpoint.seen.empty()) == (2, True)
        endpoint.gate.set()
        await endpoint.events(4)
        await settled(listener)
    assert endpoint.most == 2


async def test_a_pool_has_its_copy_of_everything_and_its_listeners_share_it() -> None:
    transport = a_transport()
    plain, one, other = Endpoint(), Endpoint(), Endpoint()
    targets = [Target("notifications"), Target("audits")]
    async with (
        a_listener(transport, plain, targets=targets),
        a_listener(transport, one, targets=targets, pool="usage"),
        a_listener(transport, other, targets=targets, pool="usage"),
    ):
        notifier = a_notifier(transport, topics=("notifications", "audits"))
        for number in range(4):
            await notifier.info(CTX, f"e{number}", {})
        assert sorted(await plain.events(8)) == sorted([f"e{number}" for number in range(4)] * 2)
        assert len(await one.events(4)) == len(await other.events(4)) == 4


def test_queues_are_those_of_an_oslo_listener() -> None:
    options = NotificationOptions(durable=True, auto_delete=True, queue_arguments={"x-queue-type": "quorum"})
    nova, openstack = Exchange("nova", "topic", durable=True, auto_delete=True), Exchange("openstack", "topic", True, True)
    targets = [Target("notifications", "nova"), Target("audits"), Target("audits")]
    priorities = [Priority.INFO, Priority.ERROR]

    def queue(name: str, *bindings: Binding) -> Queue:
        return Queue(name, bindings, durable=True, auto_delete=True, arguments={"x-queue-type": "quorum"})

    keys = [(nova, "notifications.info"), (openstack, "audits.info"), (nova, "notifications.error"), (openstack, "audits.error")]
    bindings = [Binding(exchange, key) for exchange, key in keys]
    assert listener_queues(options, targets, priorities, None) == tuple(queue(bound.key, bound) for bound in bindings)
    assert listener_queues(options, targets, priorities, "usage") == (queue("usage", *bindings),)
    both = listener_queues(NotificationOptions(), [Target("t", "a"), Target("t", "b")], [Priority.INFO], None)
    assert [(found.name, [bound.exchange.name for bound in found.bindings]) for found in both] == [("t.info", ["a", "b"])]


async def test_at_the_end_what_is_in_hand_is_finished() -> None:
    transport, endpoint = a_transport(), Endpoint()
    endpoint.gate.clear()
    async with a_listener(transport, endpoint, clock=CLOCK) as listener:
        await send(transport, INFO)
        await endpoint.next()
        asyncio.get_running_loop().call_later(0.05, endpoint.gate.set)
    assert (listener.counts.handled, endpoint.running) == (1, 0)
    assert await waiting(transport, INFO) == []


async def test_what_does_not_end_in_its_grace_goes_back() -> None:
    transport, endpoint = a_transport(), Endpoint()
    endpoint.gate.clear()
    async with a_listener(transport, endpoint, grace_s=0.01):
        await send(transport, INFO, unique_id="u")
        await endpoint.next()
    assert endpoint.running == 0
    assert [item.unique_id for item in await waiting(transport, INFO)] == ["u"]


async def test_a_bus_that_is_gone_at_the_start_leaves_nothing_behind() -> None:
    transport = a_transport()
    await transport.close()
    with pytest.raises(Exception, match="was closed"):
        async with a_listener(transport, Endpoint()):
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_queue_that_was_lost_is_told_and_counted() -> None:
    transport, endpoint = a_transport(), Endpoint()
    with capture_logs() as logs:
        async with a_listener(transport, endpoint) as listener:
            await transport.delete_queue(INFO)
            await a_notifier(transport).info(CTX, "e", {})
            assert await endpoint.events() == ["e"]
    assert listener.counts.remade == 1
    assert "had to be made anew" in logs[0]["event"]
