"""Where spans go: OpenTelemetry's SDK as its environment variables set it. Imported only where tracing is enabled.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import entry_points

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Tracer

from common.base.errors import Misconfigured

_EXPORTERS = "opentelemetry_traces_exporter"
_KNOWN = {"otlp": "otlp_proto_http"}
"""What the variable calls an exporter, and its entry point where that has another name."""


@asynccontextmanager
async def spans(name: str) -> AsyncIterator[Tracer]:
    """A tracer of the process `name`; at the end what waits is sent. Raises Misconfigured for an exporter that is not installed."""
    service, _, instance = name.partition(".")
    resource = Resource.create({"service.name": service, "service.instance.id": instance or name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in _exporters(os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"):
        provider.add_span_processor(BatchSpanProcessor(exporter))
    try:
        yield provider.get_tracer("common.rpc")
    finally:
        await asyncio.to_thread(provider.shutdown)


def _exporters(names: str) -> list[SpanExporter]:
    found: list[SpanExporter] = []
    for name in (word.strip() for word in names.split(",")):
        if name in ("", "none"):
            continue
        known = list(entry_points(group=_EXPORTERS, name=_KNOWN.get(name, name)))
        if not known:
            raise Misconfigured(reason=f"OTEL_TRACES_EXPORTER: no exporter {name!r} is installed (for otlp: the extra otel)")
        found.append(known[0].load()())
    return found
