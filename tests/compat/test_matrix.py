"""Requests both ways, with the real oslo.messaging, and where each of its features (oslo-wire 12) is held against ours.

    row                                      test
    1   call                                 test_matrix.test_row_01_*
    2   cast                                 test_matrix.test_row_02_*
    3   fanout                               test_matrix.test_row_03_*, test_matrix_bus.test_an_oslo_server_and_ours_share_*
    4   any server, one server               test_matrix.test_row_04_*
    5   exchange                             test_matrix.test_row_05_*
    6   namespaces, legacy namespaces        test_matrix.test_row_06_*
    7   versions                             test_matrix.test_row_07_*
    8   version_cap, can_send_version        test_matrix.test_row_08_*
    9   prepare()                            test_matrix.test_row_09_*
    10  timeouts                             test_matrix.test_row_10_*
    11  call monitoring                      test_matrix.test_row_11_*, test_matrix_errors.test_4_3_a_monitored_call_*
    12  retry on connection errors           test_matrix_bus.test_row_12_*
    13  mandatory sends                      test_matrix.test_row_13_*
    14  remote exceptions                    test_matrix_errors.test_row_14_*, test_matrix_errors.test_4_3_*
    15  RemoteError                          test_matrix_errors.test_row_15_*
    16  expected_exceptions                  test_matrix_errors.test_row_16_*
    17  access policies, expose              test_matrix_errors.test_row_17_*
    18  ping                                 test_matrix.test_row_18_*
    19  serializers                          test_matrix_wire.test_row_19_*, test_real_nova_cinder
    20  context                              test_matrix_wire.test_row_20_*
    21  versioned objects                    test_golden_objects, test_real_nova_cinder
    22  duplicates                           test_matrix.test_row_22_*
    23  missing reply queue                  test_matrix_bus.test_row_23_*
    26  several hosts                        test_matrix_bus.test_row_26_*
    27  TLS, SASL                            test_matrix_bus.test_row_27_*
    28  AMQP heartbeats, reconnect           test_matrix_bus.test_row_28_*
    29  durable, quorum, stream, ... queues  test_declarations.test_oslo_and_ours_declare_the_same_*, test_both_serve_one_topic_*
    30  stable queue names                   test_declarations.test_oslo_and_ours_declare_the_same_* [queue manager]
    31  compression                          test_matrix_wire.test_row_31_*, test_declarations.test_compressed_*
    32  options in the URL                   test_matrix_wire.test_row_32_*, test_row_31_and_32_*
    42  tracing                              test_matrix_wire.test_row_42_*
    3.2, 3.4, 3.6  forms of messages         test_matrix_wire.test_3_*, test_a_sample_*, test_messages_captured_now_*
    13.8, 4.3      the library's errors      test_matrix_errors.test_an_unserialisable_*, test_4_3_*

24, 25 and 33 (life cycle, concurrency, several transports) are not on the wire; 34 to 41 are notifications and what goes with them.
"""

import asyncio
import json
from typing import Any, Protocol

import aiormq
import pytest

from common.base.context import Context
from common.base.errors import Timeout
from common.rpc.client import NobodyListens
from common.rpc.contract import Contract, RPCVersionCapError, call, cast
from common.wire.failure import UnsupportedVersion
from common.wire.messages import Request, encode_request
from tests.compat.sides import (
    CLOCK,
    CTX,
    WAIT_S,
    OsloAPI,
    OsloPeer,
    OursAPI,
    Raw,
    Us,
    serving_ours,
)

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(90, func_only=True)]

VALUES: list[Any] = [None, True, -1, 2**53, 1.5, "é\u2028\U0001f600", "", [], {}, {"a": [{"b": None}]}]


async def first(queue: asyncio.Queue[str]) -> str:
    async with asyncio.timeout(WAIT_S):
        return await queue.get()


# -- 1 to 5: calls, casts, fanouts, addresses -----------------------------------------------------------------------------


