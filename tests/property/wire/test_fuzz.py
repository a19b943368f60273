"""Hostile input: whatever bytes come, a decoder gives a value or its own error, at once."""

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from common.base.limits import MESSAGE_BYTES_MAX, NESTING_MAX, WORD_MAX
from common.wire.envelope import NotAMessage, unpack
from common.wire.failure import decode_failure
from common.wire.messages import decode_reply, decode_request
from common.wire.values import WrongValue, from_primitive
from tests.property.wire.targets import TYPES, WIRE_TARGETS, seeds

KEYS = [
    "method", "args", "namespace", "version", "_msg_id", "_reply_q", "_timeout", "_deadline", "_unique_id", "_context_request_id",
    "_context_roles", "_context_user_id", "_context_traceparent", "result", "failure", "ending", "oslo.version", "oslo.message",
    "class", "module", "message", "kwargs", "tb",
]  # fmt: skip
WORDS = [
    "2.0",
    "1.0",
    "reply_q",
    "attach_volume",
    "get",
    "Conflict",
    "common.base.errors",
    "builtins",
    "KeyError",
    "\ud800",
    "",
    "9" * 5000,
]
SEEDS = tuple(seeds())
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(WORDS) | st.just(10**400)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6), max_leaves=12
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=10)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Objects with keys of the protocol and values of any type, in an envelope or bare, with or without escapes, or damaged."""
    inner = json.dumps(draw(objects), ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        inner = json.dumps({"oslo.version": "2.0", "oslo.message": inner}, ensure_ascii=draw(st.booleans()))
    return inner.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good message with a piece of it replaced."""
    data = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 40)))
    return (
        data[:start] + draw(st.binary(max_size=8) | st.sampled_from([b"null", b"[", b"{}", b"NaN", b"\\ud800", b'"'])) + data[end:]
    )


inputs = st.binary(max_size=200) | messages() | damaged()


@pytest.mark.parametrize("target", WIRE_TARGETS)
@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(data=inputs)
def test_any_bytes_give_a_value_or_the_decoder_s_own_error(target: str, data: bytes) -> None:
    WIRE_TARGETS[target](data)


@settings(max_examples=300, deadline=2000)
@given(found=values)
def test_any_value_is_one_of_the_contract_s_types_or_a_wrong_value(found: Any) -> None:
    for wanted in TYPES:
        try:
            from_primitive(found, wanted)
        except WrongValue:
            continue


BOMBS = {
    "lists": b"[" * 100_000 + b"]" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "open lists": b"[" * 100_000,
    "just too deep": b'{"a":' + b"[" * NESTING_MAX + b"]" * NESTING_MAX + b"}",
    "too deep for Python's reader": b'{"nan": NaN, "a":' + b"[" * 900 + b"]" * 900 + b"}",
    "digits": b'{"a": ' + b"9" * 1_000_000 + b"}",
    "exponent": b'{"a": 1e999999999}',
    "many keys": b"{" + b",".join(b'"k%d":{}' % number for number in range(200_000)) + b"}",
    "many lists": b'{"a":[' + b"[]," * 1_000_000 + b"[]]}",
    "one long word": b'{"method":"' + b"m" * 7_000_000 + b'"}',
    "escapes": b'{"method":"' + rb"\u00e9" * 1_000_000 + b'"}',
    "too large": b" " * (MESSAGE_BYTES_MAX + 1),
    "zeros": b"\0" * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("target", WIRE_TARGETS)
def test_no_bytes_take_long_or_much(target: str, name: str) -> None:
    data = BOMBS[name]
    tracemalloc.start()
    started_s = time.process_time()
    try:
        WIRE_TARGETS[target](data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - started_s < 10
    assert peak < 40 * MESSAGE_BYTES_MAX


def test_a_message_is_refused_one_level_too_deep_and_taken_at_the_limit() -> None:
    inner = NESTING_MAX - 1
    taken = b'{"a":' + b"[" * inner + b"]" * inner + b"}"
    assert unpack(taken).keys() == {"a"}
    with pytest.raises(NotAMessage, match=f"nested deeper than {NESTING_MAX}"):
        unpack(b'{"a":' + b"[" * NESTING_MAX + b"]" * NESTING_MAX + b"}")


@pytest.mark.parametrize("key", ["method", "_msg_id", "_unique_id", "version", "namespace"])
def test_words_that_a_server_remembers_or_logs_have_a_length(key: str) -> None:
    words = {"method": "m", key: "x" * WORD_MAX}
    decode_request(json.dumps(words).encode())
    with pytest.raises(NotAMessage, match=f"{key} has {WORD_MAX + 1} characters"):
        decode_request(json.dumps({**words, key: "x" * (WORD_MAX + 1)}).encode())


def test_an_error_with_half_a_character_can_be_written_by_whoever_gets_it() -> None:
    text = json.dumps({"class": "Conflict", "module": "common.base.errors", "message": "a\ud800", "kwargs": {"kind": "\udfff"}})
    error = decode_failure(text)
    assert (str(error), error.kind) == ("a?", "?")  # type: ignore[attr-defined]  # a field


def test_a_reply_s_words_are_bounded_too() -> None:
    with pytest.raises(NotAMessage, match="_msg_id has"):
        decode_reply(json.dumps({"_msg_id": "m" * (WORD_MAX + 1)}).encode())
