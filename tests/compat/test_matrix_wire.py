"""What is in the messages, with the real oslo.messaging: contexts, serializers, traces, compression, and golden messages
(rows 19, 20, 31, 32 and 42 of the table in test_matrix; oslo-wire 3).
"""

import asyncio
import json
from pathlib import Path
from typing import Any, Protocol

import aiormq
import msgspec
import pytest

from common.base.context import Context
from common.base.trace import Trace
from common.rpc.contract import Contract, call
from common.rpc.dead_letters import DeadLetters
from common.transport.url import open_transport
from common.wire.compression import plain
from common.wire.envelope import pack, unpack
from common.wire.messages import decode_reply, decode_request, encode_reply, encode_request
from nova_lite.config import load_nova
from tests.compat.sides import CLOCK, CTX, WAIT_S, OsloAPI, OsloPeer, Raw, Us, enveloped, opened, serving_ours

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(90, func_only=True)]

SAMPLES: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("golden").joinpath("oslo", "messages.json").read_text())[
    "messages"
]
REQUESTS, REPLIES, NOTIFICATIONS = ["S1", "S2", "S3", "S4", "S7"], ["S5", "S6", "S8", "S9", "S10"], ["S11", "S12"]

NOVA_KEYS: dict[str, Any] = {
    "user": "u1", "user_id": "u1", "project": "p1", "project_id": "p1", "project_name": "demo", "roles": ["member", "reader"],
    "is_admin": False, "is_admin_project": True, "read_deleted": "no", "read_only": False, "show_deleted": False,
    "remote_address": "10.0.0.9", "timestamp": "2026-11-23T03:12:06.123456", "quota_class": None, "user_name": "demo",
    "request_id": "req-11111111-1111-4111-8111-111111111111", "global_request_id": None, "resource_uuid": None, "domain": None,
    "user_domain": "default", "project_domain": "default", "system_scope": None, "user_identity": "u1 p1 - - -",
}  # fmt: skip
"""As a real nova 34 sends them (oslo-wire 7), but for the two that are secret."""
SECRET = {"auth_token": "gAAAA-secret", "service_catalog": [{"type": "volumev3"}]}


# -- 19 and 20: serializers, contexts -------------------------------------------------------------------------------------


class Wrapped(msgspec.Struct):
    """What the peer's serializer makes of each entity."""

    wrapped: Any
    by: str


async def test_row_19_what_an_oslo_serializer_writes_is_read_as_a_type_and_back(oslo: OsloPeer, us: Us) -> None:
    class There(Contract, Protocol, topic="wrapping", version="6.0", exchange="nova"):
        @call()
        async def echo(self, ctx: Context, *, x: Wrapped) -> Wrapped: ...

    await oslo.ask("serve", topic="wrapping", server="host1", serializer="wrapping")
    found = await There.over(us.rpc).echo(CTX, x=Wrapped([1, None], "us"))
    assert (found.wrapped["x"], found.by) == ([1, None], "u1")

    class Here(Contract, Protocol, topic="wrapped", version="6.0", exchange="nova"):
        @call()
        async def echo(self, ctx: Context, *, x: Wrapped) -> Wrapped: ...

    class Service(Here):
        async def echo(self, ctx: Context, *, x: Wrapped) -> Wrapped:
            return Wrapped([x.wrapped, x.by, ctx.others["resource_uuid"]], "us")

    async with serving_ours(oslo.url, topic="wrapped", more=[Service()]):
        answer = await oslo.call("wrapped", "echo", serializer="wrapping", x={"é": 1})
    assert answer["result"] == [{"é": 1}, "u1", "from the serializer"]


