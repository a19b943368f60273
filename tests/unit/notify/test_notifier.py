"""What a notifier sends, and what it does when it cannot."""

import asyncio
import gc
from collections.abc import Callable
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from common.base.context import Context
from common.base.errors import Misconfigured, Unavailable
from common.base.ids import is_uuid
from common.base.limits import NOTIFICATION_QUEUE_KNOWN_S
from common.notify import NotificationOptions, Notifier, driver as drivers, notifier as notifier_module, publisher
from common.notify.local import TestDriver
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryTransport
from common.transport.port import BusUnavailable, Message, Queue
from common.wire.notification import Notification, Priority
from tests.unit.notify.support import CLOCK, OPTIONS, WAIT_S, a_notifier, a_transport, rounds, waiting

CTX = Context(user_id="u1", project_id="p1", others={"auth_token": "SECRET", "read_only": True})


class Faulty(MemoryTransport):
    """A bus that is away: the next `failures` messages are refused, or with `hangs` wait for ever."""

    def __init__(self, *, failures: int = 0, hangs: bool = False) -> None:
        super().__init__(a_transport().bus, name="faulty")
        self.failures = failures
        self.hangs = hangs
        self.declared: list[str] = []
        self.tried = 0

    async def declare(self, queue: Queue) -> None:
        self.declared.append(queue.name)
        await super().declare(queue)

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        self.tried += 1
        if self.hangs:
            async with asyncio.timeout(timeout_s):
                await asyncio.Event().wait()
        if self.failures:
            self.failures -= 1
            raise BusUnavailable(url="memory://faulty", reason="it is away")
        await rounds()  # a success takes longer than a refusal
        await super().publish(message, timeout_s=timeout_s)


async def test_each_priority_waits_in_its_own_queue_before_anybody_listens() -> None:
    transport = a_transport()
    notifier = a_notifier(transport)
    for priority in Priority:
        await getattr(notifier, priority)(CTX, "compute.instance.update", {"x": 1})
    await notifier.warning(CTX, "compute.instance.update", {"x": 1})
    for priority in Priority:
        found = await waiting(transport, f"notifications.{priority}")
        assert [item.priority for item in found] == [priority] * (2 if priority is Priority.WARN else 1)
    assert (notifier.counts.sent, notifier.counts.failed, notifier.counts.pending) == (8, 0, 0)


async def test_a_notification_has_what_oslo_s_have() -> None:
    transport = a_transport()
    await a_notifier(transport, clock=JumpingClock()).info(CTX, "compute.instance.update", {"x": 1})
    (found,) = await waiting(transport, "notifications.info")
    assert (found.event_type, found.payload, found.publisher_id) == ("compute.instance.update", {"x": 1}, "compute.host1")
    assert found.timestamp == "2026-01-01 00:00:00"
    assert is_uuid(found.message_id or "")
    assert found.unique_id is not None
    assert "-" not in found.unique_id
    assert found.context == {**CTX.to_dict(), "auth_token": None}


@pytest.mark.parametrize("ctx", [None, {"auth_token": "SECRET", "user": "u1"}, object()])
async def test_what_is_no_context_is_left_out(ctx: Any) -> None:
    transport = a_transport()
    await a_notifier(transport).info(ctx, "e", {})
    (found,) = await waiting(transport, "notifications.info")
    assert found.context == {}


async def test_it_goes_to_every_topic_with_one_message_id_and_ids_of_its_copies() -> None:
    transport = a_transport()
    await a_notifier(transport, topics=("notifications", "audits")).info(CTX, "e", {})
    (one,), (other,) = [await waiting(transport, f"{topic}.info") for topic in ("notifications", "audits")]
    assert one.message_id == other.message_id
    assert one.unique_id != other.unique_id


