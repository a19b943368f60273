"""RPC in Prometheus' terms: middleware that counts and times, and a collector over what no caller hears of.

    lite_rpc_client_requests_total{topic, method, outcome}      lite_rpc_server_requests_total{topic, method, outcome}
    lite_rpc_client_duration_seconds{topic, method}             lite_rpc_server_duration_seconds{topic, method}
    lite_rpc_client_in_flight{topic, method}                    lite_rpc_server_in_flight{topic, method}
    lite_rpc_events_total{event, reason}                        common.rpc.counts

Labels are bounded: topics and methods are those of the contracts that this process knows, anything else is "other".
"""

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from itertools import accumulate
from typing import Any, TypeVar

from common.base.clock import Clock
from common.host.lean_metrics import (
    Collector,
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    floatToGoString,
)
from common.rpc.contract import Contract, Method, methods_of
from common.rpc.counts import Counts
from common.rpc.dispatch import PING
from common.rpc.middleware import Incoming, Outgoing
from common.rpc.outcome import OK, outcome_of

T = TypeVar("T")

OTHER = "other"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a round trip over a local broker to oslo.messaging's default timeout."""

_LABELS = ("topic", "method")
_BOUNDS = (*(str(floatToGoString(bound)) for bound in BUCKETS_S), "+Inf")  # type: ignore[no-untyped-call]  # the library's


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

    def of(self, address: str, method: str) -> tuple[str, str]:
        """`address` is a topic, or a topic with more words behind a dot: a server, a host@backend."""
        contracts = tuple(known_contracts()) if self._contracts is None else self._contracts
        topics = {contract.__rpc_route__.topic for contract in contracts}
        mine = [topic for topic in topics if address == topic or address.startswith(f"{topic}.")]
        if not mine:
            return OTHER, OTHER
        topic = max(mine, key=len)
        methods = {name for contract in contracts if contract.__rpc_route__.topic == topic for name in methods_of(contract)}
        return topic, method if method in methods or method == PING else OTHER


_REMEMBERED_MAX = 10_000
"""Addresses whose series need not be looked for again."""


class _Series:
    """The numbers of one topic and method: plain ones, counted up by the loop's thread; prometheus_client's own cost six locks a request."""

    __slots__ = ("buckets", "in_flight", "outcomes", "seconds")

    def __init__(self) -> None:
        self.in_flight = 0
        self.outcomes: dict[str, int] = {}
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        """Requests of at most so many seconds and more than those before; the last one of more than all."""

    def ended(self, took_s: float, outcome: str) -> None:
        self.in_flight -= 1
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.seconds += took_s
        self.buckets[bisect_left(BUCKETS_S, took_s)] += 1


class _Side(Collector):
    """The metrics of clients, or those of servers."""

    def __init__(self, side: str, registry: CollectorRegistry, *, labels: Labels, clock: Clock) -> None:
        self._labels = labels
        self._clock = clock
        self._name = f"lite_rpc_{side}"
        self._what = {"client": "requests that this process sent", "server": "requests that this process served"}[side]
        self._series: dict[tuple[str, str], _Series] = {}
        self._found: dict[tuple[str, str], _Series] = {}
        registry.register(self)

    async def measured(self, address: str, method: Method, request: T, proceed: Callable[[T], Awaitable[Any]]) -> Any:
        """What `proceed` returns or raises."""
        series = self._found.get((address, method.name)) or self._find(address, method.name)
        series.in_flight += 1
        now_s = self._clock.monotonic
        began_s = now_s()
        try:
            result = await proceed(request)
        except BaseException as exc:
            series.ended(now_s() - began_s, outcome_of(exc))
            raise
        series.ended(now_s() - began_s, OK)
        return result

    def _find(self, address: str, method: str) -> _Series:
        labels = self._labels.of(address, method)
        if (series := self._series.get(labels)) is None:
            series = self._series[labels] = _Series()
        if OTHER not in labels and len(self._found) < _REMEMBERED_MAX:
            self._found[address, method] = series
        return series

    def collect(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(f"{self._name}_requests", f"Ended {self._what}.", labels=(*_LABELS, "outcome"))
        durations = HistogramMetricFamily(f"{self._name}_duration_seconds", f"Time of {self._what}.", labels=_LABELS)
        in_flight = GaugeMetricFamily(f"{self._name}_in_flight", f"Begun, not ended {self._what}.", labels=_LABELS)
        for labels, series in tuple(self._series.items()):  # another thread asks; the copies are made in one step
            for outcome, number in tuple(series.outcomes.items()):
                requests.add_metric((*labels, outcome), number)
            durations.add_metric(labels, list(zip(_BOUNDS, accumulate(series.buckets), strict=True)), series.seconds)
            in_flight.add_metric(labels, series.in_flight)
        return requests, durations, in_flight


class ClientMetrics:
    """Implements `common.rpc.middleware.ClientMiddleware`. One for a registry."""

    def __init__(self, registry: CollectorRegistry, *, clock: Clock, labels: Labels | None = None) -> None:
        self._side = _Side("client", registry, labels=labels or Labels(), clock=clock)

    def __call__(self, request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Coroutine[Any, Any, Any]:
        return self._side.measured(request.route.topic, request.method, request, proceed)


class ServerMetrics:
    """Implements `common.rpc.middleware.ServerMiddleware`. One for a registry, for all servers of the process.

    A cast that is tried again is counted each time.
    """

    def __init__(self, registry: CollectorRegistry, *, clock: Clock, labels: Labels | None = None) -> None:
        self._side = _Side("server", registry, labels=labels or Labels(), clock=clock)

    def __call__(self, request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Coroutine[Any, Any, Any]:
        return self._side.measured(request.server, request.method, request, proceed)


class CountsCollector(Collector):
    """What `Counts` holds when somebody looks: redeliveries, duplicates, dead letters, orphans, refusals by reason ..."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("lite_rpc_events", "What happened that no caller hears of.", labels=("event", "reason"))
        for event, reason, number in self._counts:
            family.add_metric((event.value, reason), number)
        return (family,)
