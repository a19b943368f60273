"""Our bytes through oslo.messaging's own readers, and its through ours: no broker."""

import json
from typing import Any

import pytest

from common.base.errors import NotFound
from common.wire.failure import RemoteError, decode_failure, encode_failure
from common.wire.messages import Reply, Request, decode_reply, decode_request, encode_reply, encode_request
from tests.compat.exceptions import VolumeNotFound
from tests.support.oslo import RemoteError as OsloRemoteError, amqp, drivers

OURS = Request(
    "echo", {"a": 1, "b": "é", "c": [1, None, 2.5]}, unique_id="u", version="6.0", namespace="n", msg_id="m", reply_q="reply_q",
    monitor_timeout_s=2, deadline_s=5, context={"user_id": "u1", "roles": ["a"]},
)  # fmt: skip


class Gone(NotFound):
    """Instance {instance_id} could not be found."""

    wire = ("tests.compat.exceptions", "VolumeNotFound")


def theirs(message: dict[str, Any]) -> bytes:
    return json.dumps(drivers.serialize_msg(message)).encode()


def test_oslo_reads_our_request_with_its_context() -> None:
    message = drivers.deserialize_msg(json.loads(encode_request(OURS)))
    context = amqp.unpack_context(message)
    assert context.to_dict() == {"user_id": "u1", "roles": ["a"], "client_timeout": 2}
    assert (context.msg_id, context.reply_q) == ("m", "reply_q")
    assert message == {
        "method": "echo", "args": OURS.args, "version": "6.0", "namespace": "n", "_unique_id": "u", "_deadline": 5,
    }  # fmt: skip


def test_we_read_oslo_s_request_with_its_context() -> None:
    message = {"method": "echo", "args": {"b": "é"}, "_msg_id": "m", "_reply_q": "reply_q", "_timeout": None, "_unique_id": "u"}
    amqp.pack_context(message, {"user_id": "u1"})
    assert decode_request(theirs(message)) == Request(
        "echo", {"b": "é"}, unique_id="u", msg_id="m", reply_q="reply_q", context={"user_id": "u1"}
    )


@pytest.mark.parametrize(
    "reply", [Reply("m", result={"é": [1]}, unique_id="u"), Reply("m", ending=False), Reply("m", failure="{}")]
)
def test_a_reply_is_the_same_on_both_sides(reply: Reply) -> None:
    message = drivers.deserialize_msg(json.loads(encode_reply(reply)))
    assert message.keys() == {"result", "failure", "ending", "_msg_id", "_unique_id"}
    assert decode_reply(theirs(message)) == reply


def test_oslo_rebuilds_our_error_as_the_class_that_its_client_allows() -> None:
    text = encode_failure(Gone(instance_id="i-1"))
    found = drivers.deserialize_remote_exception(text, ["tests.compat.exceptions"])
    assert isinstance(found, VolumeNotFound)
    assert str(found).startswith("Instance i-1 could not be found.")
    assert found.kwargs == {"instance_id": "i-1", "code": 404}
    assert isinstance(drivers.deserialize_remote_exception(text, []), OsloRemoteError)


def serialized(error: Exception) -> str:
    return str(drivers.serialize_remote_exception((type(error), error, None)))


def test_we_rebuild_oslo_s_error_without_its_traceback() -> None:
    found: Any = decode_failure(serialized(VolumeNotFound(instance_id="i-1")))
    assert (type(found), str(found), found.instance_id) == (Gone, "Instance i-1 could not be found.", "i-1")
    forwarded = drivers.deserialize_remote_exception(encode_failure(Gone(instance_id="i-2")), ["tests.compat.exceptions"])
    again: Any = decode_failure(serialized(forwarded))
    assert (type(again), again.instance_id) == (Gone, "i-2")
    assert str(again).strip() == "Instance i-2 could not be found."


def test_an_error_that_we_do_not_know_is_a_remote_error() -> None:
    found: Any = decode_failure(serialized(KeyError("x")))
    assert type(found) is RemoteError
    assert found.exc_type == "KeyError"
    assert "Traceback" not in str(found)