async def test_the_formats_are_the_drivers_and_all_drivers_are_used() -> None:
    transport = a_transport()
    notifier = a_notifier(transport, driver=("messagingv2", "messaging", "test", "noop", "log"))
    with capture_logs() as logs:
        await notifier.error(CTX, "e", {"x": 1})
    bodies = []
    while (delivery := await transport.get("notifications.error")) is not None:
        bodies.append(delivery.body)
        await delivery.ack()
    assert sorted(b'"oslo.version"' in body for body in bodies) == [False, True]
    test = notifier.drivers["test"]
    assert isinstance(test, TestDriver)
    assert [item.event_type for item in test.notifications] == ["e"]
    (line,) = [log for log in logs if log["event"] == "notification"]
    assert (line["log_level"], line["event_type"], line["payload"]) == ("error", "e", {"x": 1})
    assert "SECRET" not in str(logs)
    assert notifier.counts.sent == 5


async def test_what_is_prepared_shares_everything_but_what_was_asked_for() -> None:
    transport = a_transport()
    notifier = a_notifier(transport)
    await notifier.prepare(publisher_id="compute.host2").info(CTX, "e", {})
    await notifier.prepare(retry=0).info(CTX, "e", {})
    found = await waiting(transport, "notifications.info")
    assert [item.publisher_id for item in found] == ["compute.host2", "compute.host1"]
    assert notifier.counts.sent == 2


async def test_arguments_win_over_options() -> None:
    transport = a_transport()
    notifier = Notifier(
        transport, clock=CLOCK, topics=("t",), driver=("messaging",), control_exchange="x", retry=0, options=OPTIONS
    )
    await notifier.info(None, "e", {})
    (found,) = await waiting(transport, "t.info")
    assert found.publisher_id is None
    assert notifier.drivers.keys() == {"messaging"}


def test_only_a_notifier_with_a_driver_that_sends_is_enabled() -> None:
    transport = a_transport()
    assert a_notifier(transport).is_enabled()
    assert a_notifier(transport, driver=("noop", "log")).is_enabled()
    assert not a_notifier(transport, driver=("noop",)).is_enabled()
    assert not a_notifier(transport, driver=()).is_enabled()


async def test_a_queue_is_declared_once_and_again_when_it_is_gone_or_some_time_has_passed() -> None:
    transport, clock = Faulty(), JumpingClock()
    notifier = a_notifier(transport, clock=clock)
    await asyncio.gather(*(notifier.info(CTX, f"e{number}", {}) for number in range(5)))
    assert transport.declared == ["notifications.info"]
    await transport.delete_queue("notifications.info")
    await notifier.info(CTX, "gone", {})
    assert [item.event_type for item in await waiting(transport, "notifications.info")] == ["gone"]
    assert transport.declared == ["notifications.info"] * 2
    await clock.advance(NOTIFICATION_QUEUE_KNOWN_S)
    await notifier.info(CTX, "later", {})
    assert transport.declared == ["notifications.info"] * 3


async def test_a_send_that_failed_is_tried_again_as_often_as_allowed() -> None:
    for retry, failures, is_sent in ((-1, 4, True), (2, 2, True), (2, 3, False), (0, 1, False)):
        transport = Faulty(failures=failures)
        notifier = a_notifier(transport, clock=JumpingClock(jumps=True), retry=retry)
        await notifier.info(CTX, "e", {})
        assert (notifier.counts.sent, notifier.counts.failed) == (is_sent, not is_sent), (retry, failures)
        assert transport.tried == (failures + 1 if is_sent else failures)


async def test_what_cannot_be_sent_is_logged_and_counted_and_never_raised() -> None:
    for payload, transport, reason in (
        (object(), a_transport(), "cannot be sent"),
        ("x" * (8 * 1024 * 1024), a_transport(), "is larger than the limit"),
        ({}, Faulty(failures=1), "it is away"),
    ):
        notifier = a_notifier(transport, retry=0)
        with capture_logs() as logs:
            await notifier.info(CTX, "compute.instance.update", payload)
        assert (notifier.counts.sent, notifier.counts.failed) == (0, 1)
        (line,) = logs
        assert (line["log_level"], line["event_type"], line["driver"]) == ("error", "compute.instance.update", "messagingv2")
        assert reason in line["reason"]


