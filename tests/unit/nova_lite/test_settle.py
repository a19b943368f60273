"""What a host's reconciler decides: every row of the table at the head of nova_lite.domain.settle, and what holds for all."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, strategies as st

from common.base.settling import Busy
from nova_lite.contract import HostReport
from nova_lite.domain.settle import Facts, InstanceFact, MappingFact, Mend, VolumeFact, settle

NOW = datetime(2026, 11, 28, 12)  # noqa: DTZ001 - as rows have it
OLD, YOUNG = NOW - timedelta(minutes=5), NOW - timedelta(seconds=19)
S, V, W = ("00000000-0000-4000-8000-00000000000" + digit for digit in "123")
ACTIVE = InstanceFact(uuid=S, vm_state="active", changed_at=OLD)
MAPPED = MappingFact(instance_uuid=S, volume_id=V, attachment_id="a1", changed_at=OLD, is_ordered=True)
USED = VolumeFact(status="in-use", changed_at=OLD, attachments={"a1": "attached"})


def report(machines: dict[str, dict[str, str]], **fields) -> HostReport:
    return HostReport(**{"host": "cmp1", "kind": "fake", "machines": machines, **fields})


STOPPED = replace(ACTIVE, vm_state="stopped")
ALIVE = report({S: {V: "/dev/vdb"}}, connections=[V])


def facts(instance: InstanceFact | None = ACTIVE, **fields) -> Facts:
    """A server at rest that has a volume, unless something else is given."""
    known = {"mappings": (MAPPED,), "volumes": {V: USED}, "report": ALIVE}
    return Facts(**{"now": NOW, "instances": {} if instance is None else {S: instance}, **known, **fields})


def moving(status: str, **fields) -> Facts:
    return facts(volumes={V: replace(USED, status=status, attachments={"a1": status})}, **fields)


BARE: dict[str, Any] = {"mappings": (), "volumes": {}}
TABLE: dict[str, tuple[Facts, Mend | None, str]] = {
    "all is well": (facts(), None, ""),
    "building": (facts(replace(ACTIVE, vm_state="building", task_state="spawning"), report=report({}), **BARE), Mend.BOOT, S),
    "deleting": (facts(replace(ACTIVE, task_state="deleting"), report=report({}), **BARE), Mend.DELETE, S),
    "powering off": (facts(replace(ACTIVE, task_state="powering-off")), Mend.STOP, S),
    "powering on": (facts(replace(STOPPED, task_state="powering-on"), report=report({}, connections=[V])), Mend.START, S),
    "rebooting": (facts(replace(ACTIVE, task_state="rebooting"), report=report({}, connections=[V])), Mend.REBOOT, S),
    "rebooting hard": (facts(replace(ACTIVE, task_state="rebooting_hard")), Mend.REBOOT_HARD, S),
    "stopped, without a machine": (facts(STOPPED, report=report({}, connections=[V])), None, ""),
    "stopped, and its machine runs": (facts(STOPPED, report=report({S: {}}, connections=[V])), Mend.SETTLE_STOPPED, S),
    "stopped, and a part of its machine is left": (
        facts(STOPPED, report=report({}, leftovers={S: ["x"]}, connections=[V])), Mend.SETTLE_STOPPED, S,
    ),
    "detaching from a stopped server": (moving("detaching", instance=STOPPED, report=report({})), Mend.DETACH_VOLUME, V),
    "an error is at rest": (facts(replace(ACTIVE, vm_state="error"), report=report({}), **BARE), None, ""),
    "its machine died": (facts(report=report({}, connections=[V])), Mend.SETTLE_MACHINE, S),
    "its machine is silent": (facts(report=report({}, silent={S: "hung"})), None, ""),
    "a disk is missing": (facts(report=report({S: {}}, connections=[V])), Mend.RESTORE_DISK, V),
    "a connection is missing": (facts(report=report({S: {V: "/dev/vdb"}}, connections=[])), Mend.RESTORE_DISK, V),
    "a host that knows no connections": (facts(report=report({S: {V: "/dev/vdb"}})), None, ""),
    "a disk too many": (facts(report=report({S: {V: "/dev/vdb", W: "/dev/vdc"}}, connections=[V, W])), Mend.REMOVE_DISK, W),
    "a connection too many": (facts(report=report({S: {V: "/dev/vdb"}}, connections=[V, W])), Mend.REMOVE_DISK, W),
    "a disk too many while it is deleted": (
        facts(replace(ACTIVE, task_state="deleting"), busy=Busy(frozenset({S})), report=report({S: {W: "/dev/vdc"}}), **BARE), None, "",
    ),
    "a machine of a deleted server": (facts(None, deleted={S: OLD}, **BARE, report=report({S: {}})), Mend.REAP_MACHINE, S),
    "a silent one of a deleted server": (facts(None, deleted={S: OLD}, **BARE, report=report({}, silent={S: "x"})), Mend.REAP_MACHINE, S),
    "what is left of a deleted server": (facts(None, deleted={S: OLD}, **BARE, report=report({}, leftovers={S: ["x"]})), Mend.REAP_MACHINE, S),
    "of one deleted a moment ago": (facts(None, deleted={S: YOUNG}, **BARE, report=report({S: {}})), None, ""),
    "a machine that no row knows": (facts(None, **BARE, report=report({S: {}}, leftovers={W: ["x"]})), None, ""),
    "over in cinder": (facts(volumes={V: VolumeFact(status="available", changed_at=OLD)}), Mend.LET_GO, V),
    "another's in cinder": (facts(volumes={V: replace(USED, attachments={"a2": "attached"})}), Mend.LET_GO, V),
    "no such volume": (facts(volumes={}), Mend.LET_GO, V),
    "no attachment was ever named": (facts(mappings=(replace(MAPPED, attachment_id=None),), volumes={}), None, ""),
    "attaching": (moving("attaching"), Mend.ATTACH_VOLUME, V),
    "attaching while its server is deleted": (
        moving("attaching", busy=Busy(frozenset({S}))), Mend.ATTACH_VOLUME, V,
    ),
    "attaching, not handed over": (moving("attaching", mappings=(replace(MAPPED, is_ordered=False),)), None, ""),
    "detaching": (moving("detaching"), Mend.DETACH_VOLUME, V),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_every_row_of_the_table(name: str) -> None:
    known, mend, about = TABLE[name]
    kind = "server" if about == S else "volume"
    assert [(found.mend, found.subject) for found in settle(known)] == ([] if mend is None else [(mend, f"{kind}:{about}")])


@pytest.mark.parametrize("name", TABLE)
def test_what_takes_something_away_is_known_as_such(name: str) -> None:
    destroying = {Mend.LET_GO, Mend.SETTLE_MACHINE, Mend.REAP_MACHINE, Mend.SETTLE_STOPPED, Mend.REMOVE_DISK}
    assert all(found.destroys == (found.mend in destroying) for found in settle(TABLE[name][0]))


@pytest.mark.parametrize("name", TABLE)
def test_nothing_is_done_about_what_somebody_works_on(name: str) -> None:
    assert settle(replace(TABLE[name][0], busy=Busy(frozenset({S, V, W})))) == []


@pytest.mark.parametrize("name", TABLE)
def test_what_changed_a_moment_ago_is_left_alone(name: str) -> None:
    known = TABLE[name][0]
    young = replace(
        known,
        instances={uuid: replace(row, changed_at=YOUNG) for uuid, row in known.instances.items()},
        mappings=tuple(replace(row, changed_at=YOUNG) for row in known.mappings),
        deleted=dict.fromkeys(known.deleted, YOUNG),
    )
    assert [found.mend for found in settle(young)] == ([Mend.REMOVE_DISK] if name == "a connection too many" else [])


@pytest.mark.parametrize("name", TABLE)
def test_of_a_part_that_is_silent_nothing_is_decided(name: str) -> None:
    by_rows = {Mend.BOOT, Mend.DELETE, Mend.STOP, Mend.START, Mend.REBOOT, Mend.REBOOT_HARD}
    assert {found.mend for found in settle(replace(TABLE[name][0], report=None, volumes=None))} <= by_rows


MACHINES = st.dictionaries(
    st.sampled_from([S, W]), st.dictionaries(st.sampled_from([V, W]), st.just("/dev/vdb"), max_size=2), max_size=2
)
FACTS = st.builds(
    Facts,
    now=st.just(NOW),
    instances=st.dictionaries(
        st.just(S),
        st.builds(
            InstanceFact,
            uuid=st.just(S),
            vm_state=st.sampled_from(["building", "active", "stopped", "error"]),
            task_state=st.sampled_from([None, "spawning", "deleting", "powering-off", "powering-on", "rebooting"]),
            changed_at=st.sampled_from([None, OLD, YOUNG]),
        ),
    ),
    deleted=st.dictionaries(st.just(W), st.sampled_from([None, OLD, YOUNG])),
    mappings=st.lists(st.sampled_from([MAPPED, replace(MAPPED, volume_id=W, attachment_id="a2")]), unique=True).map(tuple),
    volumes=st.none()
    | st.dictionaries(
        st.sampled_from([V, W]),
        st.builds(
            VolumeFact,
            status=st.sampled_from(["attaching", "in-use", "detaching", "available"]),
            changed_at=st.sampled_from([None, OLD, YOUNG]),
            attachments=st.dictionaries(st.sampled_from(["a1", "a2"]), st.sampled_from(["attached", "attaching"])),
        ),
    ),
    report=st.none() | st.builds(report, MACHINES, connections=st.none() | st.lists(st.sampled_from([V, W]), unique=True)),
    busy=st.builds(Busy, st.frozensets(st.sampled_from([S, V, W]))),
)


@given(FACTS)
def test_the_same_facts_give_the_same_actions_one_for_a_subject_and_never_for_a_busy_one(known: Facts) -> None:
    found = settle(known)
    assert found == settle(known)
    assert len({each.subject for each in found}) == len(found)
    assert all(each.subject.partition(":")[2] not in known.busy for each in found)
