"""Notifications as oslo.messaging 18.3.1 wrote them, and what is refused."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, strategies as st

from common.wire.envelope import NotAMessage
from common.wire.notification import (
    Notification,
    Priority,
    decode_notification,
    encode_notification,
    redacted,
    routing_key,
)
from common.wire.values import WrongValue

S11 = (
    rb'{"oslo.version": "2.0", "oslo.message": "{\"message_id\": \"caf67837-d2ab-428b-8d5b-959c0d64d22e\", \"publisher_id\": '
    rb"\"compute.host1\", \"event_type\": \"compute.instance.update\", \"priority\": \"SAMPLE\", \"payload\": {\"x\": 1}, "
    rb"\"timestamp\": \"2026-11-23 03:12:56.377195\", \"_unique_id\": \"18f5f3813a464f16abb54fb0a8bd24ec\", \"_context_user\": "
    rb"\"u1\", \"_context_project_id\": \"p1\", \"_context_system_scope\": null, \"_context_project\": \"p1\", "
    rb"\"_context_domain\": null, \"_context_user_domain\": null, \"_context_project_domain\": null, \"_context_is_admin\": "
    rb"false, \"_context_read_only\": false, \"_context_show_deleted\": false, \"_context_auth_token\": null, "
    rb"\"_context_request_id\": \"req-aaaa\", \"_context_global_request_id\": null, \"_context_resource_uuid\": null, "
    rb'\"_context_roles\": [], \"_context_user_identity\": \"u1 p1 - - -\", \"_context_is_admin_project\": true}"}'
)
S12 = (
    b'{"message_id": "528e9ae2-849b-4ba5-a8f3-f62dddf24f12", "publisher_id": "compute.host1", "event_type": '
    b'"compute.instance.create.start", "priority": "INFO", "payload": {"instance_id": 12}, "timestamp": '
    b'"2026-11-23 03:13:00.452704", "_unique_id": "c1848b61bfa646bd965344d967bdccac"}'
)
TYPED = {
    "datetime": datetime(2026, 11, 23, 3, 13, 0, 5, tzinfo=UTC),
    "date": date(2026, 11, 23),
    "time": time(3, 13, tzinfo=timezone(timedelta(hours=1))),
    "decimal": Decimal("1.50"),
    "uuid": UUID("528e9ae2-849b-4ba5-a8f3-f62dddf24f12"),
    "text": "é".encode(),
    "bytes": b"\xff",
}


def opened(body: bytes) -> Any:
    outer = json.loads(body)
    return outer | {"oslo.message": json.loads(outer["oslo.message"])} if "oslo.message" in outer else outer


def given_message(**changes: Any) -> bytes:
    return json.dumps({"event_type": "e", "priority": "INFO", "payload": {}} | changes).encode()


def test_the_sample_of_messagingv2_is_read_and_written_again_the_same() -> None:
    found = decode_notification(S11)
    assert (found.event_type, found.priority, found.payload) == ("compute.instance.update", Priority.SAMPLE, {"x": 1})
    assert (found.publisher_id, found.timestamp) == ("compute.host1", "2026-11-23 03:12:56.377195")
    assert (found.message_id, found.unique_id) == ("caf67837-d2ab-428b-8d5b-959c0d64d22e", "18f5f3813a464f16abb54fb0a8bd24ec")
    assert (found.context["request_id"], found.context["roles"], found.context["user"]) == ("req-aaaa", [], "u1")
    assert opened(encode_notification(found, envelope=True)) == opened(S11)


def test_the_sample_of_messaging_is_read_and_written_again_the_same() -> None:
    found = decode_notification(S12)
    assert (found.event_type, found.priority, found.payload) == (
        "compute.instance.create.start",
        Priority.INFO,
        {"instance_id": 12},
    )
    assert found.context == {}
    assert opened(encode_notification(found, envelope=False)) == opened(S12)


def test_a_token_and_a_catalogue_are_neither_sent_nor_taken() -> None:
    context = {"auth_token": "SECRET", "service_catalog": [{"u": "SECRET"}], "user": "u1"}
    assert redacted(context) == {"auth_token": None, "service_catalog": None, "user": "u1"}
    notification = Notification("e", Priority.INFO, {}, context=context)
    for envelope in (True, False):
        assert b"SECRET" not in encode_notification(notification, envelope=envelope)
    assert decode_notification(given_message(_context_auth_token="SECRET")).context == {"auth_token": None}


def test_without_an_envelope_python_s_types_travel_as_kombu_writes_them() -> None:
    body = encode_notification(Notification("e", Priority.INFO, TYPED), envelope=False)
    assert decode_notification(body).payload == TYPED
    assert json.loads(body)["payload"]["uuid"] == {"__type__": "uuid", "__value__": {"hex": TYPED["uuid"].hex}}  # type: ignore[attr-defined]


def test_in_an_envelope_they_are_text_and_a_tag_means_nothing() -> None:
    found = decode_notification(encode_notification(Notification("e", Priority.INFO, {"at": TYPED["date"]}), envelope=True))
    assert found.payload == {"at": "2026-11-23"}
    tagged = {"__type__": "datetime", "__value__": "2026-11-23"}
    found = decode_notification(encode_notification(Notification("e", Priority.INFO, tagged), envelope=True))
    assert found.payload == tagged


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "body of 1 bytes is not JSON"),
        (b"[]", "body is list"),
        (b'{"oslo.version": "3.0", "oslo.message": "{}"}', "envelope version '3.0'"),
        (b'{"__type__": "decimal", "__value__": "1"}', "body is Decimal"),
        (b"{}", "event_type is missing"),
        (given_message(event_type=5), "event_type is int"),
        (given_message(priority="LOUD"), "priority is 'LOUD'; wanted one of audit, debug"),
        (given_message(priority=None), "priority is missing"),
        (given_message(priority=[]), "priority is list"),
        (given_message(publisher_id={}), "publisher_id is dict"),
        (given_message(_unique_id=7), "_unique_id is int"),
        (given_message(payload={"__type__": "set", "__value__": []}), "__type__ is of no known kind"),
        (given_message(payload={"__type__": [], "__value__": []}), "__type__ is of no known kind"),
        (given_message(payload={"__type__": "datetime", "__value__": "SECRET"}), "__value__ is no datetime"),
        (given_message(payload={"__type__": "uuid", "__value__": {}}), "__value__ is no uuid"),
        (given_message(payload={"__type__": "decimal", "__value__": "x"}), "__value__ is no decimal"),
        (given_message(payload={"__type__": "bytes", "__value__": 1}), "__value__ is no bytes"),
        (given_message(payload={"__type__": "base64", "__value__": "?"}), "__value__ is no base64"),
    ],
)
def test_what_is_no_notification_is_named_and_never_quoted(body: bytes, reason: str) -> None:
    with pytest.raises(NotAMessage) as found:
        decode_notification(body)
    assert str(found.value).startswith(reason)
    assert "SECRET" not in str(found.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["__type__", "__value__", "a"]) | st.text(), inner),
    max_leaves=10,
)


@given(JSON, st.none() | st.text())
def test_any_json_is_a_notification_or_refused_and_never_another_error(value: Any, publisher_id: Any) -> None:
    with suppress(NotAMessage):
        assert decode_notification(given_message(payload=value, publisher_id=publisher_id)).publisher_id == publisher_id


@pytest.mark.parametrize("envelope", [True, False])
@pytest.mark.parametrize("payload", [object(), float("nan"), "\ud800", {"a": [{1, object()}]}])
def test_a_payload_without_a_form_on_the_wire_is_named(payload: Any, envelope: bool) -> None:
    with pytest.raises(WrongValue, match="cannot be sent"):
        encode_notification(Notification("e", Priority.INFO, payload), envelope=envelope)


def test_the_key_and_the_message_write_the_priority_in_their_own_ways() -> None:
    assert routing_key("notifications", Priority.WARN) == "notifications.warn"
    body = encode_notification(Notification("e", Priority.WARN, {}), envelope=False)
    assert json.loads(body)["priority"] == "WARN"
