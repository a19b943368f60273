"""What the stores of redis and SQL promise one another: leases, and what is left of members that died or were forgotten."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from common.transport.kombu_sql import open_engine
from common.transport.kombu_store import Claim, Store
from common.transport.redis_store import RedisStore
from common.transport.sql_store import SqlStore

LEASE_S = 0.4
Maker = Callable[[], Store]


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.real("postgresql")),
        pytest.param("redis", marks=pytest.mark.real("redis")),
    ]
)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    """Makes members of one bus, each with a connection of its own."""
    ends: list[Callable[[], None]] = []

    def redis() -> Store:
        url = request.getfixturevalue("redis_server").fresh_url() if not ends else urls[0]
        urls.append(url)
        client = Redis.from_url(url.removeprefix("kombu+"))
        ends.append(client.close)
        return RedisStore(client, lease_s=LEASE_S)

    def sql() -> Store:
        file = f"sqlite:///{tmp_path}/bus.sqlite"
        url = file if request.param == "sqlite" else request.getfixturevalue("postgres_bus_url").removeprefix("kombu+sqla+")
        engine = open_engine(url)
        ends.append(engine.dispose)
        store = SqlStore(engine, lease_s=LEASE_S)
        store.create()
        return store

    urls: list[str] = []
    yield redis if request.param == "redis" else sql
    for end in ends:
        end()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20 * LEASE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(LEASE_S / 10)


def declared(store: Store, queue: str = "q", *, auto_delete: bool = False, expires_ms: int | None = None) -> None:
    store.declare(queue, auto_delete=auto_delete, expires_ms=expires_ms)


def swept(store: Store, *queues: str) -> Store:
    store.sweep(queues)
    return store


def takes(store: Store, seen: list[Claim]) -> bool:
    """After a sweep."""
    claim = swept(store).take("q")
    if claim is not None:
        seen.append(claim)
    return claim is not None


def test_what_a_silent_member_held_goes_back_to_its_place_and_is_not_his_any_more(make: Maker) -> None:
    silent, other = make(), make()
    declared(silent)
    for body in (b"1", b"2"):
        assert silent.put("q", body)
    held = silent.take("q")
    assert held is not None
    assert (held.data, held.redelivered) == (b"1", False)
    second = other.take("q")
    assert second is not None
    other.give_back(second)
    seen: list[Claim] = []
    until(lambda: takes(other, seen) and seen[-1].data == b"1")
    assert seen[-1].redelivered
    assert not silent.release(held)
    silent.give_back(held)
    while takes(other, seen):
        pass
    assert {claim.data for claim in seen} == {b"1", b"2"}
    assert all(other.release(claim) for claim in seen)


def test_a_member_that_speaks_keeps_what_it_holds(make: Maker) -> None:
    speaking, other = make(), make()
    declared(speaking)
    speaking.put("q", b"x")
    held = speaking.take("q")
    assert held is not None
    ends_s = time.monotonic() + 2 * LEASE_S
    while time.monotonic() < ends_s:
        speaking.sweep([])
        assert swept(other).take("q") is None
        time.sleep(LEASE_S / 10)
    assert speaking.release(held)


def test_consumers_of_a_silent_member_are_not_counted_until_it_speaks_again(make: Maker) -> None:
    silent, other = make(), make()
    declared(silent)
    first, second = silent.join("q"), silent.join("q")
    assert other.consumers("q") == 2
    until(lambda: swept(other).consumers("q") == 0)
    silent.sweep(["q"])
    assert other.consumers("q") == 2
    first.close()
    first.close()
    assert other.consumers("q") == 1
    second.close()
    assert other.consumers("q") == 0


def test_an_auto_delete_queue_ends_when_its_last_consumer_died(make: Maker) -> None:
    silent, other = make(), make()
    declared(silent, auto_delete=True)
    declared(silent, "waits-for-its-first", auto_delete=True)
    silent.bind("x", "key", "q")
    silent.join("q")
    other.sweep([])
    assert other.has("q")
    until(lambda: not swept(other).has("q"))
    assert other.table("x") == []
    assert not other.put("q", b"x")
    assert other.has("waits-for-its-first")


def test_a_queue_ends_after_its_time_without_use_with_its_bindings_and_messages(make: Maker) -> None:
    user, other = make(), make()
    declared(user, "used", expires_ms=300)
    declared(user, "left", expires_ms=300)
    for queue in ("used", "left"):
        user.bind("x", queue, queue)
        assert other.put(queue, b"x")
    user.join("used")
    until(lambda: not swept(user, "used").has("left"))
    user.sweep(["used"])
    assert user.has("used")
    assert [queue for _, _, queue in user.table("x")] == ["used"]
    declared(user, "left")
    assert user.take("left") is None


def test_after_an_error_all_but_what_is_known_goes_back(make: Maker) -> None:
    store = make()
    declared(store)
    for body in (b"1", b"2", b"3"):
        store.put("q", body)
    claims = [store.take("q") for _ in range(3)]
    store.give_back_others([claims[1]])
    again = [store.take("q"), store.take("q")]
    assert [(claim.data, claim.redelivered) for claim in again if claim] == [(b"1", True), (b"3", True)]
    assert store.release(claims[1])
    store.leave()


def test_a_held_message_of_a_deleted_queue_is_gone_for_good(make: Maker) -> None:
    store = make()
    declared(store)
    store.put("q", b"x")
    held = store.take("q")
    store.delete("q")
    declared(store)
    store.give_back(held)
    assert store.take("q") is None


def test_names_are_compared_letter_by_letter(make: Maker) -> None:
    store = make()
    for queue in ("Q", "q", "é", "e"):
        declared(store, queue)
        assert store.put(queue, queue.encode())
    for queue in ("Q", "q", "é", "e"):
        claim = store.take(queue)
        assert claim is not None
        assert claim.data == queue.encode()
