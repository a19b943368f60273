"""Numbers, texts and depths that JSON or Python can hardly hold: named at the door, on either side."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from common.base.errors import Invalid
from common.wire.envelope import NotAMessage
from common.wire.failure import decode_failure, encode_failure
from common.wire.messages import Reply, decode_reply, decode_request, encode_reply
from common.wire.values import WrongValue, to_primitive


def enveloped(inner: str) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": inner}).encode()


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("form", [enveloped, str.encode])
def test_oslo_s_nan_and_infinity_are_read(form: Callable[[str], bytes]) -> None:
    args = decode_request(form('{"method": "x", "args": {"a": NaN, "b": -Infinity}}')).args
    assert math.isnan(args["a"])
    assert args["b"] == -math.inf


@pytest.mark.parametrize(
    "args",
    [
        "\\ud800", "NaN \\ud800", "\ud800",
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_is_no_message(args: str) -> None:
    with pytest.raises(NotAMessage):
        decode_request(enveloped(f'{{"method": "x", "args": {{"a": "{args}"}}}}'))


@pytest.mark.parametrize("number", ["9" * 5000, "1e999"])
def test_a_number_that_does_not_fit_is_no_message(number: str) -> None:
    with pytest.raises(NotAMessage):
        decode_request(enveloped(f'{{"method": "x", "args": {{"a": {number}}}}}'))


@pytest.mark.parametrize("seconds", ["9" * 400, "1e308", "NaN", "Infinity", "true", '"5"', "null"])
def test_a_time_that_nobody_waits_counts_as_none(seconds: str) -> None:
    request = decode_request(enveloped(f'{{"method": "x", "_timeout": {seconds}, "_deadline": {seconds}}}'))
    assert (request.monitor_timeout_s, request.deadline_s) == (None, None)


@pytest.mark.parametrize("depth", [*range(900, 1010, 5), 5000])
@pytest.mark.parametrize("key", ["failure", "result", "oslo.version"])
def test_any_depth_is_a_reply_or_no_message(key: str, depth: int) -> None:
    body = f'{{"_msg_id": "m", "oslo.message": "{{}}", "{key}": {"[" * depth}{"]" * depth}}}'.encode()
    try:
        decode_reply(body)
    except NotAMessage as exc:
        assert len(str(exc)) < 200  # noqa: PT017  # both ends are right


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), "\ud800", {"\ud800": 1}, 10**5000, object(), {None: 1}, {(1, 2): 3}, nested(5000), {"a": [math.nan]}],
    ids=range(10),
)  # fmt: skip
def test_what_has_no_json_form_is_refused_where_an_error_can_still_be_answered(value: object) -> None:
    with pytest.raises(WrongValue, match="cannot be sent"):
        to_primitive(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(WrongValue):
        to_primitive(value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.uuids() | st.decimals(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=10,
)


@given(anything)
def test_what_passes_as_primitive_is_always_encoded_and_arrives_equal(value: object) -> None:
    try:
        primitive = to_primitive(value)
    except WrongValue:
        return
    assert decode_reply(encode_reply(Reply("m", result=primitive))).result == json.loads(json.dumps(primitive))


@pytest.mark.parametrize("depth", range(900, 1000))
def test_no_depth_passes_the_check_and_fails_in_the_encoder(depth: int) -> None:
    try:
        primitive = to_primitive(nested(depth))
    except WrongValue:
        return
    assert encode_reply(Reply("m", result=primitive))


@given(st.dictionaries(st.text(), anything), st.text())
def test_any_error_is_sent_and_read(fields: dict[str, Any], message: str) -> None:
    text = encode_failure(Invalid(message, **fields))
    found = decode_failure(decode_reply(encode_reply(Reply("m", failure=text))).failure or "")
    assert type(found) is Invalid


def test_a_field_that_cannot_even_be_shown_is_named_by_its_class() -> None:
    found = decode_failure(encode_failure(Invalid("m", size=10**5000)))
    assert isinstance(found, Invalid)
    assert found.size == "<int>"


json_like = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
keys = st.sampled_from(["method", "args", "_msg_id", "_reply_q", "_timeout", "_deadline", "_unique_id", "version", "namespace",
                        "failure", "ending", "result", "oslo.version", "oslo.message", "_context_x"])  # fmt: skip


@given(st.dictionaries(keys, json_like), st.booleans())
def test_any_object_gives_a_message_or_not_a_message(message: dict[str, Any], is_enveloped: bool) -> None:
    text = json.dumps(message)
    for decode in (decode_request, decode_reply):
        try:
            decode(enveloped(text) if is_enveloped else text.encode())
        except NotAMessage:
            continue


@given(st.text() | json_like.map(json.dumps))
def test_any_failure_text_gives_an_error(text: str) -> None:
    decode_failure(text)
