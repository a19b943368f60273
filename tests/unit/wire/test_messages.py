"""oslo.messaging's messages as they were captured, and what any other bytes give."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from common.wire.envelope import NotAMessage, pack, unpack
from common.wire.messages import Reply, Request, decode_reply, decode_request, encode_reply, encode_request

CALL = (
    b'{"oslo.version": "2.0", "oslo.message": "{\\"method\\": \\"echo\\", \\"args\\": {\\"a\\": 1, \\"b\\": \\"\\\\u00e9\\", \\"c\\": [1, null, 2.5]}, '
    b'\\"version\\": \\"6.0\\", \\"_msg_id\\": \\"70563079136c43c4b626e25acedb186a\\", \\"_reply_q\\": \\"reply_4132079e01b64c37a1ec1d3e59365ace\\", '
    b'\\"_timeout\\": null, \\"_unique_id\\": \\"26302158668942bf9f2cb9b5a9392c59\\", \\"_context_request_id\\": \\"req-1\\", '
    b'\\"_context_user_id\\": \\"u1\\", \\"_context_project_id\\": \\"p1\\", \\"_context_is_admin\\": true}"}'
)
CAST = (
    b'{"oslo.version": "2.0", "oslo.message": "{\\"method\\": \\"note\\", \\"args\\": {\\"x\\": 1}, \\"version\\": \\"6.0\\", '
    b'\\"_unique_id\\": \\"19816bd868094eb4b1ade7a315eeb2a0\\", \\"_context_request_id\\": \\"req-1\\", \\"_context_user_id\\": \\"u1\\", '
    b'\\"_context_project_id\\": \\"p1\\", \\"_context_is_admin\\": true}"}'
)
MONITORED = CALL.replace(b'\\"_timeout\\": null', b'\\"_timeout\\": 2')
REPLY = (
    b'{"oslo.version": "2.0", "oslo.message": "{\\"result\\": null, \\"failure\\": null, \\"ending\\": true, '
    b'\\"_msg_id\\": \\"b51be73b9e92464e982855945561f24c\\", \\"_unique_id\\": \\"a1f7abde011d4d7d8fa9850a55f0c014\\"}"}'
)
BEAT = REPLY.replace(b'\\"ending\\": true', b'\\"ending\\": false')


def mapping(body: bytes) -> tuple[str, dict[str, object]]:
    outer = json.loads(body)
    return outer["oslo.version"], json.loads(outer["oslo.message"])


@pytest.mark.parametrize("golden", [CALL, CAST, MONITORED])
def test_a_captured_request_is_read_and_written_again_equal(golden: bytes) -> None:
    request = decode_request(golden)
    assert request.is_call is (golden is not CAST)
    assert mapping(encode_request(request)) == mapping(golden)


@pytest.mark.parametrize("golden", [REPLY, BEAT])
def test_a_captured_reply_is_read_and_written_again_equal(golden: bytes) -> None:
    reply = decode_reply(golden)
    assert reply.ending is (golden is REPLY)
    assert mapping(encode_reply(reply)) == mapping(golden)


def test_a_body_without_envelope_is_itself_the_message() -> None:
    assert decode_request(b'{"method": "x", "args": {}}').method == "x"


@pytest.mark.parametrize("version", ["2.1", "1.0", "3.0", 2, None])
def test_another_envelope_version_is_refused(version: object) -> None:
    with pytest.raises(NotAMessage, match=r"wanted 2\.0"):
        unpack(json.dumps({"oslo.version": version, "oslo.message": "{}"}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"oslo.version":"2.0","oslo.message":{}}',
        b"{}",
        b'{"method": 5}',
        b'{"method":"x","args":[]}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_what_is_no_request_is_named_and_never_quoted(body: bytes) -> None:
    with pytest.raises(NotAMessage) as refused:
        decode_request(body)
    assert len(str(refused.value)) < 200


@given(st.binary(max_size=300))
def test_any_bytes_give_a_request_or_not_a_message(body: bytes) -> None:
    for decode in (decode_request, decode_reply):
        try:
            decode(body)
        except NotAMessage:
            continue


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), children, max_size=4)
    ),
    max_leaves=20,
)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(
    st.builds(
        Request,
        method=words,
        args=st.dictionaries(words, json_values, max_size=4),
        unique_id=words,
        namespace=st.none() | words,
        version=st.none() | words,
        msg_id=words,
        reply_q=words.map(lambda word: f"reply_{word}"[:255]),
        deadline_s=st.none() | st.floats(0, 1e6),
        context=st.dictionaries(words, json_values, max_size=4),
    )
)
def test_every_request_comes_back_as_it_was(request: Request) -> None:
    assert decode_request(encode_request(request)) == request


@given(st.builds(Reply, msg_id=words, result=json_values, failure=st.none() | words, ending=st.booleans(), unique_id=words))
def test_every_reply_comes_back_as_it_was(reply: Reply) -> None:
    assert decode_reply(encode_reply(reply)) == reply


odd: st.SearchStrategy[object] = st.sampled_from([
    None, True, False, 0, -1, 1.5, 10**9, 10**9 + 1, -(10**30), 1e300, "", "x", "reply_x", "x" * 1000, "x" * 1001, [], ["a", None],
    {}, {"a": {"b": []}}, [[[]]] * 210,
])  # fmt: skip
keys = st.sampled_from([
    "method", "args", "namespace", "version", "_msg_id", "_reply_q", "_timeout", "_deadline", "_unique_id", "result", "failure",
    "ending", "_context_request_id", "_context_user_id", "_context_user", "_context_project_id", "_context_project",
    "_context_is_admin", "_context_roles", "_context_fence", "_context_traceparent", "_context_tracestate", "_context_other", "other",
])  # fmt: skip
usual: dict[str, object] = {"method": "m", "args": {}, "_unique_id": "u", "_msg_id": "i", "_reply_q": "reply_q", "_timeout": None}


def outcome_of(decode: Callable[[bytes], Request | Reply], body: bytes) -> object:
    try:
        return decode(body)
    except NotAMessage as exc:
        return str(exc), exc.kind


@settings(max_examples=400)
@given(usual=st.sampled_from([usual, usual | {"result": 1, "failure": None}, {}]), changes=st.dictionaries(keys, odd, max_size=4))
def test_the_short_way_through_an_envelope_finds_the_same_as_the_long_one(
    usual: dict[str, object], changes: dict[str, object]
) -> None:
    """A message without an envelope is always read key by key."""
    message = usual | changes
    for decode in (decode_request, decode_reply):
        assert outcome_of(decode, pack(message)) == outcome_of(decode, json.dumps(message).encode())


def test_a_value_that_json_does_not_know_is_refused_by_the_sender() -> None:
    with pytest.raises(TypeError):
        pack({"result": object()})
