"""Which notifications a filter lets through: as oslo.messaging's."""

from typing import Any

import pytest

from common.notify import NotificationFilter
from tests.support.oslo import OsloNotificationFilter

GIVEN: dict[str, Any] = {
    "context": {"user": "u1", "roles": ["admin"]},
    "publisher_id": "compute.host1",
    "event_type": "compute.instance.create.start",
    "metadata": {"message_id": "m", "timestamp": "2026-11-23"},
    "payload": {"state": "active", "size": 5, "nothing": None},
}


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"event_type": r"compute\.instance\..*"}, True),
        ({"event_type": "instance"}, False),  # at the beginning only
        ({"event_type": "compute$"}, False),
        ({"publisher_id": "^compute"}, True),
        ({"publisher_id": "cinder"}, False),
        ({"context": {"user": "u"}}, True),
        ({"context": {"tenant": ".*"}}, False),
        ({"context": {"roles": "admin"}}, False),  # no text
        ({"payload": {"state": "active", "size": ".*"}}, False),
        ({"payload": {"state": "^active$"}}, True),
        ({"payload": {"nothing": ".*"}}, False),
        ({"metadata": {"timestamp": "2026"}, "payload": {"state": "act"}}, True),
        ({"metadata": {"timestamp": "2025"}, "payload": {"state": "act"}}, False),
    ],
)
def test_a_filter_lets_through_what_oslo_s_does(rule: dict[str, Any], matches: bool) -> None:
    assert NotificationFilter(**rule).match(**GIVEN) is matches
    assert OsloNotificationFilter(**rule).match(**GIVEN) is matches


@pytest.mark.parametrize("payload", ["state", ["state"], None, 5])
def test_a_payload_that_is_no_object_matches_no_rule_for_its_parts(payload: Any) -> None:
    assert not NotificationFilter(payload={"state": ".*"}).match(**{**GIVEN, "payload": payload})
    assert NotificationFilter(event_type="compute").match(**{**GIVEN, "payload": payload})


def test_a_publisher_without_a_name_matches_no_rule_for_it() -> None:
    assert not NotificationFilter(publisher_id=".*").match(**{**GIVEN, "publisher_id": None})