async def test_row_01_a_call_brings_every_json_value_there_and_back(oslo: OsloPeer, us: Us) -> None:
    assert (await us.oslo.echo(CTX, x=VALUES))["x"] == VALUES
    assert (await oslo.call("ours", "echo", x=VALUES))["result"]["x"] == VALUES


async def test_row_02_a_cast_arrives_once_and_has_no_answer(oslo: OsloPeer, us: Us) -> None:
    await us.oslo.note(CTX, word="02 ours")
    assert [each["at"] for each in await oslo.seen("02 ours")] == ["oslo.host1"]
    assert (await oslo.cast("ours", "note", word="02 oslo"))["result"] is None
    assert await first(us.service.notes) == "02 oslo"


async def test_row_03_a_fanout_reaches_every_server_of_both_kinds(oslo: OsloPeer) -> None:
    class FannedAPI(OursAPI, Protocol, topic="fanned", version="6.5", exchange="nova"): ...

    await oslo.ask("serve", topic="fanned", server="oslo1")
    async with (
        serving_ours(oslo.url, topic="fanned", server="o1") as one,
        serving_ours(oslo.url, topic="fanned", server="o2") as two,
    ):
        await FannedAPI.over(one.rpc).everywhere().note(CTX, word="03 ours")
        await oslo.cast("fanned", "note", prepare={"fanout": True}, word="03 oslo")
        for us in (one, two):
            assert {await first(us.service.notes), await first(us.service.notes)} == {"03 ours", "03 oslo"}
        assert [each["at"] for word in ("03 ours", "03 oslo") for each in await oslo.seen(word)] == ["fanned.oslo1"] * 2


async def test_row_04_one_server_is_addressed_by_its_name_and_any_server_by_the_topic(oslo: OsloPeer) -> None:
    async with serving_ours(oslo.url, server="host1") as one, serving_ours(oslo.url, server="host2"):
        for server in ("host1", "host2"):
            answers = [await oslo.call("ours", "echo", x=1, prepare={"server": server}) for _ in range(3)]
            assert [answer["result"]["at"] for answer in answers] == [f"ours.{server}"] * 3
        answers = [await oslo.call("ours", "echo", x=1) for _ in range(4)]
        assert {answer["result"]["at"] for answer in answers} == {"ours.host1", "ours.host2"}
        await oslo.ask("serve", topic="named", server="cmp1@tgt#pool")
        assert (await one.oslo.on("cmp1@tgt#pool", topic="named").echo(CTX, x=1))["at"] == "named.cmp1@tgt#pool"


