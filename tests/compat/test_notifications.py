"""Real oslo.messaging notifiers and listeners on the other side of a real RabbitMQ."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from common.base.context import Context
from common.host.clock import SystemClock
from common.notify import BatchListener, Listener, NotificationOptions, NotificationResult, Notifier, Received, Target
from common.transport.port import Transport
from common.transport.url import open_transport
from common.wire.notification import decode_notification

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(120, func_only=True)]
CLOCK = SystemClock()
OPTIONS = NotificationOptions(control_exchange="nova", requeue_delay_s=0.05)
CTX = Context(user_id="u1", project_id="p1", others={"auth_token": "SECRET"})
WAIT_S = 60.0


@dataclass
class Endpoint:
    """Takes `info` and `error`; asks back each event of `asked_back` once."""

    asked_back: list[str] = field(default_factory=list)
    seen: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    async def info(self, ctx: Context, publisher_id: str, event_type: str, payload: Any, metadata: Any) -> Any:
        return self._take("info", ctx, publisher_id, event_type, payload)

    async def error(self, ctx: Context, publisher_id: str, event_type: str, payload: Any, metadata: Any) -> Any:
        return self._take("error", ctx, publisher_id, event_type, payload)

    def _take(self, priority: str, ctx: Context, publisher_id: str, event_type: str, payload: Any) -> NotificationResult | None:
        seen = {"priority": priority, "event": event_type, "publisher": publisher_id, "payload": payload, "user": ctx.user_id}
        self.seen.put_nowait(seen)
        if event_type in self.asked_back:
            self.asked_back.remove(event_type)
            return NotificationResult.REQUEUE
        return None

    async def take(self, number: int) -> dict[str, dict[str, Any]]:
        """The next ones by event type."""
        async with asyncio.timeout(WAIT_S):
            found = [await self.seen.get() for _ in range(number)]
        return {one["event"]: one for one in found}


@dataclass
class BatchEndpoint:
    seen: asyncio.Queue[tuple[str, list[str]]] = field(default_factory=asyncio.Queue)

    async def info(self, messages: list[Received]) -> None:
        self.seen.put_nowait(("info", [message.event_type for message in messages]))

    async def error(self, messages: list[Received]) -> None:
        self.seen.put_nowait(("error", [message.event_type for message in messages]))


@asynccontextmanager
async def peer(kind: str, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An oslo.messaging process that has said that it is ready, or that it has sent."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("notification_peer.py")), kind, url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    try:
        assert (await line(process)).keys() <= {"ready", "sent"}
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(WAIT_S):
        found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


@pytest.fixture
async def transport(rabbit_url: str) -> AsyncIterator[Transport]:
    found = await open_transport(rabbit_url, clock=CLOCK, connection_name="test")
    yield found
    await found.close()


def a_notifier(transport: Transport, driver: str = "messagingv2") -> Notifier:
    return Notifier(transport, clock=CLOCK, publisher_id="volume.host1", driver=(driver,), options=OPTIONS)


def a_listener(transport: Transport, endpoint: object, **given: Any) -> Listener:
    return Listener(transport, [Target("notifications")], [endpoint], clock=CLOCK, options=OPTIONS, **given)


async def empty(transport: Transport, *queues: str) -> bool:
    """True when nothing was given back to any of the queues. That deliveries are acked is shown by the unit tests."""
    return [await transport.get(queue) for queue in queues] == [None] * len(queues)


async def test_we_hear_an_oslo_notifier_in_both_formats(rabbit_url: str, transport: Transport) -> None:
    endpoint = Endpoint()
    async with peer("notifier", rabbit_url), a_listener(transport, endpoint) as listener:
        seen = await endpoint.take(5)
    for driver in ("messagingv2", "messaging"):
        assert seen[f"{driver}.one"] == {
            "priority": "info", "event": f"{driver}.one", "publisher": "compute.host1", "payload": {"x": 1, "é": [None, 1.5]},
            "user": "u1",
        }  # fmt: skip
        two = seen[f"{driver}.two"]
        assert (two["priority"], two["publisher"], two["payload"], two["user"]) == ("error", "compute.host2", "text", None)
    assert seen["typed"]["payload"] == {"at": datetime(2026, 11, 23, 3, 13), "sum": Decimal("1.50")}  # noqa: DTZ001
    assert (listener.counts.handled, listener.counts.refused, listener.counts.duplicates) == (5, 0, 0)
    assert await empty(transport, "notifications.info", "notifications.error")


async def test_an_oslo_listener_hears_us_in_both_formats_and_gets_no_token(rabbit_url: str, transport: Transport) -> None:
    # Sent before it listens: the queue that we declared is the one that it wants.
    await a_notifier(transport).info(CTX, "early", {"n": 0})
    async with peer("listener", rabbit_url) as process:
        assert (await line(process))["event"] == "early"
        for driver in ("messagingv2", "messaging"):
            notifier = a_notifier(transport, driver)
            await notifier.error(CTX, f"{driver}.one", {"x": 1, "é": [None, 1.5]})
            assert await line(process) == {
                "priority": "error", "event": f"{driver}.one", "publisher": "volume.host1", "payload": {"x": 1, "é": [None, 1.5]},
                "user": "u1", "token": None, "metadata": ["message_id", "timestamp"],
            }  # fmt: skip
            await notifier.info(None, f"{driver}.two", [datetime(2026, 11, 23, 3, 13)])  # noqa: DTZ001
            at = "2026-11-23T03:13:00" if driver == "messagingv2" else "datetime.datetime(2026, 11, 23, 3, 13)"
            two = await line(process)
            assert (two["event"], two["payload"], two["user"]) == (f"{driver}.two", [at], None)
            assert notifier.counts.failed == 0


async def test_an_oslo_listener_asks_ours_back_and_hears_it_again(rabbit_url: str, transport: Transport) -> None:
    async with peer("listener", rabbit_url) as process:
        await a_notifier(transport).info(CTX, "again", {})
        assert [(await line(process))["event"] for _ in range(2)] == ["again", "again"]


async def test_we_ask_an_oslo_notifier_s_back_and_hear_it_again(rabbit_url: str, transport: Transport) -> None:
    endpoint = Endpoint(asked_back=["messagingv2.one", "messaging.two"])
    async with a_listener(transport, endpoint, allow_requeue=True) as listener, peer("notifier", rabbit_url):
        seen = await endpoint.take(7)
    assert len(seen) == 5
    assert (listener.counts.requeued, listener.counts.handled) == (2, 5)
    assert await empty(transport, "notifications.info", "notifications.error")


async def test_an_oslo_pool_and_ours_of_the_same_name_share_its_copies(rabbit_url: str, transport: Transport) -> None:
    pooled, plain = Endpoint(), Endpoint()
    notifier = a_notifier(transport)
    async with a_listener(transport, plain), peer("pool", rabbit_url) as process:
        await notifier.info(CTX, "first", {})
        assert (await line(process))["event"] == "first"
        reading = asyncio.create_task(pass_on(process, pooled))
        async with a_listener(transport, pooled, pool="usage"):
            for number in range(12):
                await notifier.info(CTX, f"e{number}", {})
            shared = await pooled.take(12)
        reading.cancel()
        assert {"first", *shared} == (await plain.take(13)).keys()
    assert {seen.get("heard_by", "us") for seen in shared.values()} == {"us", "oslo"}  # consumers take turns


async def pass_on(process: asyncio.subprocess.Process, endpoint: Endpoint) -> None:
    """What oslo's listener heard, among what ours hears."""
    while True:
        endpoint.seen.put_nowait({**await line(process), "heard_by": "oslo"})


