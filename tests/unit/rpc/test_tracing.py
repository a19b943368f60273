"""OpenTelemetry spans and the W3C trace of the context."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, format_span_id, format_trace_id

from common.base.context import Context
from common.base.errors import Conflict
from common.base.trace import Trace
from common.rpc.contract import Contract, call, cast
from common.rpc.tracing import SpanHop, TracedClient, TracedServer
from tests.unit.rpc.net import net, until


class NearAPI(Contract, Protocol, topic="near", version="1.0"):
    @call()
    async def ask(self, ctx: Context) -> str: ...


class FarAPI(Contract, Protocol, topic="far", version="1.0"):
    @call()
    async def answer(self, ctx: Context, *, word: str) -> str: ...

    @cast()
    async def note(self, ctx: Context) -> None: ...


@dataclass
class Near(NearAPI):
    far: FarAPI

    async def ask(self, ctx: Context) -> str:
        await self.far.note(ctx)
        return await self.far.answer(ctx, word="well")


@dataclass
class Far(FarAPI):
    traces: list[Trace | None] = field(default_factory=list)

    async def answer(self, ctx: Context, *, word: str) -> str:
        self.traces.append(ctx.trace)
        if word == "bad":
            raise Conflict(kind="word", name="hunter2", found="bad", expected="well")
        return word

    async def note(self, ctx: Context) -> None:
        self.traces.append(ctx.trace)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def words(exporter: InMemorySpanExporter) -> dict[str, Any]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    return {"client": [TracedClient(tracer, system="rabbitmq")], "server": [TracedServer(tracer, system="rabbitmq")]}


def by_name(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans}


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else format_span_id(span.parent.span_id)


def own(span: ReadableSpan) -> str:
    return format_span_id(context(span).span_id)


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


async def test_a_request_through_two_services_is_one_trace_of_linked_spans(exporter: InMemorySpanExporter, words: Any) -> None:
    async with net() as made:
        far = Far()
        await made.serve(far, middleware=words["server"])
        await made.serve(Near(FarAPI.over(made.client(middleware=words["client"]))), middleware=words["server"])
        ctx = Context(trace=Trace.new())
        await NearAPI.over(made.client(middleware=words["client"])).on("h1").ask(ctx)
        await until(lambda: len(exporter.get_finished_spans()) == 6)
    spans = by_name(exporter.get_finished_spans())
    assert {format_trace_id(context(span).trace_id) for span in spans.values()} == {ctx.trace.trace_id if ctx.trace else ""}
    sent, served = spans["call near.h1 ask"], spans["process near.h1 ask"]
    asked, answered = spans["call far answer"], spans["process far.h1 answer"]
    cast_, noted = spans["cast far note"], spans["process far.h1 note"]
    assert parent(sent) == (ctx.trace.span_id if ctx.trace else "")
    assert [parent(span) for span in (served, asked, answered, cast_, noted)] == [
        own(sent), own(served), own(asked), own(served), own(cast_),
    ]  # fmt: skip
    assert [span.kind for span in (sent, served, cast_, noted)] == [
        SpanKind.CLIENT, SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER,
    ]  # fmt: skip
    assert sent.attributes is not None
    assert sent.attributes["messaging.system"] == "rabbitmq"
    assert sent.attributes["messaging.operation.type"] == "send"
    assert sent.attributes["messaging.destination.name"] == "near.h1"
    assert sent.attributes["messaging.message.conversation_id"] == ctx.request_id
    assert {trace.span_id for trace in far.traces if trace} == {own(answered), own(noted)}


async def test_an_error_is_noted_by_its_class_and_kind_but_not_by_its_text(exporter: InMemorySpanExporter, words: Any) -> None:
    async with net() as made:
        await made.serve(Far(), middleware=words["server"])
        with pytest.raises(Conflict):
            await FarAPI.over(made.client(middleware=words["client"])).answer(Context(), word="bad")
    for span in exporter.get_finished_spans():
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "conflict")
        assert span.attributes is not None
        assert span.attributes["error.type"] == "Conflict"
        assert "hunter2" not in span.to_json()


async def test_without_a_trace_a_request_begins_one_and_an_untraced_server_passes_it_on(words: Any) -> None:
    async with net() as made:
        far = Far()
        await made.serve(far)
        await FarAPI.over(made.client(middleware=words["client"])).answer(Context(), word="x")
    (found,) = far.traces
    assert found is not None
    assert not isinstance(found, SpanHop)


def test_the_hop_of_a_span_adds_no_further_hop() -> None:
    hop = SpanHop("1" * 32, "2" * 16)
    assert hop.child() is hop
