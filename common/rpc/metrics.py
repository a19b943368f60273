"""RPC in Prometheus' terms: middleware that counts and times, and a collector over what no caller hears of.

    lite_rpc_client_requests_total{topic, method, outcome}      lite_rpc_server_requests_total{topic, method, outcome}
    lite_rpc_client_duration_seconds{topic, method}             lite_rpc_server_duration_seconds{topic, method}
    lite_rpc_client_in_flight{topic, method}                    lite_rpc_server_in_flight{topic, method}
    lite_rpc_events_total{event, reason}                        common.rpc.counts

Labels are bounded: topics and methods are those of the contracts that this process knows, anything else is "other".
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from common.base.clock import Clock
from common.rpc.contract import Contract, Method, methods_of
from common.rpc.counts import Counts
from common.rpc.dispatch import PING
from common.rpc.middleware import Incoming, Outgoing
from common.rpc.outcome import outcome_of

OTHER = "other"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a round trip over a local broker to oslo.messaging's default timeout."""

_LABELS = ("topic", "method")


def known_contracts(root: type[Contract] = Contract) -> Iterator[type[Contract]]:
    """Every contract with a topic that this process has imported."""
    for child in root.__subclasses__():
        if getattr(child, "__rpc_contract__", None) is child and child.__rpc_route__.topic:
            yield child
        yield from known_contracts(child)


class Labels:
    """(topic, method) for an address and a method, from a bounded set. `contracts` None: all that the process knows when asked."""

    def __init__(self, contracts: Iterable[type[Contract]] | None = None) -> None:
        self._contracts = None if contracts is None else tuple(contracts)
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        self._size_max = 0

    def of(self, address: str, method: str) -> tuple[str, str]:
        """`address` is a topic, or a topic with more words behind a dot: a server, a host@backend."""
        if (found := self._known.get((address, method))) is not None:
            return found
        found = self._found(address, method)
        if OTHER not in found and len(self._known) < _REMEMBERED_MAX:
            self._known[address, method] = found
        return found

    def _found(self, address: str, method: str) -> tuple[str, str]:
        contracts = tuple(known_contracts()) if self._contracts is None else self._contracts
        topics = {contract.__rpc_route__.topic for contract in contracts}
        mine = [topic for topic in topics if address == topic or address.startswith(f"{topic}.")]
        if not mine:
            return OTHER, OTHER
        topic = max(mine, key=len)
        methods = {name for contract in contracts if contract.__rpc_route__.topic == topic for name in methods_of(contract)}
        return topic, method if method in methods or method == PING else OTHER


_REMEMBERED_MAX = 10_000
"""Addresses whose labels need not be looked for again."""


@dataclass(frozen=True, slots=True)
class _Series:
    """The series of one topic and method."""

    in_flight: Gauge
    duration: Histogram


class _Side:
    """The metrics of clients, or those of servers."""

    def __init__(self, side: str, registry: CollectorRegistry, *, labels: Labels, clock: Clock) -> None:
        self._labels = labels
        self._clock = clock
        name = f"lite_rpc_{side}"
        what = {"client": "requests that this process sent", "server": "requests that this process served"}[side]
        self._requests = Counter(f"{name}_requests", f"Ended {what}.", (*_LABELS, "outcome"), registry=registry)
        self._duration = Histogram(f"{name}_duration_seconds", f"Time of {what}.", _LABELS, registry=registry, buckets=BUCKETS_S)
        self._in_flight = Gauge(f"{name}_in_flight", f"Begun, not ended {what}.", _LABELS, registry=registry)
        self._series: dict[tuple[str, str], _Series] = {}
        self._outcomes: dict[tuple[str, str, str], Counter] = {}

    async def measured(self, address: str, method: Method, work: Callable[[], Awaitable[Any]]) -> Any:
        """What `work` returns or raises."""
        labels = self._labels.of(address, method.name)
        series = self._of(labels)
        series.in_flight.inc()
        began_s = self._clock.monotonic()
        outcome = "cancelled"
        try:
            result = await work()
        except BaseException as exc:
            outcome = outcome_of(exc)
            raise
        else:
            outcome = outcome_of(None)
            return result
        finally:
            series.duration.observe(self._clock.monotonic() - began_s)
            series.in_flight.dec()
            self._ended(labels, outcome).inc()

    def _of(self, labels: tuple[str, str]) -> _Series:
        if (found := self._series.get(labels)) is None:
            found = self._series[labels] = _Series(self._in_flight.labels(*labels), self._duration.labels(*labels))
        return found

    def _ended(self, labels: tuple[str, str], outcome: str) -> Counter:
        key = (*labels, outcome)
        if (found := self._outcomes.get(key)) is None:
            found = self._outcomes[key] = self._requests.labels(*key)
        return found


class ClientMetrics:
    """Implements `common.rpc.middleware.ClientMiddleware`. One for a registry."""

    def __init__(self, registry: CollectorRegistry, *, clock: Clock, labels: Labels | None = None) -> None:
        self._side = _Side("client", registry, labels=labels or Labels(), clock=clock)

    async def __call__(self, request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Any:
        return await self._side.measured(request.route.topic, request.method, lambda: proceed(request))


class ServerMetrics:
    """Implements `common.rpc.middleware.ServerMiddleware`. One for a registry, for all servers of the process.

    A cast that is tried again is counted each time.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Clock, labels: Labels | None = None) -> None:
        self._side = _Side("server", registry, labels=labels or Labels(), clock=clock)

    async def __call__(self, request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Any:
        return await self._side.measured(request.server, request.method, lambda: proceed(request))


class CountsCollector(Collector):
    """What `Counts` holds when somebody looks: redeliveries, duplicates, dead letters, orphans, refusals by reason ..."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("lite_rpc_events", "What happened that no caller hears of.", labels=("event", "reason"))
        for event, reason, number in self._counts:
            family.add_metric((event.value, reason), number)
        return (family,)
