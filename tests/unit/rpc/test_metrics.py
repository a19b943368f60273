"""Prometheus' view of RPC."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from common.base.context import Context
from common.base.errors import Broken, Conflict, Fault, Invalid, NotFound, Timeout, Unavailable
from common.rpc.client import NobodyListens
from common.rpc.contract import Contract, call, cast
from common.rpc.counts import Counts, Event
from common.rpc.metrics import ClientMetrics, CountsCollector, Labels, ServerMetrics, known_contracts
from common.rpc.outcome import outcome_of
from common.wire.failure import NoSuchMethod
from tests.unit.rpc.net import CLOCK, net, until


class StoreAPI(Contract, Protocol, topic="metered-store", version="1.0"):
    @call()
    async def take(self, ctx: Context, *, name: str) -> str: ...

    @cast()
    async def hint(self, ctx: Context) -> None: ...


class OtherAPI(Contract, Protocol, topic="metered-store.inner", version="1.0"):
    @call()
    async def look(self, ctx: Context) -> None: ...


CONTRACTS: list[Any] = [StoreAPI, OtherAPI]


@dataclass
class Store(StoreAPI):
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    hints: int = 0

    async def take(self, ctx: Context, *, name: str) -> str:
        if name == "wait":
            await self.gate.wait()
        if name == "busy":
            raise Conflict(kind="thing", name=name, found="busy", expected="free")
        if name == "bug":
            raise KeyError(name)
        return name

    async def hint(self, ctx: Context) -> None:
        self.hints += 1


def shown(registry: CollectorRegistry) -> dict[str, float]:
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_both_sides_count_time_and_tell_what_is_in_flight() -> None:
    registry = CollectorRegistry()
    async with net() as made:
        store = Store()
        await made.serve(store, middleware=[ServerMetrics(registry, clock=CLOCK)])
        stores = StoreAPI.over(made.client(middleware=[ClientMetrics(registry, clock=CLOCK)]))
        assert await stores.take(Context(), name="a") == "a"
        for name in ("busy", "bug"):
            with pytest.raises(Fault):
                await stores.on("h1").take(Context(), name=name)
        await stores.hint(Context())
        await until(lambda: store.hints == 1)
        waiting = asyncio.create_task(stores.take(Context(), name="wait"))
        take = '{method="take",topic="metered-store"}'
        await until(lambda: shown(registry).get(f"lite_rpc_server_in_flight{take}") == 1)
        assert shown(registry)[f"lite_rpc_client_in_flight{take}"] == 1
        store.gate.set()
        await waiting
        with pytest.raises(NobodyListens):
            await stores.on("nowhere").take(Context(), name="a")
    found = shown(registry)
    assert found[f"lite_rpc_client_in_flight{take}"] == found[f"lite_rpc_server_in_flight{take}"] == 0
    assert found[f"lite_rpc_client_duration_seconds_count{take}"] == 5
    assert found[f"lite_rpc_server_duration_seconds_count{take}"] == 4
    ended = {line: number for line, number in found.items() if "_requests_total" in line}
    assert ended == {
        'lite_rpc_client_requests_total{method="take",outcome="ok",topic="metered-store"}': 2,
        'lite_rpc_client_requests_total{method="take",outcome="conflict",topic="metered-store"}': 1,
        'lite_rpc_client_requests_total{method="take",outcome="broken",topic="metered-store"}': 1,
        'lite_rpc_client_requests_total{method="take",outcome="nobody_listens",topic="metered-store"}': 1,
        'lite_rpc_client_requests_total{method="hint",outcome="ok",topic="metered-store"}': 1,
        'lite_rpc_server_requests_total{method="take",outcome="ok",topic="metered-store"}': 2,
        'lite_rpc_server_requests_total{method="take",outcome="conflict",topic="metered-store"}': 1,
        'lite_rpc_server_requests_total{method="take",outcome="bug",topic="metered-store"}': 1,
        'lite_rpc_server_requests_total{method="hint",outcome="ok",topic="metered-store"}': 1,
    }


async def test_a_cancelled_call_is_no_longer_in_flight() -> None:
    registry = CollectorRegistry()
    async with net() as made:
        await made.serve(Store())
        stores = StoreAPI.over(made.client(middleware=[ClientMetrics(registry, clock=CLOCK)]))
        waiting = asyncio.create_task(stores.take(Context(), name="wait"))
        await until(lambda: shown(registry).get('lite_rpc_client_in_flight{method="take",topic="metered-store"}') == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
    found = shown(registry)
    assert found['lite_rpc_client_in_flight{method="take",topic="metered-store"}'] == 0
    assert found['lite_rpc_client_requests_total{method="take",outcome="cancelled",topic="metered-store"}'] == 1


@pytest.mark.parametrize(
    ("address", "method", "labels"),
    [
        ("metered-store", "take", ("metered-store", "take")),
        ("metered-store.h1", "take", ("metered-store", "take")),
        ("metered-store.h1@gold.h1", "hint", ("metered-store", "hint")),
        ("metered-store", "look", ("metered-store", "other")),
        ("metered-store.inner.h1", "look", ("metered-store.inner", "look")),
        ("metered-store.inner", "take", ("metered-store.inner", "other")),
        ("metered-stores", "take", ("other", "other")),
        ("", "take", ("other", "other")),
        ("metered-store.h1", "oslo_rpc_server_ping", ("metered-store", "oslo_rpc_server_ping")),
    ],
)
def test_labels_are_those_of_the_contracts_and_the_rest_is_other(address: str, method: str, labels: tuple[str, str]) -> None:
    for each in (Labels(), Labels(CONTRACTS)):
        assert each.of(address, method) == labels
        assert each.of(address, method) == labels


def test_strange_methods_make_no_further_series() -> None:
    side = ServerMetrics(CollectorRegistry(), clock=CLOCK, labels=Labels(CONTRACTS[:1]))._side
    for number in range(1000):
        side._find("metered-store", f"m{number}")
        side._find(f"t{number}", "take")
    assert (set(side._series), side._found) == ({("metered-store", "other"), ("other", "other")}, {})


def test_the_contracts_of_the_process_are_found_and_clients_are_none() -> None:
    StoreAPI.over(None)  # type: ignore[arg-type]  # makes the client class
    found: list[Any] = list(known_contracts())
    assert [found.count(contract) for contract in CONTRACTS] == [1, 1]
    assert Store not in found


def test_what_no_caller_hears_of_is_shown_when_somebody_looks() -> None:
    counts, registry = Counts(), CollectorRegistry()
    registry.register(CountsCollector(counts))
    assert shown(registry) == {}
    for _ in range(3):
        counts.add(Event.REDELIVERED)
    counts.add(Event.DEAD_LETTER, "NoSuchMethod")
    counts.add(Event.REFUSED, "json")
    assert shown(registry) == {
        'lite_rpc_events_total{event="redelivered",reason=""}': 3,
        'lite_rpc_events_total{event="dead_letter",reason="NoSuchMethod"}': 1,
        'lite_rpc_events_total{event="refused",reason="json"}': 1,
    }


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (None, "ok"),
        (asyncio.CancelledError(), "cancelled"),
        (NobodyListens(address="a", exchange="b"), "nobody_listens"),
        (NoSuchMethod(method="x"), "refused"),
        (Timeout(what="x", timeout_s=1), "timeout"),
        (Unavailable(what="x", reason="y"), "unavailable"),
        (NotFound(kind="x", name="y"), "not_found"),
        (Conflict(kind="x", name="y", found="a", expected="b"), "conflict"),
        (Invalid(reason="x"), "invalid"),
        (Broken(what="x", reason="y"), "broken"),
        (Fault(reason="x"), "fault"),
        (KeyError(), "bug"),
    ],
)
def test_every_ending_has_one_of_few_words(error: BaseException | None, word: str) -> None:
    assert outcome_of(error) == word


def test_a_peer_that_reached_nobody_is_not_taken_for_an_absent_one() -> None:
    assert outcome_of(NobodyListens.rebuilt("Nobody listens on x", {})) == "not_found"
