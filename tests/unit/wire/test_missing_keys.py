"""Messages that lack keys, and what each missing key means to oslo.messaging."""

import json
from typing import Any

import pytest

from common.wire.envelope import NotAMessage
from common.wire.failure import RemoteError, decode_failure
from common.wire.messages import Request, decode_reply, decode_request, encode_request


def body(**keys: Any) -> bytes:
    return json.dumps(keys).encode()


def test_a_reply_without_ending_is_a_sign_of_life_as_oslo_takes_it() -> None:
    assert decode_reply(body(_msg_id="m", result=None, failure=None)).ending is False
    assert decode_reply(body(_msg_id="m", ending=True)).ending is True


@pytest.mark.parametrize(("found", "said"), [({}, "_msg_id is missing"), ({"_msg_id": 5}, "_msg_id is int")])
def test_a_reply_to_no_call_is_refused(found: dict[str, Any], said: str) -> None:
    with pytest.raises(NotAMessage, match=said):
        decode_reply(body(**found))


@pytest.mark.parametrize("keys", [{"_msg_id": "m"}, {"_reply_q": "reply_q"}, {}])
def test_a_request_that_says_not_where_or_to_what_the_reply_goes_is_a_cast(keys: dict[str, str]) -> None:
    assert not decode_request(body(method="x", args={}, **keys)).is_call


def test_a_request_says_only_what_it_knows_and_a_cast_nothing_of_replies() -> None:
    message = json.loads(json.loads(encode_request(Request("x", {})))["oslo.message"])
    assert set(message) == {"method", "args", "_unique_id"}
    message = json.loads(json.loads(encode_request(Request("x", {}, msg_id="m", reply_q="reply_q")))["oslo.message"])
    assert message["_timeout"] is None


@pytest.mark.parametrize(("cls", "module"), [("Gone_Remote", "far.away"), ("Gone", "far_Remote")])
def test_a_class_whose_own_name_ends_like_a_forwarded_one_keeps_it(cls: str, module: str) -> None:
    found = decode_failure(json.dumps({"class": cls, "module": module, "message": "m", "args": [], "kwargs": {}}))
    assert isinstance(found, RemoteError)
    assert (found.exc_type, found.module) == (cls, module)