async def test_row_20_a_nova_context_arrives_at_ours_and_goes_on_whole_but_for_its_secrets(oslo: OsloPeer, us: Us) -> None:
    """oslo's client -> our server -> our client -> oslo's server."""
    sent = {**NOVA_KEYS, **SECRET, "client_timeout": 99}
    here = (await oslo.call("ours", "echo", x=1, ctxt=sent))["result"]["ctxt"]
    assert here == NOVA_KEYS
    (ctx,) = us.service.contexts
    assert (ctx.user_id, ctx.project_id, ctx.roles, ctx.is_admin) == ("u1", "p1", ("member", "reader"), False)
    there = (await us.oslo.echo(ctx, x=1))["ctxt"]
    assert there.pop("traceparent").startswith("00-")
    assert there == {**NOVA_KEYS, "client_timeout": None}, "oslo's server adds client_timeout itself"


async def test_row_20_a_monitor_s_seconds_are_no_key_of_the_context(oslo: OsloPeer, us: Us) -> None:
    found = await oslo.call("ours", "echo", x=1, call_monitor_timeout=7)
    assert "client_timeout" not in found["result"]["ctxt"]
    assert (await us.oslo.monitored(7).echo(CTX, x=1))["ctxt"]["client_timeout"] == 7
    assert (await us.oslo.echo(CTX, x=1))["ctxt"]["client_timeout"] is None


async def test_row_42_a_trace_goes_through_both_in_the_keys_of_oslo_s_tracing(oslo: OsloPeer, us: Us) -> None:
    trace = msgspec.structs.replace(Trace.new(), state="vendor=1")
    there = (await us.oslo.echo(Context(trace=trace), x=1))["ctxt"]
    hop = Trace.parse(there["traceparent"], there["tracestate"])
    assert hop is not None
    assert (hop.trace_id, hop.state) == (trace.trace_id, "vendor=1")
    keys = {"traceparent": trace.traceparent, "tracestate": "vendor=1"}
    here = (await oslo.call("ours", "echo", x=1, ctxt={"user_id": "u1", **keys}))["result"]["ctxt"]
    assert keys.items() <= here.items()


