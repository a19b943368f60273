"""Errors on the wire."""

import json

import pytest

import nova_lite.errors  # noqa: F401  # a part of what known_faults finds
from cinder_lite.errors import InvalidConnectorException, VolumeNotFound
from common.base.errors import Fault, Timeout, known_faults
from common.wire.failure import NoSuchMethod, RemoteError, decode_failure, encode_failure


def test_a_fault_arrives_as_its_class_with_message_and_fields_and_is_marked_remote() -> None:
    found = decode_failure(encode_failure(VolumeNotFound(volume_id="v1")))
    assert type(found) is VolumeNotFound
    assert (str(found), found.volume_id, found.is_remote) == ("Volume v1 could not be found.", "v1", True)


def test_an_openstack_client_finds_cinder_s_own_name() -> None:
    sent = json.loads(encode_failure(InvalidConnectorException(missing="initiator")))
    assert (sent["module"], sent["class"]) == ("cinder.exception", "InvalidConnectorException")
    assert sent["message"] == sent["args"][0] == "Connector doesn't have required information: initiator"
    assert sent["kwargs"] == {"missing": "initiator", "code": 400}
    assert sent["tb"] == []


def test_a_forwarded_remote_error_looks_original_and_loses_its_traceback() -> None:
    sent = json.dumps(
        {
            "class": "VolumeNotFound_Remote",
            "module": "cinder.exception_Remote",
            "message": "Volume v1 could not be found.\nTraceback (most recent call last):\n  File secret.py",
            "args": [],
            "kwargs": {"volume_id": "v1"},
        }
    )
    assert str(decode_failure(sent)) == "Volume v1 could not be found."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"class": 5, "module": null, "kwargs": [], "args": 3}',
        "[" * 5000,
        '{"kwargs": {"self": 1, "a b": 2}}',
    ],
)
def test_an_error_that_cannot_be_read_is_still_an_error(text: str) -> None:
    assert isinstance(decode_failure(text), RemoteError)


def test_nothing_but_known_faults_is_built_from_what_a_peer_says() -> None:
    found = decode_failure(json.dumps({"class": "system", "module": "os", "message": "ls", "args": ["ls"], "kwargs": {}}))
    assert type(found) is RemoteError
    assert str(found) == "Remote error: system ls"


def test_a_foreign_exception_is_named_without_its_traceback() -> None:
    with pytest.raises(KeyError) as raised:
        dict[str, str]()["volume-1"]
    text = encode_failure(raised.value)
    assert "test_failure.py" not in text
    assert json.loads(text)["class"] == "KeyError"


def test_no_two_faults_share_a_name_on_the_wire() -> None:
    ours = ("common.", "nova_lite.", "cinder_lite.")  # not those of other tests in this process
    names = [fault.identity() for fault in known_faults() if fault.__module__.startswith(ours)]
    assert len(names) == len(set(names)), sorted({str(name) for name in names if names.count(name) > 1})


def test_oslo_s_own_errors_have_oslo_s_names() -> None:
    assert NoSuchMethod.identity() == ("oslo_messaging.rpc.dispatcher", "NoSuchMethod")


def test_a_remote_timeout_keeps_its_words() -> None:
    found = decode_failure(encode_failure(Timeout(what="tgtadm", timeout_s=3)))
    assert isinstance(found, Timeout)
    assert "within 3 s" in str(found)


def test_the_message_of_every_fault_is_a_template_with_braces_that_close() -> None:
    for fault in known_faults():
        assert fault.__doc__, fault
        assert "{" not in fault.__doc__.format_map(Anything()), fault
    assert issubclass(VolumeNotFound, Fault)


class Anything(dict[str, object]):
    def __missing__(self, key: str) -> object:
        return 1