async def test_a_bus_that_stays_away_holds_a_sender_no_longer_than_its_deadline() -> None:
    clock = JumpingClock(jumps=True)
    notifier = a_notifier(Faulty(failures=10_000), clock=clock)
    with capture_logs() as logs:
        await notifier.info(CTX, "e", {})
    assert clock.monotonic() <= OPTIONS.timeout_s
    assert notifier.counts.failed == 1
    assert "it is away" in logs[0]["reason"]


async def test_a_bus_that_never_answers_holds_a_sender_no_longer_than_its_deadline() -> None:
    notifier = a_notifier(Faulty(hangs=True), timeout_s=0.05, retry=0)
    async with asyncio.timeout(WAIT_S):
        await notifier.info(CTX, "e", {})
    assert notifier.counts.failed == 1


async def test_one_topic_that_fails_keeps_no_other_from_its_copy() -> None:
    transport = Faulty(failures=1)
    notifier = a_notifier(transport, topics=("one", "two"), retry=0)
    with capture_logs() as logs:
        await notifier.info(CTX, "e", {})
    assert len(await waiting(transport, "two.info")) == 1
    assert "was not sent to one: " in logs[0]["reason"]


async def test_more_notifications_than_may_wait_are_dropped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "NOTIFICATIONS_PENDING_MAX", 3)
    notifier = a_notifier(Faulty(hangs=True), timeout_s=0.1, retry=0)
    with capture_logs() as logs:
        await asyncio.gather(*(notifier.info(CTX, "e", {}) for _ in range(5)))
    assert (notifier.counts.dropped, notifier.counts.failed, notifier.counts.pending) == (2, 3, 0)
    assert [log["event"] for log in logs].count("notification dropped: too many wait") == 2


async def test_more_bytes_than_may_wait_are_dropped_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "NOTIFICATIONS_PENDING_BYTES_MAX", 6000)
    transport = Faulty(hangs=True)
    notifier = a_notifier(transport, timeout_s=0.1, retry=0)
    with capture_logs() as logs:
        await asyncio.gather(*(notifier.info(CTX, "e", "x" * 2000) for _ in range(3)))
    assert [("may; one more is dropped" in log["reason"]) for log in logs].count(True) == 1
    transport.hangs = False
    await notifier.info(CTX, "e", "x" * 2000)
    assert notifier.counts.sent == 1