async def test_our_extensions_are_on_the_wire_and_oslo_s_server_heeds_none_of_them(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    await raw.declare("spies.extensions", "nova", "oslo.host1")
    found = await us.oslo.on("host1").within(9.5).echo(CTX, x=1)
    message = await raw.take("spies.extensions")
    await raw.channel.queue_delete("spies.extensions")
    sent = opened(message.body)
    assert sent["_deadline"] == pytest.approx(9.5, abs=1)
    assert (message.header.properties.headers or {})["traceparent"] == sent["_context_traceparent"]
    assert found["x"] == 1
    assert not {"_deadline", "deadline"} & found["ctxt"].keys()


# -- 31 and 32: compression, options in the URL ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "content_type"), [("gzip", "application/x-gzip"), ("bzip2", "application/x-bz2")])
async def test_row_31_and_32_options_in_the_url_make_oslo_compress_and_ours_reads_it(
    oslo: OsloPeer, us: Us, raw: Raw, name: str, content_type: str
) -> None:
    await raw.declare("spies.compressed", "nova", "ours.host1")
    url = f"{oslo.url}?kombu_compression={name}"
    found = await oslo.call("ours", "echo", url=url, prepare={"server": "host1"}, x="é" * 5000)
    message = await raw.take("spies.compressed")
    await raw.channel.queue_delete("spies.compressed")
    assert found["result"]["x"] == "é" * 5000
    headers = message.header.properties.headers or {}
    assert headers["compression"] == content_type
    assert len(message.body) < 1000
    assert opened(plain(message.body, headers))["args"] == {"x": "é" * 5000}


async def test_row_32_one_url_with_options_serves_both(oslo: OsloPeer, tmp_path: Path) -> None:
    url = f"{oslo.url}?kombu_compression=gzip&rabbit_transient_queues_ttl=60&heartbeat_rate=3"
    conf = tmp_path / "nova.conf"
    conf.write_text(f"[DEFAULT]\ntransport_url = {url}\n")
    bus = load_nova([conf]).common.bus
    transport = await open_transport(bus.url, clock=CLOCK, connection_name="ours", rabbit=bus.rabbit)
    await oslo.ask("serve", topic="optional", server="oslo1", url=url)
    async with serving_ours(oslo.url, topic="optional", server="ours1", transport=transport, options=bus.rpc) as us:
        text = "é" * 2000
        assert (await OsloAPI.over(us.rpc).on("oslo1", topic="optional").echo(CTX, x=text))["x"] == text
        found = await oslo.call("optional", "echo", url=url, prepare={"server": "ours1"}, x=text)
        assert found["result"]["x"] == text


# -- golden messages ------------------------------------------------------------------------------------------------------


def again(body: bytes) -> dict[str, Any]:
    """A message after our reader and our writer."""
    if "method" in opened(body):
        return opened(encode_request(decode_request(body)))
    return opened(encode_reply(decode_reply(body)))


def test_there_is_a_sample_of_each_kind() -> None:
    assert sorted([*REQUESTS, *REPLIES, *NOTIFICATIONS]) == sorted(SAMPLES)


@pytest.mark.parametrize("name", [*REQUESTS, *REPLIES])
def test_a_sample_message_is_the_same_after_our_reader_and_our_writer(name: str) -> None:
    body = SAMPLES[name]["body"].encode()
    assert again(body) == opened(body)


@pytest.mark.parametrize("name", NOTIFICATIONS)
def test_a_sample_notification_is_the_same_after_our_envelope(name: str) -> None:
    body = SAMPLES[name]["body"].encode()
    assert unpack(pack(unpack(body))) == opened(body)


async def test_messages_captured_now_are_those_of_the_samples_and_the_same_after_ours(oslo: OsloPeer, raw: Raw) -> None:
    captured = await capture_requests(oslo, raw) | await capture_replies(oslo, raw)
    like = {
        "call": "S1",
        "monitored": "S7",
        "cast": "S3",
        "fanout": "S4",
        "reply": "S5",
        "none": "S6",
        "beat": "S8",
        "failure": "S10",
    }
    assert captured.keys() == like.keys()
    for kind, message in captured.items():
        sample = SAMPLES[like[kind]]
        assert again(message.body) == opened(message.body), kind
        fixed = {key: type(value) for key, value in opened(message.body).items() if not key.startswith("_context_")}
        expected = {key: type(value) for key, value in opened(sample["body"].encode()).items() if not key.startswith("_context_")}
        assert {**fixed, "result": 0, "args": 0} == {**expected, "result": 0, "args": 0}, kind
        properties = {
            name: value for name, value in message.header.properties if value is not None and name in sample["properties"]
        }
        wanted = sample["properties"]
        assert {**properties, "expiration": 0, "headers": {}} == {**wanted, "expiration": 0}, kind


async def capture_requests(oslo: OsloPeer, raw: Raw) -> dict[str, aiormq.abc.DeliveredMessage]:
    await raw.declare("golden", "nova", "golden")
    await raw.declare("golden.fanout", "golden_fanout", "golden", kind="fanout")
    found = {}
    monitors: dict[str, dict[str, Any]] = {"call": {}, "monitored": {"call_monitor_timeout": 5}}
    for kind, words in monitors.items():
        async with asyncio.TaskGroup() as both:
            both.create_task(oslo.call("golden", "echo", a=1, b="é", c=[1, None, 2.5], **words))
            found[kind] = await raw.take("golden")
            asked = opened(found[kind].body)
            reply = {"result": None, "failure": None, "ending": True, "_msg_id": asked["_msg_id"], "_unique_id": "r"}
            await raw.send("", asked["_reply_q"], reply)
    await oslo.cast("golden", "note", x=1)
    found["cast"] = await raw.take("golden")
    await oslo.cast("golden", "note", prepare={"fanout": True}, x="f")
    found["fanout"] = await raw.take("golden.fanout")
    return found


async def capture_replies(oslo: OsloPeer, raw: Raw) -> dict[str, aiormq.abc.DeliveredMessage]:
    await raw.declare("reply_golden")
    found = {}
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "reply": ("echo", {"x": 1}), "none": ("nothing", {}), "failure": ("fail", {"how": "host"}), "beat": ("last", {"seconds": 1.2}),
    }  # fmt: skip
    for kind, (method, args) in asked.items():
        request = {
            "method": method, "args": args, "version": "6.0", "_msg_id": kind, "_reply_q": "reply_golden", "_unique_id": f"g {kind}",
            "_timeout": 2 if kind == "beat" else None,
        }  # fmt: skip
        await raw.send("nova", "oslo", request)
        found[kind] = await raw.take("reply_golden")
    assert opened((await raw.take("reply_golden")).body)["result"] == "lasted"
    return found