async def test_row_05_another_exchange_than_the_process_s_own_is_used_on_both_sides(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    async with serving_ours(oslo.url, topic="elsewhere", exchange="cinder"):
        found = await oslo.call("elsewhere", "echo", target={"exchange": "cinder"}, x=1)
        assert found["result"]["at"] == "elsewhere.host1"
    await oslo.ask("serve", topic="elsewhere2", server="host1", exchange="neutron")
    there = OsloAPI.over(us.rpc, exchange="neutron").on("host1", topic="elsewhere2")
    assert (await there.echo(CTX, x=1))["at"] == "elsewhere2.host1"
    wrong, seconds = await took(us.oslo.on("host1", topic="elsewhere2").echo(CTX, x=1))
    assert isinstance(wrong, NobodyListens)
    assert (wrong.address, wrong.exchange) == ("elsewhere2.host1", "nova")
    assert seconds < 2, "a server that was reached by another exchange is not one that may be away for a moment"


# -- 6 to 9: namespaces, versions, caps, overrides ------------------------------------------------------------------------


async def test_row_06_namespaces_and_legacy_namespaces_find_their_endpoint(oslo: OsloPeer, us: Us) -> None:
    class Spaced(Contract, Protocol, topic="oslo", version="1.1", exchange="nova", namespace="baseapi"):
        @call()
        async def which(self, ctx: Context) -> str: ...

    class Legacy(Contract, Protocol, topic="oslo", version="1.0", exchange="nova", namespace="base"):
        @call()
        async def which(self, ctx: Context) -> str: ...

    class Unknown(Contract, Protocol, topic="oslo", version="1.0", exchange="nova", namespace="other"):
        @call()
        async def which(self, ctx: Context) -> str: ...

    assert await Spaced.over(us.rpc).which(CTX) == await Legacy.over(us.rpc).which(CTX) == "baseapi"
    with pytest.raises(UnsupportedVersion):
        await Unknown.over(us.rpc).which(CTX)
    for namespace in ("baseapi", "base"):
        found = await oslo.call("ours", "which", target={"namespace": namespace, "version": "1.1"})
        assert found["result"] == "baseapi"
    found = await oslo.call("ours", "which", target={"namespace": "other", "version": "1.0"})
    assert found["remote"] == "UnsupportedVersion"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("6.5", "6.5"),
        ("6.0", "6.5"),
        ("5.13", "5.13"),
        ("5.0", "5.13"),
        ("1.0", "1.0"),
        (None, "1.0"),
        ("6.6", None),
        ("7.0", None),
    ],
)
async def test_row_07_several_versions_of_one_server_answer_those_who_ask_for_them(
    oslo: OsloPeer, us: Us, asked: str | None, answer: str | None
) -> None:
    found = await oslo.call("ours", "which", target={"version": asked})
    assert found.get("result") == answer
    if asked is None:
        return

    class Asking(Contract, Protocol, topic="oslo", version=asked, exchange="nova"):
        @call()
        async def which(self, ctx: Context) -> str: ...

    if answer is not None:
        assert await Asking.over(us.rpc).which(CTX) == answer
        return
    text = f"Endpoint does not support RPC version {asked}. Attempted method: which"
    assert found == {"remote": "UnsupportedVersion", "value": text, "took_s": found["took_s"]}
    with pytest.raises(UnsupportedVersion, match=text):
        await Asking.over(us.rpc).which(CTX)


