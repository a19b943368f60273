"""Hostile messages: each is refused with a counted reason, or harmlessly taken, and the next good request is answered."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from common.base.context import Context
from common.base.errors import Conflict, Fault
from common.base.limits import FAILURE_TEXT_MAX, MESSAGE_BYTES_MAX, WORD_MAX
from common.rpc.contract import Contract, call
from common.rpc.counts import Event
from common.rpc.server import RpcServer
from common.rpc.topology import server_queues
from common.transport.port import Delivery, Message, Queue
from common.wire.failure import RemoteError, decode_failure
from common.wire.messages import Reply, decode_reply, decode_request
from tests.unit.rpc.given import Given
from tests.unit.rpc.net import Net, net, until


class EchoAPI(Contract, Protocol, topic="hostile", version="1.0"):
    @call()
    async def echo(self, ctx: Context, *, text: str) -> str: ...


class Echo(EchoAPI):
    async def echo(self, ctx: Context, *, text: str) -> str:
        return text


CAST = {"method": "echo", "args": {"text": "x"}, "version": "1.0", "_unique_id": "u"}
CALL = {**CAST, "_msg_id": "m", "_reply_q": "reply_r", "_timeout": None}


def bare(**keys: Any) -> bytes:
    """A request without an envelope; None leaves a key out."""
    return json.dumps({key: value for key, value in {**CALL, **keys}.items() if value is not None}).encode()


def inside(message: bytes | str) -> bytes:
    text = message.decode() if isinstance(message, bytes) else message
    return json.dumps({"oslo.version": "2.0", "oslo.message": text}).encode()


WRONG: tuple[Any, ...] = (5, True, [], {}, "")
WRONG_ARGS: tuple[Any, ...] = (5, True, [], "x")
TIMEOUTS: tuple[Any, ...] = (1e308, -1, "x", True, [], {}, 1e-300, 0, float("nan"), float("-inf"))
DEADLINES: tuple[Any, ...] = (1e308, "x", True, [], {}, float("nan"), float("inf"), 1e9)
DEEP = b"[" * 100_000 + b"]" * 100_000
REFUSED: dict[str, tuple[bytes, str]] = {
    "a version of tomorrow": (json.dumps({"oslo.version": "3.0", "oslo.message": "{}"}).encode(), "envelope"),
    "a version that is no text": (json.dumps({"oslo.version": 2.0, "oslo.message": "{}"}).encode(), "envelope"),
    "an envelope around an object": (json.dumps({"oslo.version": "2.0", "oslo.message": {}}).encode(), "envelope"),
    "nothing": (b"", "json"),
    "not JSON": (b"\x80\x04\x95 pickle", "json"),
    "not JSON inside": (inside("{"), "json"),
    "a list": (b"[]", "json"),
    "a number inside": (inside("1"), "json"),
    "another encoding": (json.dumps(CALL).encode("utf-16"), "json"),
    "nested deep": (DEEP, "json"),
    "nested deep inside": (inside(DEEP), "json"),
    "nested deep in an argument": (b'{"method": "echo", "args": {"text": ' + DEEP + b"}}", "json"),
    "nested deeper than the limit only": (b'{"method": "echo", "_context_a": ' + b"[" * 500 + b"]" * 500 + b"}", "json"),
    "10 MB": (b" " * 10_000_000, "size"),
    "half a character as an escape": (rb'{"method": "\ud800"}', "json"),
    "half a character as bytes": (b'{"method": "\xed\xa0\x80"}', "json"),
    "half a character beside NaN": (rb'{"method": "echo", "args": {"text": "\udfff", "x": NaN}}', "json"),
    "a number of a million digits": (b'{"method": "echo", "_timeout": ' + b"9" * 1_000_000 + b"}", "json"),
    "no method": (b"{}", "key"),
    "the queue of somebody else": (bare(_reply_q="compute"), "reply_q"),
    "a reply queue of a long name": (bare(_reply_q="reply_" + "x" * 300), "reply_q"),
    **{f"{key} of {type(value).__name__}": (bare(**{key: value}), "key")
       for key in ("method", "version", "namespace", "_msg_id", "_unique_id", "_reply_q")
       for value in WRONG},
    **{f"args of {type(value).__name__}": (bare(args=value), "key") for value in WRONG_ARGS},
    **{f"a long {key}": (bare(**{key: "x" * (WORD_MAX + 1)}), "key") for key in ("method", "_unique_id", "_msg_id", "version")},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
async def test_a_message_that_cannot_be_read_is_refused_and_counted_and_the_next_is_answered(name: str) -> None:
    body, reason = REFUSED[name]
    async with net() as made:
        server = await made.serve(Echo())
        given = Given(body)
        server._on_delivery(given, "hostile")
        await until(lambda: bool(given.settled))
        assert given.settled == ("dropped" if reason == "size" else "acked")
        assert [(word, number) for event, word, number in server.counts if event is Event.REFUSED] == [(reason, 1)]
        await answers_a_good_request(made, server)


TAKEN: dict[str, bytes] = {
    "40,000 context keys": bare(**{f"_context_{number}": number for number in range(40_000)}),
    "a context of wrong types": bare(
        _context_request_id={"a": [1]}, _context_user_id=["u"], _context_project_id=5, _context_roles={"admin": 1},
        _context_is_admin="true", _context_traceparent=7, _context_tracestate={}, _context_auth_token=[],
    ),
    "a request id of a megabyte": bare(_context_request_id="r" * 1_000_000),
    "a traceparent of a megabyte": bare(_context_traceparent="00-" * 300_000),
    "keys that nobody knows": bare(oslo="x", __class__="Exception", **{"oslo.version": "9"}),
    "keys given twice": b'{"method": "none", "method": "echo", "args": {"text": "y"}, "args": {"text": "x", "text": "x"},'
    b' "_msg_id": "n", "_msg_id": "m", "_reply_q": "reply_r"}',
    **{f"_timeout {value}": bare(_timeout=value) for value in TIMEOUTS},
    **{f"_deadline {value}": bare(_deadline=value) for value in DEADLINES},
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
async def test_what_is_odd_but_can_be_read_is_served_like_any_other(name: str) -> None:
    async with net() as made:
        server = await made.serve(Echo())
        assert (await answer(made, server, TAKEN[name])).result == "x"
        await answers_a_good_request(made, server)


ANSWERED: dict[str, tuple[bytes, str, str]] = {
    "unknown arguments by the 10,000s": (
        bare(args={f"{number}" * 50: 1 for number in range(10_000)}), "InvalidArguments", "it has no argument 0",
    ),
    "a deep argument": (bare(args={"text": json.loads("[" * 190 + "]" * 190)}), "InvalidArguments", "Expected `str`, got `array`"),
    "another version": (bare(version="9" * 900), "UnsupportedVersion", "RPC version"),
    "a version that is none": (bare(version="1.٣.x"), "UnsupportedVersion", "RPC version"),
    "a private method": (bare(method="__class__"), "NoSuchMethod", "RPC method"),
    "a namespace": (bare(namespace="lite.control"), "UnsupportedVersion", "RPC version"),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERED)
async def test_what_the_contract_does_not_know_is_answered_by_an_error_of_bounded_length(name: str) -> None:
    body, error, words = ANSWERED[name]
    async with net() as made:
        server = await made.serve(Echo())
        failure = (await answer(made, server, body)).failure
        assert failure is not None
        assert len(failure) < 20_000
        found = decode_failure(failure)
        assert type(found).__name__ == error
        assert words in str(found)
        await answers_a_good_request(made, server)


async def test_a_call_whose_time_was_over_before_it_came_ends_and_the_next_is_answered() -> None:
    async with net() as made:
        server = await made.serve(Echo())
        given = Given(bare(_deadline=-1))
        server._on_delivery(given, "hostile")
        await until(lambda: given.settled == "acked")
        await answers_a_good_request(made, server)


async def test_cancellations_that_name_no_call_are_dropped() -> None:
    async with net() as made:
        server = await made.serve(Echo())
        for msg_id in (*WRONG, None, "x" * 1_000_000):
            given = Given(bare(method="cancel", namespace="lite.control", args={"msg_id": msg_id}, _msg_id=None, _reply_q=None))
            server._on_delivery(given, "hostile")
            await until(lambda given=given: bool(given.settled))  # type: ignore[misc]
        await answers_a_good_request(made, server)


# The caller's side -------------------------------------------------------------------------------------------------------


def replied(**keys: Any) -> Callable[[str], bytes]:
    """A reply to the call of that `_msg_id`."""
    return lambda msg_id: json.dumps({"result": None, "failure": None, "ending": True, "_msg_id": msg_id, **keys}).encode()


def failing(cls: Any, module: Any, **keys: Any) -> Callable[[str], bytes]:
    failure = {"class": cls, "module": module, "message": "m", "tb": [], "args": ["m"], "kwargs": {}, **keys}
    return replied(failure=json.dumps(failure))


REPLIES_REFUSED: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "json"),
    "nested deep": (b'{"_msg_id": "m", "result": ' + DEEP + b"}", "json"),
    "a failure nested deep": (b'{"_msg_id": "m", "failure": ' + DEEP + b"}", "json"),
    "half a character": (rb'{"_msg_id": "m", "result": "\ud800"}', "json"),
    "no call": (b'{"result": 1}', "key"),
    "a call that is no text": (b'{"_msg_id": {}, "result": 1}', "key"),
    "an envelope of tomorrow": (b'{"oslo.version": "9", "oslo.message": "{}"}', "envelope"),
    "a long call": (b'{"_msg_id": "' + b"m" * (WORD_MAX + 1) + b'"}', "key"),
}


@pytest.mark.parametrize("name", REPLIES_REFUSED)
async def test_a_reply_that_cannot_be_read_is_counted_and_the_right_one_still_arrives(name: str) -> None:
    body, reason = REPLIES_REFUSED[name]
    async with net() as made:
        await peer(made, lambda _: body, replied(result="right"))
        client = made.client()
        assert await EchoAPI.over(client).within(20).echo(Context(), text="x") == "right"
        assert list(client.counts) == [(Event.REFUSED, reason, 1)]


async def test_a_reply_of_10_mb_is_counted_as_too_large() -> None:
    async with net() as made:
        client = made.client()
        client._on_reply(Given(b" " * (MESSAGE_BYTES_MAX + 1)))
        assert list(client.counts) == [(Event.REFUSED, "size", 1)]


async def test_a_reply_to_nobody_is_counted() -> None:
    async with net() as made:
        await peer(made, lambda _: replied(result="wrong")("another"), replied(result="right"))
        client = made.client()
        assert await EchoAPI.over(client).within(20).echo(Context(), text="x") == "right"
        assert list(client.counts) == [(Event.REPLY_ORPHAN, "", 1)]


FAILURES: dict[str, Callable[[str], bytes]] = {
    "a class of the system": failing("system", "os"),
    "an exception of Python's": failing("SystemExit", "builtins"),
    "a module that nobody imported": failing("Surprise", "antigravity"),
    "a class that is no class": failing("known_faults", "common.base.errors"),
    "names of wrong types": failing(5, ["os"]),
    "a name of half a character": failing("\ud800", "\udfff"),
    "5 MB": failing("Gone", "elsewhere", message="x" * 5_000_000),
    "5 MB that are no JSON": replied(failure="{" * 5_000_000),
    "an empty text": replied(failure=""),
    "a list": replied(failure=[1, 2]),
    "a number": replied(failure=7),
    "a text nested deep": replied(failure=DEEP.decode()),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_an_error_outside_the_list_is_a_remote_error_of_bounded_length(name: str) -> None:
    async with net() as made:
        await peer(made, FAILURES[name])
        client = made.client()
        with pytest.raises(RemoteError) as found:
            await EchoAPI.over(client).within(20).echo(Context(), text="x")
        assert len(str(found.value)) < 2 * FAILURE_TEXT_MAX
        assert str(found.value).encode()
        assert "antigravity" not in sys.modules
        assert len(client._in_flight) == 0


async def test_an_error_of_ours_with_fields_of_any_name_is_still_that_error() -> None:
    fields = {
        "self": 1,
        "message": 2,
        "fields": 3,
        "code": "x",
        "is_remote": False,
        "__class__": 4,
        "no name": 5,
        "kind": ["k"] * 1000,
    }
    async with net() as made:
        await peer(made, failing("Conflict", "common.base.errors", kwargs=fields))
        with pytest.raises(Conflict) as found:
            await EchoAPI.over(made.client()).within(20).echo(Context(), text="x")
        assert found.value.is_remote
        assert found.value.code == Conflict.code


async def test_a_result_of_a_wrong_type_is_an_error_of_bounded_length() -> None:
    async with net() as made:
        await peer(made, replied(result=[["x" * 1_000_000]]))
        with pytest.raises(Fault, match="something else than its contract says") as found:
            await EchoAPI.over(made.client()).within(20).echo(Context(), text="x")
        assert len(str(found.value)) < 2000


# -------------------------------------------------------------------------------------------------------------------------


async def peer(made: Net, *replies: Callable[[str], bytes]) -> None:
    """A server of another make, that gives these replies to every call."""
    transport = made.transport()
    tasks: set[asyncio.Task[None]] = set()

    def on_request(delivery: Delivery) -> None:
        task = asyncio.get_running_loop().create_task(give(delivery))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def give(delivery: Delivery) -> None:
        request = decode_request(delivery.body)
        assert request.msg_id is not None
        assert request.reply_q is not None
        for reply in replies:
            await transport.publish(Message(None, request.reply_q, reply(request.msg_id)), timeout_s=5)
        await delivery.ack()

    shared, *_ = server_queues(made.options, exchange=None, topic="hostile", server="h")
    await transport.consume(shared, prefetch=5, on_delivery=on_request)


async def answer(made: Net, server: RpcServer, body: bytes) -> Reply:
    """What comes to the reply queue that `body` names."""
    seen: asyncio.Queue[Reply] = asyncio.Queue()
    await made.transport().consume(Queue("reply_r"), prefetch=9, on_delivery=lambda d: seen.put_nowait(decode_reply(d.body)))
    server._on_delivery(Given(body), "hostile")
    async with asyncio.timeout(10):
        while not (found := await seen.get()).ending:
            pass
    assert found.msg_id == "m"
    return found


async def answers_a_good_request(made: Net, server: RpcServer) -> None:
    assert await EchoAPI.over(made.client()).within(20).echo(Context(), text="good") == "good"
    await until(lambda: not server._running)
