"""`lite dlq`: dead letters found, shown, sent back and dropped."""

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from common.app.dlq_command import _cells, _details, age, find_all, find_one, short_ids
from common.base.errors import Ambiguous
from common.host.clock import SystemClock
from common.rpc.dead_letters import ATTEMPTS, DeadLetters, NoSuchDeadLetter, queue_of
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message, Queue
from common.wire.messages import Request, encode_request

NOW = datetime(2026, 5, 1, 12)  # noqa: DTZ001 - naive UTC, as the clock gives it
HEADERS = {
    "x-lite-queue": "jobs.h1", "x-lite-reason": "Job x at rabbit://u:hunter2@h is broken", "x-lite-error": "Broken",
    "x-lite-server": "jobs.h1", "x-lite-died-at": "2026-05-01T11:58:00Z", ATTEMPTS: 3,
}  # fmt: skip


@pytest.fixture
async def bus() -> AsyncIterator[MemoryTransport]:
    transport = MemoryTransport(MemoryBus(SystemClock()))
    yield transport
    await transport.close()


async def lay(bus: MemoryTransport, topic: str, *ids: str, body: bytes | None = None) -> None:
    """Dead letters of `topic` with these ids."""
    await bus.declare(queue_of(topic))
    for name in ids:
        request = Request("start", {"name": name, "auth_password": "s3cret"}, name, version="1.1", context={"request_id": "req-1"})
        message = Message(None, queue_of(topic).name, body or encode_request(request), headers=HEADERS)
        await bus.publish(message, timeout_s=1)


async def test_every_topic_s_letters_are_found_the_oldest_first_and_stay(bus: MemoryTransport) -> None:
    await lay(bus, "jobs", "b", "a")
    await lay(bus, "other", "c")
    for _ in range(2):
        found = await find_all(bus, ["jobs", "nothing", "other"], limit=10)
        assert [(each.topic, each.letter.id) for each in found] == [("jobs", "b"), ("jobs", "a"), ("other", "c")]
    assert len(await find_all(bus, ["jobs", "other"], limit=1)) == 2


async def test_one_is_found_in_whatever_topic_by_the_beginning_of_its_id(bus: MemoryTransport) -> None:
    await lay(bus, "jobs", "abc1", "abd2")
    await lay(bus, "other", "xyz3", "abd9")
    topics = ["jobs", "other"]
    assert (await find_one(bus, topics, "xy")).letter.id == "xyz3"
    assert (await find_one(bus, topics, "abc")).topic == "jobs"
    with pytest.raises(NoSuchDeadLetter, match="No dead letter nope in the queues of jobs, other"):
        await find_one(bus, topics, "nope")
    with pytest.raises(NoSuchDeadLetter, match="ab alone: 2 begin so"):
        await find_one(bus, topics, "ab")
    with pytest.raises(Ambiguous, match="abd2 of jobs, abd9 of other"):
        await find_one(bus, topics, "abd")


@pytest.mark.parametrize(
    ("ids", "short"),
    [
        (["0123456789", "abcdefghij"], ["01234567", "abcdefgh"]),
        (["0123456789", "0123456780", "zzzzzzzzzz"], ["0123456789", "0123456780", "zzzzzzzz"]),
        (["aaaaaaaabbb", "aaaaaaaacbb"], ["aaaaaaaab", "aaaaaaaac"]),
        (["same", "same"], ["same", "same"]),
        (["aaaaaaaa", "aaaaaaaab"], ["aaaaaaaa", "aaaaaaaab"]),
        ([], []),
    ],
)
def test_ids_are_as_short_as_they_can_be_told_apart(ids: list[str], short: list[str]) -> None:
    assert short_ids(ids) == short


@pytest.mark.parametrize(
    ("died_at", "shown"),
    [
        ("2026-05-01T11:59:18Z", "42 s"),
        ("2026-05-01T11:30:00Z", "30 min"),
        ("2026-05-01T07:00:00Z", "5 h"),
        ("2026-04-01T12:00:00Z", "30 d"),
        ("2026-05-01T12:00:03Z", "0 s"),
        ("", None),
        ("yesterday", None),
    ],
)
def test_an_age_is_told_in_its_largest_unit(died_at: str, shown: str | None) -> None:
    assert age(died_at, NOW) == shown


async def test_what_is_shown_holds_no_secret(bus: MemoryTransport) -> None:
    await lay(bus, "jobs", "a")
    found = await find_one(bus, ["jobs"], "a")
    details = _details(found)
    assert details["arguments"] == {"name": "a", "auth_password": "***"}
    assert (details["attempts"], details["kind"], details["request_id"], details["method"]) == (3, "cast", "req-1", "start")
    assert "2 min" in _cells(found, NOW)
    assert "hunter2" not in f"{details}{_cells(found, NOW)}"


async def test_a_message_that_cannot_be_read_is_shown_as_text(bus: MemoryTransport) -> None:
    await lay(bus, "jobs", "", body=b'{"password": "hunter2", \xff')
    (found,) = await find_all(bus, ["jobs"], limit=9)
    details = _details(found)
    assert (details["method"], details["bytes"]) == (None, 25)
    assert "hunter2" not in str(details)
    assert details["id"] == found.letter.id
    assert len(found.letter.id) == 32


async def test_of_many_those_that_were_named_are_taken_and_twins_with_them(bus: MemoryTransport) -> None:
    await lay(bus, "jobs", "a", "b", "a", "c")
    letters = DeadLetters(bus, "jobs")
    assert [taken.letter.id for taken in await letters.drop_all({"a", "c", "unknown"})] == ["a", "a", "c"]
    assert [letter.id for letter in await letters.all(9)] == ["b"]


async def test_of_many_that_are_sent_back_those_without_a_queue_stay_and_say_so(bus: MemoryTransport) -> None:
    await lay(bus, "jobs", "a", "b")
    letters = DeadLetters(bus, "jobs")
    first = await letters.requeue_all({"a", "b"})
    assert [(taken.letter.id, "Nobody listens" in str(taken.error)) for taken in first] == [("a", True), ("b", True)]
    assert [letter.id for letter in await letters.all(9)] == ["a", "b"]
    await bus.declare(Queue("jobs.h1"))
    assert [taken.error for taken in await letters.requeue_all({"b"})] == [None]
    assert [letter.id for letter in await letters.all(9)] == ["a"]
    sent = await bus.get("jobs.h1")
    assert sent is not None
    assert sent.headers == {"x-lite-requeues": 1}
