"""The words of open-iscsi, as iscsiadm 2.1.8 writes them."""

import pytest

from nova_lite.brick.iscsi_text import Session, parse_sessions, volume_of_target, with_settings

SESSIONS = """\
tcp: [1] 10.0.0.4:3260,1 iqn.2010-10.org.openstack:volume-aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee (non-flash)
iser: [12] [fd00::4]:3260,1 iqn.x:other (flash)
tcp: [3] 10.0.0.5:3261,2 iqn.old:no-flash-word
iscsiadm: a word in between
"""
RECORD = """\
# BEGIN RECORD 2.1.8
node.name = iqn.x:v
node.startup = manual
node.session.scan = auto
node.session.auth.authmethod = None
# END RECORD
"""


def test_sessions_are_read_whatever_their_transport_and_address() -> None:
    assert parse_sessions(SESSIONS) == [
        Session(1, "10.0.0.4:3260", "iqn.2010-10.org.openstack:volume-aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"),
        Session(12, "[fd00::4]:3260", "iqn.x:other"),
        Session(3, "10.0.0.5:3261", "iqn.old:no-flash-word"),
    ]


def test_no_sessions_are_none() -> None:
    assert parse_sessions("iscsiadm: No active sessions.\n") == []
    assert parse_sessions("") == []


def test_settings_take_the_place_of_those_that_are_there_and_others_stay() -> None:
    changed = with_settings(RECORD, {"node.startup": "automatic", "node.session.auth.password": "a = b"})
    assert changed.splitlines() == [
        "# BEGIN RECORD 2.1.8",
        "node.name = iqn.x:v",
        "node.session.scan = auto",
        "node.session.auth.authmethod = None",
        "node.startup = automatic",
        "node.session.auth.password = a = b",
        "# END RECORD",
    ]
    assert with_settings(changed, {"node.startup": "automatic", "node.session.auth.password": "a = b"}) == changed


def test_a_value_of_two_lines_would_be_another_setting_and_is_refused() -> None:
    with pytest.raises(ValueError, match="one line"):
        with_settings(RECORD, {"node.session.auth.password": "a\nnode.startup = automatic"})


def test_a_target_of_cinders_names_its_volume() -> None:
    volume = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
    assert volume_of_target(f"iqn.2010-10.org.openstack:volume-{volume}") == volume
    assert volume_of_target(f"iqn.2010-10.org.openstack:volume-{volume}x") is None
    assert volume_of_target("iqn.x:disk1") is None
