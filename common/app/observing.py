"""What a process shows of its RPC: metrics for Prometheus, spans for OpenTelemetry, requests in the debug log."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import structlog

from common.app.options import ADDRESS, CommonConfig
from common.base.clock import Clock
from common.base.errors import Misconfigured
from common.rpc.counts import Counts
from common.rpc.logged import LoggedClient, LoggedServer
from common.rpc.middleware import ClientMiddleware, ServerMiddleware

LOOPBACK = "127.0.0.1"
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Observed:
    """Middleware and counts of one process, for its client and all its servers."""

    counts: Counts = field(default_factory=Counts)
    clients: list[ClientMiddleware] = field(default_factory=list)
    servers: list[ServerMiddleware] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where metrics are shown: the first free port from `first` to `last`."""

    host: str
    first: int
    last: int


@asynccontextmanager
async def observing(config: CommonConfig, *, name: str, bus: str, clock: Clock) -> AsyncIterator[Observed]:
    """What the configuration asks for, inside the block.

    name   of the process: "nova-compute.cmp1"
    bus    its URL
    Raises Misconfigured: no port is free, the extra `otel` or its exporter is missing.
    """
    found = Observed()
    async with AsyncExitStack() as stack:
        if config.tracing_enabled:
            tracing = await stack.enter_async_context(_tracing(name, bus))
            found.clients.extend(tracing.clients)
            found.servers.extend(tracing.servers)
        if config.metrics_listen:
            metrics = await stack.enter_async_context(_metrics(parse_listen(config.metrics_listen), found.counts, name, clock))
            found.clients.extend(metrics.clients)
            found.servers.extend(metrics.servers)
        if config.debug:
            found.clients.append(LoggedClient(clock))
            found.servers.append(LoggedServer(clock))
        yield found


def parse_listen(text: str) -> Listen:
    """What metrics_listen says. Raises Misconfigured for ports that are none."""
    found = re.fullmatch(ADDRESS, text)
    assert found is not None
    assert found["first"]
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if not (0 <= first <= last <= 65535):
        raise Misconfigured(reason=f"metrics_listen {text}: wanted: ports up to 65535, the first one not behind the last")
    return Listen((found["host"] or LOOPBACK).strip("[]"), first, last)


@asynccontextmanager
async def _metrics(listen: Listen, counts: Counts, name: str, clock: Clock) -> AsyncIterator[Observed]:
    # Imported here: most commands and processes need none of it.
    from prometheus_client import CollectorRegistry, start_http_server

    from common.rpc.metrics import ClientMetrics, CountsCollector, ServerMetrics

    registry = CollectorRegistry()
    registry.register(CountsCollector(counts))
    reasons = []
    for port in range(listen.first, listen.last + 1):
        try:
            server, thread = start_http_server(port, listen.host, registry)
        except OSError as exc:
            reasons.append(exc.strerror or str(exc))
            continue
        break
    else:
        where = f"{listen.host}:{listen.first}" + (f"-{listen.last}" if listen.last > listen.first else "")
        raise Misconfigured(
            reason=f"metrics_listen: {where} cannot be listened on: {', '.join(dict.fromkeys(reasons))}; "
            "processes that share a file need a range, HOST:FIRST-LAST"
        )
    try:
        _log.info("metrics", process=name, url=f"http://{_shown(listen.host)}:{server.server_port}/metrics")
        yield Observed(clients=[ClientMetrics(registry, clock=clock)], servers=[ServerMetrics(registry, clock=clock)])
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@asynccontextmanager
async def _tracing(name: str, bus: str) -> AsyncIterator[Observed]:
    try:
        from common.app.tracing import spans
        from common.rpc.tracing import TracedClient, TracedServer
    except ImportError as exc:
        reason = f"tracing_enabled needs the extra otel ({exc.name} is missing): pip install 'nova-cinder-lite[otel]'"
        raise Misconfigured(reason=reason) from exc
    scheme = bus.partition("://")[0]
    system = {"rabbit": "rabbitmq", "amqp": "rabbitmq"}.get(scheme, scheme)
    async with spans(name) as tracer:
        yield Observed(clients=[TracedClient(tracer, system=system)], servers=[TracedServer(tracer, system=system)])
