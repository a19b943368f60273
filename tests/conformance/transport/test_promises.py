"""The suite of `common.transport.port`: the numbers are those of its promises."""

import asyncio
import threading

import pytest

from common.base.limits import MESSAGE_BYTES_MAX
from common.transport.port import Binding, BusUnavailable, Closed, Exchange, Lack, Message, MessageTooLarge, Queue, Unroutable
from tests.conformance.transport.support import WAIT_S, Bus, Inbox, consume, lacks, process, send, to_queue

TOPIC_CASES = [
    ("compute", "compute", True),
    ("compute", "compute.cmp1", False),
    ("compute.cmp1", "compute.cmp1", True),
    ("compute.cmp1", "compute.cmp12", False),
    ("compute.cmp1", "computexcmp1", False),
    ("cinder-volume.host@file.host", "cinder-volume.host@file.host", True),
    ("cinder-volume.host@file.host", "cinder-volume.host@file", False),
    ("compute.*", "compute.cmp1", True),
    ("compute.*", "compute", False),
    ("compute.*", "compute.cmp1.a", False),
    ("compute.#", "compute", True),
    ("compute.#", "compute.cmp1.a", True),
    ("compute.#", "computes", False),
    ("#", "", True),
    ("#", "a.b", True),
    ("*", "", False),
    ("*", "a", True),
    ("*.*", ".", True),
    ("#.b", "b", True),
    ("#.b", "a.a.b", True),
    ("a.#.b", "a.b", True),
    ("a.#.b", "ab", False),
    ("a.*.#", "a", False),
    ("a.*.#", "a.b", True),
    ("", "", True),
    ("", "a", False),
]


# 1 -----------------------------------------------------------------------------------------------------------------------