async def test_a_sender_that_is_cancelled_leaves_nothing_behind() -> None:
    notifier = a_notifier(Faulty(hangs=True))
    task = asyncio.create_task(notifier.info(CTX, "e", {}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gc.collect()
    assert notifier.counts.pending == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Broken:
    """A driver of somebody's."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work

    async def notify(self, notification: Notification, *, retry: int) -> None:
        await self.work()


BROKEN = Broken(lambda: asyncio.sleep(0))


def make_broken(setup: drivers.DriverSetup) -> Broken:
    """What the entry point of a third party names."""
    assert setup.options == NotificationOptions(driver=("theirs", "test"))
    return BROKEN


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Broken:
    """A third party's driver is installed."""
    found = EntryPoints([EntryPoint("theirs", f"{__name__}:make_broken", drivers.GROUP)])
    monkeypatch.setattr(drivers, "entry_points", lambda *, group: found)
    monkeypatch.setattr(EntryPoint, "load", _load(EntryPoint.load))
    return BROKEN


def _load(load: Any) -> Any:
    """pytest imports test modules by file, so that they cannot be found by name."""
    return lambda entry: make_broken if entry.name == "theirs" else load(entry)


async def test_a_third_party_s_driver_is_found_and_its_failures_are_outlived(theirs: Broken) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    notifier = Notifier(a_transport(), clock=CLOCK, driver=("theirs", "test"))
    theirs.work = fail
    with capture_logs() as logs:
        await notifier.info(CTX, "e", {})
    assert (notifier.counts.sent, notifier.counts.failed) == (1, 1)
    assert logs[-1]["reason"] == "ZeroDivisionError"


async def test_a_driver_without_a_deadline_is_cut_off(theirs: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier_module, "_CUT_OFF_AFTER_S", -9.95)
    theirs.work = asyncio.Event().wait
    notifier = Notifier(a_transport(), clock=CLOCK, driver=("theirs", "test"))
    async with asyncio.timeout(WAIT_S):
        await notifier.info(CTX, "e", {})
    assert (notifier.counts.sent, notifier.counts.failed) == (1, 1)


def test_a_driver_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        Misconfigured, match=r"no notification driver 'kafka'; known: log, messaging, messagingv2, noop, routing, test"
    ):
        a_notifier(a_transport(), driver=("kafka",))


ROUTES = """
group_1:
  messagingv2: {accepted_events: ["compute.instance.*", "volume.*"], accepted_priorities: [INFO, warn]}
  test: {accepted_events: ["compute.*"]}
group_2:
  test: {accepted_priorities: ["err*"]}
  noop:
"""


@pytest.mark.parametrize(
    ("priority", "event_type", "on_bus", "in_test"),
    [
        ("info", "compute.instance.create", 1, 1),
        ("error", "compute.instance.create", 0, 1),
        ("warn", "volume.create", 1, 0),
        ("error", "volume.create", 0, 1),
        ("info", "Compute.instance.create", 0, 0),
        ("info", "image.create", 0, 0),
    ],
)
async def test_routing_sends_by_event_type_and_priority(
    tmp_path: Path, priority: str, event_type: str, on_bus: int, in_test: int
) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(ROUTES)
    transport = a_transport()
    notifier = a_notifier(transport, driver=("routing",), routing_config=str(file))
    await getattr(notifier, priority)(CTX, event_type, {})
    routing: Any = notifier.drivers["routing"]
    assert len(await waiting(transport, f"notifications.{priority}")) == on_bus
    assert len(routing._drivers["test"].notifications) == in_test


async def test_of_several_routes_each_is_taken_whatever_becomes_of_the_others(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text("a: {messagingv2: , messaging: }")
    transport = Faulty(failures=1)
    notifier = a_notifier(transport, driver=("routing",), routing_config=str(file), retry=0)
    await notifier.info(CTX, "e", {})
    assert transport.tried == 2
    assert len(await waiting(transport, "notifications.info")) == 1
    assert (notifier.counts.sent, notifier.counts.failed) == (0, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "is no YAML"),
        ("[]", "the file: found list; wanted a mapping"),
        ("a: 5", "a: found int"),
        ("a: {log: {accepted_event: []}}", "a: log: found accepted_event; wanted: accepted_events, accepted_priorities"),
        ("a: {log: {accepted_events: x}}", "a: log: accepted_events: found str; wanted a list"),
        ("a: {routing: {}}", "routing cannot go to routing"),
        ("a: {kafka: {}}", "there is no notification driver 'kafka'"),
    ],
)
def test_a_file_of_routes_that_is_wrong_is_refused_with_the_place(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(text)
    with pytest.raises(Misconfigured) as found:
        a_notifier(a_transport(), driver=("routing",), routing_config=str(file))
    assert reason in str(found.value)


@pytest.mark.parametrize(("path", "reason"), [("", "set routing_config"), ("/nonexistent", "cannot be read")])
def test_routes_without_a_file_are_refused(path: str, reason: str) -> None:
    with pytest.raises(Misconfigured, match=reason):
        a_notifier(a_transport(), driver=("routing",), routing_config=path)


def test_without_the_yaml_package_routing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(entry: EntryPoint) -> Any:
        raise ModuleNotFoundError("No module named 'yaml'")

    monkeypatch.setattr(EntryPoint, "load", missing)
    with pytest.raises(Misconfigured, match=r"No module named 'yaml'; pip install 'nova-cinder-lite\[routing\]'"):
        a_notifier(a_transport(), driver=("routing",), routing_config="x")


async def test_a_driver_that_cannot_reach_its_end_says_so_by_an_error_of_the_tree() -> None:
    notifier = a_notifier(Faulty(failures=1))
    with pytest.raises(Unavailable, match="Notification e was not sent to notifications: "):
        await notifier.drivers["messagingv2"].notify(Notification("e", Priority.INFO, {}), retry=0)