async def test_quorum_queues_are_declared_as_oslo_declares_them(rabbit_url: str, transport: Transport) -> None:
    options = replace(OPTIONS, durable=True, queue_arguments={"x-queue-type": "quorum"})
    url = f"{rabbit_url}?rabbit_quorum_queue=true"
    notifier = Notifier(transport, clock=CLOCK, options=options)
    await notifier.info(CTX, "ours", {})
    async with peer("listener", url) as process:
        assert (await line(process))["event"] == "ours"
    endpoint = Endpoint()
    async with peer("notifier", url), Listener(transport, [Target()], [endpoint], clock=CLOCK, options=options):
        assert "messagingv2.one" in await endpoint.take(5)
    assert notifier.counts.failed == 0


async def test_an_oslo_batch_listener_hears_ours_together(rabbit_url: str, transport: Transport) -> None:
    async with peer("batch", rabbit_url) as process:
        notifier = a_notifier(transport)
        for number in range(2):
            await notifier.info(CTX, f"e{number}", {})
            await notifier.error(CTX, f"e{number}", {})
        found = [await line(process), await line(process)]
        assert sorted((item["priority"], sorted(item["events"])) for item in found) == [
            ("error", ["e0", "e1"]),
            ("info", ["e0", "e1"]),
        ]


async def test_our_batch_listener_hears_an_oslo_notifier_together(rabbit_url: str, transport: Transport) -> None:
    endpoint = BatchEndpoint()
    async with (
        peer("notifier", rabbit_url),
        BatchListener(
            transport, [Target("notifications")], [endpoint], clock=CLOCK, batch_size=5, batch_timeout_s=WAIT_S, options=OPTIONS
        ),
        asyncio.timeout(WAIT_S),
    ):
        found = [await endpoint.seen.get(), await endpoint.seen.get()]
    assert {priority: set(events) for priority, events in found} == {
        "info": {"messagingv2.one", "messaging.one", "typed"},
        "error": {"messagingv2.two", "messaging.two"},
    }
    assert await empty(transport, "notifications.info", "notifications.error")


async def test_an_oslo_notifier_s_message_is_what_ours_would_be(rabbit_url: str, transport: Transport) -> None:
    async with peer("notifier", rabbit_url):
        delivery = await transport.get("notifications.info")
        assert delivery is not None
        theirs = decode_notification(delivery.body)
        await delivery.ack()
    assert theirs.context["auth_token"] is None
    assert datetime.fromisoformat(theirs.timestamp or "").tzinfo is None
    assert delivery.content_type == "application/json"
