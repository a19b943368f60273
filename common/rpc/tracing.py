"""OpenTelemetry spans around requests, linked by the W3C trace in `Context.trace`. Needs the extra `otel`.

Attributes follow the semantic conventions for messaging and RPC (https://opentelemetry.io/docs/specs/semconv/messaging/).
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from msgspec.structs import replace
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, Tracer, TraceState

from common.base.context import Context
from common.base.trace import Trace
from common.rpc.contract import Kind, Method
from common.rpc.middleware import Incoming, Outgoing
from common.rpc.outcome import outcome_of


class SpanHop(Trace, frozen=True):
    """The hop that a span is: what is sent from within it carries the span itself, not a further hop."""

    @classmethod
    def of(cls, span: Span) -> Self:
        """The hop of a span."""
        found = span.get_span_context()
        state = found.trace_state.to_header() or None
        return cls(trace.format_trace_id(found.trace_id), trace.format_span_id(found.span_id), f"{found.trace_flags:02x}", state)

    def child(self) -> Self:
        return self


def parent_of(ctx: Context) -> Any:
    """OpenTelemetry's context for a span under this request: the span that is running here, else the hop that asked for it."""
    if trace.get_current_span().get_span_context().is_valid or ctx.trace is None:
        return None
    hop = ctx.trace
    found = SpanContext(
        int(hop.trace_id, 16), int(hop.span_id, 16), is_remote=True, trace_flags=TraceFlags(int(hop.flags, 16)),
        trace_state=TraceState.from_header([hop.state] if hop.state else []),
    )  # fmt: skip
    return trace.set_span_in_context(NonRecordingSpan(found))


class TracedClient:
    """Implements `common.rpc.middleware.ClientMiddleware`: a CLIENT span for a call, a PRODUCER span for a cast.

    system   messaging.system: "rabbitmq" or what else carries the messages
    """

    def __init__(self, tracer: Tracer, *, system: str) -> None:
        self._spans = _Spans(tracer, system)

    async def __call__(self, request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Any:
        is_call = request.method.kind is Kind.CALL
        operation = "call" if is_call else "fanout" if request.route.fanout else "cast"
        kind = SpanKind.CLIENT if is_call else SpanKind.PRODUCER
        with self._spans.of(request.ctx, request.method, kind, operation=operation, to=str(request.route)) as span:
            return await proceed(replace(request, ctx=replace(request.ctx, trace=SpanHop.of(span))))


class TracedServer:
    """Implements `common.rpc.middleware.ServerMiddleware`: a SERVER span for a call, a CONSUMER span for a cast."""

    def __init__(self, tracer: Tracer, *, system: str) -> None:
        self._spans = _Spans(tracer, system)

    async def __call__(self, request: Incoming, proceed: Callable[[Incoming], Awaitable[Any]]) -> Any:
        kind = SpanKind.SERVER if request.is_call else SpanKind.CONSUMER
        with self._spans.of(request.ctx, request.method, kind, operation="process", to=request.server) as span:
            span.set_attribute("lite.attempts", request.attempts)
            return await proceed(replace(request, ctx=replace(request.ctx, trace=SpanHop.of(span))))


class _Spans:
    """Spans of one side."""

    def __init__(self, tracer: Tracer, system: str) -> None:
        self._tracer = tracer
        self._system = system

    @contextmanager
    def of(self, ctx: Context, method: Method, kind: SpanKind, *, operation: str, to: str) -> Iterator[Span]:
        """An error is noted by its class and kind; its text may hold what does not belong into traces."""
        attributes = {
            "messaging.system": self._system,
            "messaging.operation.name": operation,
            "messaging.operation.type": "process" if operation == "process" else "send",
            "messaging.destination.name": to,
            "messaging.message.conversation_id": ctx.request_id,
            "rpc.method": method.name,
        }
        with self._tracer.start_as_current_span(
            f"{operation} {to} {method.name}", context=parent_of(ctx), kind=kind, attributes=attributes,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            try:
                yield span
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__name__)
                span.set_status(Status(StatusCode.ERROR, outcome_of(exc)))
                raise