async def test_01_a_message_whose_publish_returned_is_found_by_a_consumer_that_comes_later(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    queue = bus.topic_queue("compute")
    _, first = await consume(server, queue)
    await first.cancel()
    await send(publisher, Message(bus.topic_exchange(), queue.name, b"kept"))
    inbox, _ = await consume(server, queue)
    assert await inbox.bodies(1) == [b"kept"]


async def test_01_a_message_larger_than_the_limit_is_refused_at_the_sender(bus: Bus) -> None:
    transport = await bus.transport()
    with pytest.raises(MessageTooLarge, match=str(MESSAGE_BYTES_MAX)):
        await send(transport, to_queue(bus.name("q"), bytes(MESSAGE_BYTES_MAX + 1), mandatory=False))


async def test_01_many_publishes_at_once_all_arrive(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, Queue(bus.name("q")))
    wanted = {b"%d" % number for number in range(100)}
    async with asyncio.TaskGroup() as group:
        for body in wanted:
            group.create_task(send(publisher, to_queue(bus.name("q"), body)))
    assert set(await inbox.bodies(100)) == wanted


# 2 -----------------------------------------------------------------------------------------------------------------------


async def test_02_a_mandatory_message_that_no_queue_takes_is_refused(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    await consume(server, bus.topic_queue("compute"))
    for message in (
        to_queue(bus.name("nobody")),
        Message(bus.topic_exchange(), bus.name("scheduler"), b"{}", mandatory=True),
        Message(bus.topic_exchange("never-declared"), "compute", b"{}", mandatory=True),
        Message(bus.fanout_exchange("empty_fanout"), "compute", b"{}", mandatory=True),
    ):
        with pytest.raises(Unroutable) as caught:
            await send(publisher, message)
        assert message.key in str(caught.value)


async def test_02_a_message_that_no_queue_takes_is_dropped_in_silence_unless_it_is_mandatory(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, bus.topic_queue("compute"))
    await send(
        publisher,
        to_queue(bus.name("nobody"), b"lost", mandatory=False),
        Message(bus.topic_exchange(), bus.name("scheduler"), b"lost"),
        Message(bus.fanout_exchange(), "compute", b"lost"),
        to_queue(bus.name("compute"), b"taken"),
    )
    assert await inbox.bodies(1) == [b"taken"]


async def test_02_the_queue_of_a_deleted_name_takes_no_more(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    queue = bus.topic_queue("compute")
    _, consumer = await consume(server, queue)
    await consumer.cancel()
    await send(publisher, to_queue(queue.name))
    await server.delete_queue(queue.name)
    await server.delete_queue(queue.name)
    for message in (to_queue(queue.name), Message(bus.topic_exchange(), queue.name, b"{}", mandatory=True)):
        with pytest.raises(Unroutable):
            await send(publisher, message)
    inbox, _ = await consume(server, queue)
    await send(publisher, to_queue(queue.name, b"new"))
    assert await inbox.bodies(1) == [b"new"], "what waited in the deleted queue came back"


# 3 -----------------------------------------------------------------------------------------------------------------------


async def test_03_a_topic_exchange_routes_by_the_words_of_the_key(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    patterns = list(dict.fromkeys(pattern for pattern, _, _ in TOPIC_CASES))
    inboxes = {}
    for number, pattern in enumerate(patterns):
        inboxes[pattern], _ = await consume(server, bus.topic_queue(f"q{number}", pattern), prefetch=100)
    wanted: dict[str, list[bytes]] = {pattern: [] for pattern in patterns}
    for number, (pattern, key, is_match) in enumerate(TOPIC_CASES):
        body = b"%d %s" % (number, key.encode())
        await send(publisher, Message(bus.topic_exchange(), key, body))
        if is_match:
            wanted[pattern].append(body)
    for number in range(len(patterns)):
        await send(publisher, to_queue(bus.name(f"q{number}"), b"end"))
    own = {b"%d %s" % (number, key.encode()): pattern for number, (pattern, key, _) in enumerate(TOPIC_CASES)}
    for pattern in patterns:
        found = []
        while (delivery := await inboxes[pattern].next()).body != b"end":
            found.append(delivery.body)
        assert [body for body in found if own[body] == pattern] == wanted[pattern], pattern


async def test_03_a_fanout_exchange_gives_a_copy_to_each_of_its_queues(bus: Bus) -> None:
    publisher, one, two = await bus.transport(), await bus.transport(), await bus.transport()
    exchange = bus.fanout_exchange()
    first, _ = await consume(one, Queue(bus.name("fan1"), (Binding(exchange, "compute"),)))
    second, _ = await consume(two, Queue(bus.name("fan2"), (Binding(exchange, "other"),)))
    third, _ = await consume(two, bus.topic_queue("not-bound"))
    await send(publisher, Message(exchange, "compute", b"all"), to_queue(bus.name("not-bound"), b"end"))
    assert await first.bodies(1) == await second.bodies(1) == [b"all"]
    assert await third.bodies(1) == [b"end"]


async def test_03_a_direct_exchange_routes_by_the_whole_key(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    exchange = Exchange(bus.name("direct"), "direct")
    inbox, _ = await consume(server, Queue(bus.name("q"), (Binding(exchange, "a.*"),)))
    await send(publisher, Message(exchange, "a.b", b"no"), Message(exchange, "a.*", b"yes"))
    assert await inbox.bodies(1) == [b"yes"]


async def test_03_a_queue_bound_twice_takes_one_copy(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    exchange = bus.topic_exchange()
    inbox, _ = await consume(server, Queue(bus.name("q"), (Binding(exchange, "a.#"), Binding(exchange, "#.b"))))
    await send(publisher, Message(exchange, "a.b", b"once"), Message(exchange, "a.c", b"end"))
    assert await inbox.bodies(2) == [b"once", b"end"]


# 4 -----------------------------------------------------------------------------------------------------------------------


async def test_04_each_message_goes_to_one_consumer(bus: Bus) -> None:
    publisher, one, two = await bus.transport(), await bus.transport(), await bus.transport()
    inbox = Inbox()
    for server in (one, two):
        await server.consume(Queue(bus.name("q")), prefetch=5, on_delivery=inbox)
    wanted = [b"%d" % number for number in range(30)]
    await send(publisher, *(to_queue(bus.name("q"), body) for body in wanted))
    assert sorted(await inbox.bodies(30), key=int) == wanted
    assert inbox.arrived.empty()


async def test_04_consumers_of_one_queue_take_turns(bus: Bus) -> None:
    publisher, one, two = await bus.transport(), await bus.transport(), await bus.transport()
    first, _ = await consume(one, Queue(bus.name("q")), prefetch=3)
    second, _ = await consume(two, Queue(bus.name("q")), prefetch=3)
    await send(publisher, *(to_queue(bus.name("q"), b"%d" % number) for number in range(6)))
    found = [[(await inbox.next()).body for _ in range(3)] for inbox in (first, second)]
    if not lacks(publisher, Lack.TURNS):
        assert sorted(found) == [[b"0", b"2", b"4"], [b"1", b"3", b"5"]]


async def test_04_consumers_of_one_transport_take_turns_too(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    first, _ = await consume(server, Queue(bus.name("q")))
    second, _ = await consume(server, Queue(bus.name("q")))
    await send(publisher, *(to_queue(bus.name("q"), b"%d" % number) for number in range(6)))
    assert len(await first.bodies(3)) == len(await second.bodies(3)) == 3


# 5 -----------------------------------------------------------------------------------------------------------------------


async def test_05_a_consumer_holds_no_more_than_its_prefetch(bus: Bus) -> None:
    publisher, one, two = await bus.transport(), await bus.transport(), await bus.transport()
    first, _ = await consume(one, Queue(bus.name("q")), prefetch=2)
    await send(publisher, *(to_queue(bus.name("q"), b"%d" % number) for number in range(4)))
    held = [await first.next(), await first.next()]
    assert [delivery.body for delivery in held] == [b"0", b"1"]
    second, consumer = await consume(two, Queue(bus.name("q")), prefetch=1)
    assert (await second.next()).body == b"2", "the rest did not wait in the queue"
    assert first.arrived.empty()
    await held[0].ack()
    assert (await first.next()).body == b"3"
    assert second.arrived.empty()
    await consumer.cancel()


async def test_05_a_prefetch_without_limit_is_an_error_of_the_caller(bus: Bus) -> None:
    transport = await bus.transport()
    with pytest.raises(ValueError, match="prefetch"):
        await transport.consume(Queue(bus.name("q")), prefetch=0, on_delivery=Inbox())


# 6 -----------------------------------------------------------------------------------------------------------------------


async def test_06_an_acked_delivery_is_gone(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, Queue(bus.name("q")))
    await send(publisher, to_queue(bus.name("q"), b"done"))
    delivery = await inbox.next()
    assert not delivery.redelivered
    await delivery.ack()
    await server.close()
    inbox, _ = await consume(await bus.transport(), Queue(bus.name("q")))
    await send(publisher, to_queue(bus.name("q"), b"end"))
    assert await inbox.bodies(1) == [b"end"]


async def test_06_a_rejected_delivery_comes_again_if_it_is_requeued(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, Queue(bus.name("q"), (Binding(bus.fanout_exchange(), ""),)))
    other, _ = await consume(server, Queue(bus.name("other"), (Binding(bus.fanout_exchange(), ""),)))
    await send(publisher, Message(bus.fanout_exchange(), "", b"again", headers={"a": "b"}))
    assert await other.bodies(1) == [b"again"]
    await (await inbox.next()).reject(requeue=True)
    second = await inbox.next()
    assert (second.body, second.redelivered, dict(second.headers)) == (b"again", True, {"a": "b"})
    await second.ack()
    await send(publisher, to_queue(bus.name("other"), b"end"))
    assert await other.bodies(1) == [b"end"], "it came back to another queue too"


async def test_06_a_rejected_delivery_is_dropped_if_it_is_not_requeued(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, Queue(bus.name("q")))
    await send(publisher, to_queue(bus.name("q"), b"bad"), to_queue(bus.name("q"), b"good"))
    await (await inbox.next()).reject(requeue=False)
    assert await inbox.bodies(1) == [b"good"]
    await server.close()
    inbox, _ = await consume(await bus.transport(), Queue(bus.name("q")))
    await send(publisher, to_queue(bus.name("q"), b"end"))
    assert await inbox.bodies(1) == [b"end"]


async def test_06_settling_twice_is_an_error_of_the_caller(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, Queue(bus.name("q")))
    await send(publisher, to_queue(bus.name("q")), to_queue(bus.name("q")))
    first, second = await inbox.next(), await inbox.next()
    await first.ack()
    await second.reject(requeue=False)
    for delivery in (first, second):
        with pytest.raises(ValueError, match="settled"):
            await delivery.ack()
        with pytest.raises(ValueError, match="settled"):
            await delivery.reject(requeue=True)


# 7 -----------------------------------------------------------------------------------------------------------------------


async def test_07_what_a_closed_transport_left_unsettled_goes_to_another_consumer(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, Queue(bus.name("q")), prefetch=2)
    await send(publisher, *(to_queue(bus.name("q"), b"%d" % number) for number in range(3)))
    held = [await inbox.next(), await inbox.next()]
    await server.close()
    again, _ = await consume(await bus.transport(), Queue(bus.name("q")))
    deliveries = [await again.next() for _ in range(3)]
    assert {delivery.body: delivery.redelivered for delivery in deliveries} == {b"0": True, b"1": True, b"2": False}
    with pytest.raises(BusUnavailable):
        await held[0].ack()


async def test_07_a_cancelled_consumer_may_still_settle_what_it_holds(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, consumer = await consume(server, Queue(bus.name("q")), prefetch=3)
    await send(publisher, *(to_queue(bus.name("q"), b"%d" % number) for number in range(3)))
    held = [await inbox.next() for _ in range(3)]
    await consumer.cancel()
    await consumer.cancel()
    await send(publisher, to_queue(bus.name("q"), b"later"))
    await held[0].ack()
    await held[1].reject(requeue=True)
    await held[2].reject(requeue=False)
    again, _ = await consume(await bus.transport(), Queue(bus.name("q")))
    assert sorted(await again.bodies(2)) == [b"1", b"later"]
    assert inbox.arrived.empty()


# 8 -----------------------------------------------------------------------------------------------------------------------


async def test_08_a_message_whose_time_ran_out_is_never_delivered(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    _, consumer = await consume(server, Queue(bus.name("q")))
    await consumer.cancel()
    await send(
        publisher,
        to_queue(bus.name("q"), b"short", expiration_ms=40),
        to_queue(bus.name("q"), b"long", expiration_ms=60_000),
        to_queue(bus.name("q"), b"for ever"),
    )
    await bus.clock.sleep(0.06)
    inbox, _ = await consume(server, Queue(bus.name("q")))
    assert await inbox.bodies(2) == [b"long", b"for ever"]


# 9 -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"", b'{"a": "\xc3\xa9"}', bytes(range(256)), b"x" * 300_000], ids=["empty", "json", "binary", "long"]
)
async def test_09_body_content_type_and_headers_arrive_as_they_were_sent(bus: Bus, body: bytes) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, Queue(bus.name("q")))
    headers = {"traceparent": "00-é", "number": 7, "flag": True}
    await send(publisher, Message(None, bus.name("q"), body, headers=headers, content_type="application/x-test"))
    delivery = await inbox.next()
    assert delivery.body == body
    assert delivery.content_type == "application/x-test"
    assert dict(delivery.headers) == headers
    await delivery.ack()


# 10 ----------------------------------------------------------------------------------------------------------------------


async def test_10_queue_and_bindings_are_there_when_consume_returns(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    queue = bus.topic_queue("compute")
    inbox, _ = await consume(server, Queue(queue.name, (*queue.bindings, Binding(bus.fanout_exchange(), ""))))
    await send(
        publisher,
        to_queue(queue.name, b"1"),
        Message(bus.topic_exchange(), queue.name, b"2", mandatory=True),
        Message(bus.fanout_exchange(), "", b"3", mandatory=True),
    )
    assert await inbox.bodies(3) == [b"1", b"2", b"3"]


async def test_10_a_queue_deleted_under_its_consumer_is_there_again(bus: Bus) -> None:
    publisher, server, operator = await bus.transport(), await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, bus.topic_queue("compute"))
    await operator.delete_queue(bus.name("compute"))
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await send(publisher, Message(bus.topic_exchange(), bus.name("compute"), b"back", mandatory=True))
                break
            except Unroutable:
                await bus.clock.sleep(0.02)
    assert await inbox.bodies(1) == [b"back"]


async def test_10_an_auto_delete_queue_ends_with_its_last_consumer(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    queue = Queue(bus.name("q"), auto_delete=True)
    _, first = await consume(server, queue)
    inbox, second = await consume(server, queue)
    await first.cancel()
    await send(publisher, to_queue(queue.name, b"1"))
    assert await inbox.bodies(1) == [b"1"]
    await second.cancel()
    with pytest.raises(Unroutable):
        await send(publisher, to_queue(queue.name))


# 11 ----------------------------------------------------------------------------------------------------------------------


async def test_11_consumers_are_counted(bus: Bus) -> None:
    asker, one, two = await bus.transport(), await bus.transport(), await bus.transport()
    queue = Queue(bus.name("q"))
    counted = [await asker.consumers(queue.name)]
    _, consumer = await consume(one, queue)
    counted.append(await asker.consumers(queue.name))
    await consume(one, queue)
    await consume(two, queue)
    counted.append(await asker.consumers(queue.name))
    await consumer.cancel()
    counted.append(await asker.consumers(queue.name))
    await one.close()
    await two.close()
    counted.append(await asker.consumers(queue.name))
    assert counted == ([None] * 5 if lacks(asker, Lack.COUNTING) else [0, 1, 3, 2, 0])


# 12 ----------------------------------------------------------------------------------------------------------------------


async def test_12_a_closed_transport_is_closed_for_everything(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, consumer = await consume(server, Queue(bus.name("q")))
    await server.close()
    await server.close()
    await consumer.cancel()
    await send(publisher, to_queue(bus.name("q"), mandatory=False))
    for use in (
        send(server, to_queue(bus.name("q"))),
        consume(server, Queue(bus.name("q"))),
        server.delete_queue(bus.name("q")),
        server.consumers(bus.name("q")),
        server.depth(bus.name("q")),
    ):
        with pytest.raises(Closed):
            await use
    assert inbox.arrived.empty()


async def test_12_close_ends_at_once_while_others_work(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    await consume(server, Queue(bus.name("q")), prefetch=5)
    await send(publisher, *(to_queue(bus.name("q")) for _ in range(20)))
    async with asyncio.timeout(WAIT_S / 2):
        await server.close()


# 13 ----------------------------------------------------------------------------------------------------------------------


async def test_13_messages_of_one_publisher_keep_their_order(bus: Bus) -> None:
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, bus.topic_queue("compute"), prefetch=7)
    wanted = [b"%d" % number for number in range(60)]
    async with asyncio.TaskGroup() as group:
        found = group.create_task(inbox.bodies(60))
        await send(publisher, *(Message(bus.topic_exchange(), bus.name("compute"), body) for body in wanted))
    assert found.result() == wanted


async def test_12_close_leaves_no_task_and_no_thread_behind(bus: Bus) -> None:
    before = set(threading.enumerate())
    publisher, server = await bus.transport(), await bus.transport()
    inbox, _ = await consume(server, bus.topic_queue("compute"), prefetch=2)
    await send(publisher, *(to_queue(bus.name("compute")) for _ in range(4)))
    await inbox.next()
    await server.close()
    await publisher.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    # The driver of RabbitMQ ends its last tasks a moment after it said that it is closed.
    assert not left or not (await asyncio.wait(left, timeout=WAIT_S))[1]
    assert set(threading.enumerate()) == before


# Beyond the numbers -------------------------------------------------------------------------------------------------------


# 15, 16, 17 -------------------------------------------------------------------------------------------------------------------


async def test_15_a_declared_queue_keeps_what_is_published_before_anybody_consumes(bus: Bus) -> None:
    publisher, reader = await bus.transport(), await bus.transport()
    queue = bus.topic_queue("notifications.info")
    await publisher.declare(queue)
    await publisher.declare(queue)
    await send(publisher, Message(bus.topic_exchange(), queue.name, b"early", mandatory=True))
    assert lacks(publisher, Lack.COUNTING) or await publisher.consumers(queue.name) == 0
    inbox, _ = await consume(reader, queue)
    assert await inbox.bodies(1) == [b"early"]


async def test_16_get_takes_the_oldest_message_and_nothing_from_an_empty_or_unknown_queue(bus: Bus) -> None:
    transport = await bus.transport()
    name = bus.name("looked-into")
    assert await transport.get(name) is None
    await transport.declare(Queue(name))
    assert await transport.get(name) is None
    await send(transport, to_queue(name, b"1"), to_queue(name, b"2"))
    first, second = await transport.get(name), await transport.get(name)
    assert first is not None
    assert second is not None
    assert (first.body, second.body) == (b"1", b"2")
    assert await transport.get(name) is None
    await first.reject(requeue=True)
    await second.ack()
    again = await transport.get(name)
    assert again is not None
    assert (again.body, again.redelivered) == (b"1", True)
    await again.ack()
    assert await transport.get(name) is None


async def test_16_what_was_got_and_not_settled_goes_back_when_the_transport_closes(bus: Bus) -> None:
    reader, other = await bus.transport(), await bus.transport()
    name = bus.name("looked-into")
    await reader.declare(Queue(name))
    await send(reader, to_queue(name, b"kept"))
    assert await reader.get(name) is not None
    await reader.close()
    inbox, _ = await consume(other, Queue(name))
    assert await inbox.bodies(1) == [b"kept"]


async def test_17_a_consumer_hears_that_its_queue_was_made_anew(bus: Bus) -> None:
    server, other = await bus.transport(), await bus.transport()
    queue = Queue(bus.name("fragile"))
    remade = asyncio.Event()
    await server.consume(queue, prefetch=1, on_delivery=Inbox(), on_remade=remade.set)
    await other.delete_queue(queue.name)
    async with asyncio.timeout(WAIT_S):
        await remade.wait()


async def test_a_delivery_is_never_handed_out_inside_publish(bus: Bus) -> None:
    transport = await bus.transport()
    is_publishing = False
    seen: asyncio.Queue[bool] = asyncio.Queue()
    await transport.consume(Queue(bus.name("q")), prefetch=1, on_delivery=lambda _: seen.put_nowait(is_publishing))
    publish = transport.publish(to_queue(bus.name("q")), timeout_s=WAIT_S)
    is_publishing = True
    if bus.kind == "memory":
        # The others await I/O, where the loop may run the callback before the publisher goes on.
        with pytest.raises(StopIteration):
            publish.send(None)
    else:
        await publish
    is_publishing = False
    async with asyncio.timeout(WAIT_S):
        found = await seen.get()
    assert not found or bus.kind != "memory"


# 18 ----------------------------------------------------------------------------------------------------------------------


async def test_18_what_waits_in_a_queue_is_counted(bus: Bus) -> None:
    transport, server = await bus.transport(), await bus.transport()
    queue = Queue(bus.name("q"))
    assert await transport.depth(queue.name) is None
    await transport.declare(queue)
    empty = await transport.depth(queue.name)
    assert empty is not None
    assert (empty.ready, empty.unsettled or 0, empty.consumers or 0, empty.oldest_s) == (0, 0, 0, None)
    await send(transport, *(to_queue(queue.name, b"%d" % number) for number in range(3)))
    full = await transport.depth(queue.name)
    assert full is not None
    assert (full.ready, full.oldest_s is None or 0 <= full.oldest_s < WAIT_S) == (3, True)
    inbox, _ = await consume(server, queue, prefetch=2)
    held = [await inbox.next(), await inbox.next()]
    depth = await transport.depth(queue.name)
    assert depth is not None
    assert (depth.ready, depth.unsettled in (None, 2)) == (1, True)
    assert depth.consumers == (None if lacks(transport, Lack.COUNTING) else 1)
    for delivery in held:
        await delivery.ack()
    await (await inbox.next()).ack()
    drained = await transport.depth(queue.name)
    assert drained is not None
    assert (drained.ready, drained.unsettled or 0) == (0, 0)
    await transport.delete_queue(queue.name)


async def test_18_to_look_at_a_queue_takes_nothing_from_it(bus: Bus) -> None:
    transport = await bus.transport()
    queue = Queue(bus.name("q"))
    await transport.declare(queue)
    await send(transport, to_queue(queue.name, b"1"))
    for _ in range(3):
        await transport.depth(queue.name)
    inbox, _ = await consume(transport, queue)
    delivery = await inbox.next()
    assert (delivery.body, delivery.redelivered) == (b"1", False)
    await delivery.ack()


async def test_a_transport_declares_what_it_lacks(bus: Bus) -> None:
    assert (await bus.transport()).lacks == {
        "memory": {Lack.ONE_PROCESS},
        "kombu-memory": {Lack.ONE_PROCESS, Lack.REDELIVERY, Lack.COUNTING, Lack.TURNS},
        "kombu-filesystem": {Lack.TURNS},
        "kombu-sqlite": {Lack.TURNS},
        "kombu-postgresql": {Lack.TURNS},
        "kombu-redis": {Lack.TURNS},
        "rabbit": set(),
        "amqp": set(),
    }[bus.kind]


async def test_other_processes_reach_a_transport_that_does_not_say_otherwise_and_no_other(bus: Bus) -> None:
    """COUNTING is looked at in 11. The others of `Lack` cannot be shown: a bus of one process has no process that could be killed
    (REDELIVERY), and a consumer that took no turn may have been lucky (TURNS).
    """
    transport, name = await bus.transport(), bus.name("server")
    inbox, _ = await consume(transport, Queue(bus.name("replies")))
    message = Message(None, name, b"x", mandatory=True, headers={"reply_to": bus.name("replies")})
    async with process(bus.url, "echo", name) as worker:
        assert worker.stdout is not None
        ready = await worker.stdout.readline()
        if lacks(transport, Lack.ONE_PROCESS):
            with pytest.raises(Unroutable):
                await send(transport, message)
        else:
            assert ready == b"ready\n"
            await send(transport, message)
            assert await inbox.bodies(1) == [b"x"]


async def test_a_transport_names_where_it_is_connected_without_a_password(bus: Bus) -> None:
    transport = await bus.transport()
    assert "guest:guest" not in transport.url
    schemes = {"kombu-sqlite": "kombu+sqla+sqlite", "kombu-postgresql": "kombu+sqla+postgresql"}
    assert transport.url.partition("://")[0] == schemes.get(bus.kind, bus.kind.replace("-", "+"))