# -- replies as oslo-wire 3.4 has them, and worse -------------------------------------------------------------------------

OUTCOME = {"_unique_id": "r"}


@pytest.mark.parametrize(
    ("parts", "result"),
    [
        ([{"result": "whole", "failure": None, "ending": True}], "whole"),
        ([{"result": "two", "failure": None, "ending": False}, {"failure": None, "ending": True}], "two"),
        ([{"result": None, "failure": None, "ending": False}, {"result": "beaten", "failure": None, "ending": True}], "beaten"),
        ([{"result": "without failure", "ending": True}], "without failure"),
        ([{"failure": None, "ending": True}], None),
    ],
    ids=["whole", "two parts", "a beat before", "without failure", "without a result"],
)
async def test_3_4_every_form_of_reply_that_oslo_sent_is_understood(
    us: Us, raw: Raw, parts: list[dict[str, Any]], result: Any
) -> None:
    class Legacy(Contract, Protocol, topic="legacy", version="1.0", exchange="nova"):
        @call()
        async def ask(self, ctx: Context) -> Any: ...

    await raw.declare("legacy", "nova", "legacy")
    async with asyncio.TaskGroup() as both:
        asking = both.create_task(Legacy.over(us.rpc).within(10).ask(CTX))
        asked = opened((await raw.take("legacy")).body)
        for number, part in enumerate(parts):
            await raw.send("", asked["_reply_q"], {**part, "_msg_id": asked["_msg_id"], "_unique_id": f"r{number}"})
    assert asking.result() == result


async def test_3_2_a_message_without_an_envelope_is_taken_by_both_as_version_1_0(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    await raw.declare("reply_bare")
    for topic in ("oslo", "ours"):
        request = {"method": "which", "version": "6.0", "_msg_id": topic, "_reply_q": "reply_bare", "_unique_id": f"bare {topic}"}
        await raw.publish("nova", topic, json.dumps(request).encode())
        assert opened((await raw.take("reply_bare")).body)["result"] == "6.5"


async def test_3_2_what_oslo_drops_is_kept_by_ours_and_disturbs_neither(oslo: OsloPeer, raw: Raw) -> None:
    bad = [
        b"not JSON", json.dumps({"oslo.version": "2.1", "oslo.message": "{}"}).encode(), enveloped({"args": {}}), b"[]",
        json.dumps({"oslo.version": "3.0", "oslo.message": '{"method": "which"}'}).encode(),
    ]  # fmt: skip
    async with serving_ours(oslo.url) as us:
        for topic in ("oslo", "ours"):
            for body in bad:
                await raw.publish("nova", topic, body)
        assert await us.oslo.which(CTX) == "6.5"
        assert (await oslo.call("ours", "which"))["result"] == "6.5"
        letters = DeadLetters(us.transport, "ours")
        async with asyncio.timeout(WAIT_S):
            while len(await letters.all(10)) < len(bad):
                await CLOCK.sleep(0.05)
        await us.transport.delete_queue(letters.queue)