async def test_row_07_a_request_without_a_version_asks_for_1_0_on_both_sides(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    await raw.declare("reply_row7")
    for topic in ("oslo", "ours"):
        await raw.send("nova", topic, {"method": "which", "_msg_id": topic, "_reply_q": "reply_row7", "_unique_id": topic})
        reply = json.loads(json.loads((await raw.take("reply_row7")).body)["oslo.message"])
        assert (reply["result"], reply["failure"], reply["ending"]) == ("1.0", None, True)


async def test_row_08_a_version_cap_lets_out_the_same_versions_as_oslo_s(oslo: OsloPeer, us: Us) -> None:
    capped = OsloAPI.over(us.rpc, version_cap="6.2")
    assert await capped.which(CTX) == "6.5"
    with pytest.raises(RPCVersionCapError, match=r"Requested message version, 6\.3 is incompatible"):
        await capped.exposed(CTX)
    for version in ("6.0", "6.2", "6.2.1", "6.3", "7.0", "5.9"):
        asked = await oslo.ask("can_send_version", version=version, version_cap="6.2", target={"topic": "oslo"})
        assert asked["result"] is capped.can_send_version(version), version
    refused = await oslo.call("ours", "newest", target={"version": "6.5"}, version_cap="6.2")
    assert "oslo_messaging.rpc.client.RPCVersionCapError" in refused["raised"]


async def test_row_09_what_prepare_overrides_is_overridden_here_and_only_that(oslo: OsloPeer, us: Us) -> None:
    await oslo.ask("serve", topic="prepared", server="host2", exchange="cinder")
    prepared = OsloAPI.over(us.rpc, exchange="cinder", version_cap="6.0").on("host2", topic="prepared").within(20).monitored(5)
    assert (await prepared.echo(CTX, x=9))["at"] == "prepared.host2"
    with pytest.raises(RPCVersionCapError, match=r"prepared\.host2"):
        await prepared.exposed(CTX)
    with pytest.raises(Timeout):
        await prepared.within(0.3).hold(CTX, key="09")
    await oslo.ask("release", key="09")
    assert (await us.oslo.echo(CTX, x=9))["at"] == "oslo.host1"
    words: dict[str, Any] = {"server": "host1", "version": "5.0", "timeout": 9}
    assert (await oslo.call("ours", "which", target={"version": "6.0"}, prepare=words))["result"] == "5.13"


# -- 10: timeouts ---------------------------------------------------------------------------------------------------------


async def answered(raw: Raw, found: aiormq.abc.DeliveredMessage) -> dict[str, Any]:
    """The message, after an answer to it."""
    message: dict[str, Any] = json.loads(json.loads(found.body)["oslo.message"])
    if "_msg_id" in message:
        reply = {"result": None, "failure": None, "ending": True, "_msg_id": message["_msg_id"], "_unique_id": "r"}
        await raw.send("", message["_reply_q"], reply)
    return message


async def test_row_10_a_call_carries_its_timeout_as_expiration_and_a_cast_none(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    class Waiting(Contract, Protocol, topic="waiting", version="1.0", exchange="nova"):
        @call()
        async def ask(self, ctx: Context) -> None: ...

        @cast()
        async def tell(self, ctx: Context) -> None: ...

    await raw.declare("waiting", "nova", "waiting")
    waiting = Waiting.over(us.rpc)
    for _ in range(2):  # the first call also makes the reply queue, and has so much less time
        async with asyncio.TaskGroup() as both:
            both.create_task(waiting.within(12.5).ask(CTX))
            ours = await raw.take("waiting")
            message = await answered(raw, ours)
    assert ours.header.properties.expiration == "12500"
    assert (message["_deadline"], message["_timeout"]) == (12.5, None)
    async with asyncio.TaskGroup() as both:
        both.create_task(oslo.call("waiting", "ask", timeout=12.5))
        theirs = await raw.take("waiting")
        await answered(raw, theirs)
    same = ("content_type", "content_encoding", "delivery_mode", "expiration", "priority", "correlation_id", "reply_to")
    for name in same:
        assert getattr(ours.header.properties, name) == getattr(theirs.header.properties, name), name
    await waiting.tell(CTX)
    await oslo.cast("waiting", "tell")
    assert [(await raw.take("waiting")).header.properties.expiration for _ in range(2)] == [None, None]


async def test_row_10_a_request_that_expired_in_its_queue_is_not_executed(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    await raw.declare("late.host1", "nova", "late.host1")
    with pytest.raises(Timeout):
        await us.oslo.on("host1", topic="late").within(0.3).hold(CTX, key="10 late")
    await raw.until_empty("late.host1")
    await us.oslo.on("host1", topic="late").note(CTX, word="10 in time")
    await oslo.ask("serve", topic="late", server="host1")
    await oslo.seen("10 in time")
    assert (await us.oslo.on("host1", topic="late").echo(CTX, x=1))["x"] == 1
    assert not [each for each in oslo.told() if each["word"] == "10 late"]

    await raw.declare("late.ours", "nova", "late.ours")
    gone = await oslo.call("late", "hold", target={"server": "ours"}, timeout=0.3, key="10 late")
    assert "oslo_messaging.exceptions.MessagingTimeout" in gone["raised"]
    await raw.until_empty("late.ours")
    await oslo.cast("late", "note", target={"server": "ours"}, word="10 in time")
    async with serving_ours(oslo.url, topic="late", server="ours") as late:
        assert await first(late.service.notes) == "10 in time"
        assert (await oslo.call("late", "echo", target={"server": "ours"}, x=1))["result"]["x"] == 1
        assert late.service.began.empty()


# -- 11: signs of life ----------------------------------------------------------------------------------------------------


async def test_row_11_an_oslo_caller_that_monitors_hears_our_beats_and_one_that_does_not_hears_none(oslo: OsloPeer, us: Us) -> None:
    found = await asyncio.gather(
        oslo.call("ours", "last", seconds=3.2, call_monitor_timeout=2),
        oslo.call("ours", "last", seconds=3.2),
        oslo.call("ours", "last", seconds=1.6, call_monitor_timeout=1),
    )
    assert [each.get("result") for each in found] == ["lasted"] * 3, found


async def test_row_11_our_caller_that_monitors_hears_oslo_s_beats(oslo: OsloPeer, us: Us) -> None:
    monitored = us.oslo.monitored(2)
    found = await asyncio.gather(monitored.last(CTX, seconds=3.2), us.oslo.last(CTX, seconds=3.2))
    assert list(found) == ["lasted", "lasted"]


async def test_row_11_a_monitored_call_to_a_server_that_died_ends_before_its_timeout(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    await raw.declare("silent", "nova", "silent.host1")
    ours, theirs = await asyncio.gather(
        took(us.oslo.on("host1", topic="silent").within(30).monitored(1).hold(CTX, key="11")),
        oslo.call("silent", "hold", target={"server": "host1"}, call_monitor_timeout=1, key="11"),
    )
    assert isinstance(ours[0], Timeout)
    assert "oslo_messaging.exceptions.MessagingTimeout" in theirs["raised"]
    assert 0.9 < ours[1] < 5
    assert 0.9 < theirs["took_s"] < 5


async def took(work: Any) -> tuple[Any, float]:
    """What came of it, and after how many seconds."""
    began = CLOCK.monotonic()
    try:
        found = await work
    except Exception as exc:  # noqa: BLE001  # the test looks at it
        found = exc
    return found, CLOCK.monotonic() - began


# -- 13, 18, 22: mandatory sends, pings, duplicates -----------------------------------------------------------------------


async def test_row_13_mandatory_sends_of_both_arrive_or_fail_at_once(oslo: OsloPeer, us: Us) -> None:
    assert (await oslo.call("ours", "which", target={"version": "6.0"}, at_least_once=True))["result"] == "6.5"
    await oslo.cast("ours", "note", at_least_once=True, word="13")
    assert await first(us.service.notes) == "13"
    theirs = await oslo.call("nowhere", "which", at_least_once=True)
    assert "oslo_messaging.exceptions.MessageUndeliverable" in theirs["raised"]
    for work in (us.oslo.on("nowhere").which(CTX), us.oslo.on("nowhere").note(CTX, word="13")):
        found, seconds = await took(work)
        assert isinstance(found, NobodyListens), found
        assert max(seconds, theirs["took_s"]) < 5


async def test_row_18_both_answer_a_ping_of_the_other(oslo: OsloPeer, us: Us) -> None:
    class Pinged(Contract, Protocol, topic="oslo", version="1.0", exchange="nova"):
        @call()
        async def oslo_rpc_server_ping(self, ctx: Context) -> str: ...

    assert await Pinged.over(us.rpc).on("host1").oslo_rpc_server_ping(CTX) == "pong"
    for version in ("1.0", None):
        found = await oslo.call("ours", "oslo_rpc_server_ping", target={"server": "host1", "version": version})
        assert found["result"] == "pong"


async def test_row_22_a_message_that_comes_twice_is_executed_once_by_both(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    for topic in ("oslo", "ours"):
        twice = {"method": "note", "args": {"word": f"22 {topic}"}, "version": "6.0", "_unique_id": f"22 {topic}"}
        last = {"method": "note", "args": {"word": f"22 {topic} last"}, "version": "6.0", "_unique_id": f"22 {topic} last"}
        for message in (twice, twice, last):
            await raw.send("nova", topic, message)
    await oslo.seen("22 oslo last")
    assert len(await oslo.seen("22 oslo")) == 1
    assert [await first(us.service.notes), await first(us.service.notes)] == ["22 ours", "22 ours last"]
    await raw.declare("reply_row22")
    body = encode_request(Request("echo", {"x": 1}, "22 call", version="6.0", msg_id="22", reply_q="reply_row22"))
    await raw.publish("nova", "ours", body)
    await raw.take("reply_row22")
    assert len(us.service.contexts) == 1
    await raw.publish("nova", "ours", body)
    assert json.loads(json.loads((await raw.take("reply_row22")).body)["oslo.message"])["result"]["x"] == 1
    assert len(us.service.contexts) == 1
