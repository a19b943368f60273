"""What tgt 1.0.85 printed, word for word, and what is read out of it."""

import sys

import pytest

from cinder_lite.ports.target import Chap
from cinder_lite.targets.iscsi_names import Portal
from cinder_lite.targets.tgt_text import (
    Connection,
    Lun,
    TargetInfo,
    new_account_request,
    parse_accounts,
    parse_connections,
    parse_portals,
    parse_targets,
    refusal_in,
    shown_mb,
)

TARGETS = """\
Target 1: iqn.2010-10.org.openstack:volume-1
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 2
            Initiator: iqn.1993-08.org.debian:01:vm1 alias: none
            Connection: 0
                IP Address: 127.0.0.1
    LUN information:
        LUN: 0
            Type: controller
            SCSI ID: IET     00010000
            SCSI SN: beaf10
            Size: 0 MB, Block size: 1
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: No
            SWP: No
            Thin-provisioning: No
            Backing store type: null
            Backing store path: None
            Backing store flags:\x20
        LUN: 1
            Type: disk
            SCSI ID: IET     00010001
            SCSI SN: beaf11
            Size: 67 MB, Block size: 512
            Online: Yes
            Removable media: No
            Prevent removal: No
            Readonly: No
            SWP: No
            Thin-provisioning: No
            Backing store type: rdwr
            Backing store path: /var/lib/vol: umes/volume-1
            Backing store flags:\x20
    Account information:
        u1
        u2 (outgoing)
    ACL information:
        iqn.1993-08.org.debian:01:vm1
        192.0.2.7
Target 3: iqn.2010-10.org.openstack:volume-2
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
    LUN information:
        LUN: 0
            Type: controller
            Backing store path: None
    Account information:
    ACL information:
"""


def test_targets_are_read_with_all_that_decides_who_gets_in_and_to_what() -> None:
    assert parse_targets(TARGETS) == (
        TargetInfo(
            tid=1,
            iqn="iqn.2010-10.org.openstack:volume-1",
            state="ready",
            nexuses=("iqn.1993-08.org.debian:01:vm1",),
            luns=(Lun(1, "/var/lib/vol: umes/volume-1", is_online=True),),
            accounts=("u1",),
            acl=("iqn.1993-08.org.debian:01:vm1", "192.0.2.7"),
        ),
        TargetInfo(tid=3, iqn="iqn.2010-10.org.openstack:volume-2", state="ready"),
    )


def test_a_tgtd_without_targets_says_nothing() -> None:
    assert parse_targets("") == ()


def test_a_disk_that_nothing_backs_has_no_path() -> None:
    text = TARGETS.replace("/var/lib/vol: umes/volume-1", "None").replace("Online: Yes", "Online: No")
    assert parse_targets(text)[0].luns == (Lun(1, None, is_online=False),)


def test_portals_are_read_the_fallback_of_tgtd_among_them() -> None:
    assert parse_portals("Portal: 127.0.0.1:33871,1\n") == (Portal("127.0.0.1", 33871),)
    assert parse_portals("Portal: [::]:3260,1\nPortal: 0.0.0.0:3260,1\n") == (Portal("::"), Portal("0.0.0.0"))


def test_every_connection_of_every_session_is_read() -> None:
    text = """\
Session: 2
    Connection: 0
        Initiator: iqn.1993-08.org.debian:01:vm1
        IP Address: 127.0.0.1
Session: 5
    Connection: 1
        Initiator: iqn.1993-08.org.debian:01:vm2
        RDMA IP Address: 127.0.0.1
"""
    first, second = "iqn.1993-08.org.debian:01:vm1", "iqn.1993-08.org.debian:01:vm2"
    assert parse_connections(text) == (Connection(2, 0, first), Connection(5, 1, second))
    assert parse_connections("") == ()


def test_accounts_are_read() -> None:
    assert parse_accounts("Account list:\n    u2\n    u1\n") == ("u2", "u1")
    assert parse_accounts("") == ()


def test_a_new_account_is_asked_for_in_the_layout_of_tgtadm() -> None:
    request = new_account_request(Chap("u1", "secretsecret12"))
    assert request[:8] == bytes([7, 0, 0, 0, 0, 0, 0, 0])
    assert request[8:72] == b"iscsi".ljust(64, b"\0")
    assert request[72:76] == len(request).to_bytes(4, sys.byteorder)
    assert request[120:] == b"user=u1,password=secretsecret12\0"


@pytest.mark.parametrize("chap", [Chap("a,b", "secretsecret12"), Chap("a", "secret\0secret1")])
def test_a_pair_that_tgtd_would_take_for_another_is_refused_and_not_repeated(chap: Chap) -> None:
    with pytest.raises(ValueError) as caught:
        new_account_request(chap)
    assert chap.password not in str(caught.value)


def test_answers_are_read() -> None:
    assert refusal_in(bytes([0, 0, 0, 0, 8, 0, 0, 0])) is None
    assert refusal_in(bytes([14, 0, 0, 0, 8, 0, 0, 0])) == "this account already exists"
    assert refusal_in(bytes([2, 0, 0, 0, 8, 0, 0, 0])) == "error 2"
    with pytest.raises(ValueError):
        refusal_in(b"")


@pytest.mark.parametrize(
    ("size", "shown"), [(1 << 20, 1), (2 << 20, 2), (64 << 20, 67), (1 << 30, 1074), (20 << 30, 21475), (0, 0)]
)
def test_sizes_are_shown_as_tgtd_shows_them(size: int, shown: int) -> None:
    assert shown_mb(size) == shown
