"""Nova's audit: each planted violation is found, and nothing else; a sound cloud has none."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from common.base.violation import UNKNOWN
from nova_lite.contract import HostReport
from nova_lite.domain.audit import AttachmentFact, Facts, InstanceFact, MappingFact, VolumeFact, audit
from nova_lite.domain.instance import INSTANCE

SERVER = InstanceFact(uuid="s1", name="one", vm_state="active", host="cmp1")
OTHER = InstanceFact(uuid="s2", name="two", vm_state="active", host="cmp2")
MAPPING = MappingFact(uuid="m1", instance_uuid="s1", volume_id="v1", attachment_id="a1", device_name="/dev/vdb")
ATTACHMENT = AttachmentFact(id="a1", status="attached", instance_uuid="s1", host="cmp1", mountpoint="/dev/vdb")
VOLUME = VolumeFact(id="v1", status="in-use", attachments=(ATTACHMENT,))
FREE = VolumeFact(id="v2", status="available")
BUSY = VolumeFact(id="v1", status="attaching", attachments=(replace(ATTACHMENT, status="attaching", mountpoint=None, host=None),))


def report(host: str = "cmp1", **fields) -> HostReport:
    machines = {"cmp1": {"s1": {"v1": "/dev/vdb"}}, "cmp2": {"s2": {}}}
    connections = {"cmp1": ["v1"], "cmp2": []}
    return HostReport(**{"host": host, "kind": "qemu", "machines": machines[host], "connections": connections[host], **fields})


def facts(*instances: InstanceFact, cmp1: HostReport | None = None, cmp2: HostReport | None = None, **fields) -> Facts:
    """Two servers on two hosts, the first with a volume, unless something else is given."""
    known = {
        "mappings": (MAPPING,), "volumes": {"v1": VOLUME, "v2": FREE}, "hosts": frozenset({"cmp1", "cmp2"}),
        "reports": {"cmp1": cmp1 or report(), "cmp2": cmp2 or report("cmp2")},
    }  # fmt: skip
    return Facts(instances=instances or (SERVER, OTHER), **{**known, **fields})


def volumes(*found: VolumeFact) -> dict[str, VolumeFact]:
    return {volume.id: volume for volume in (FREE, *found)}


PLANTED: dict[str, tuple[Facts, str, str, str]] = {
    "a disk of two machines": (
        facts(cmp2=report("cmp2", machines={"s2": {"v1": "/dev/vdb"}})), "S1", "volume:v1", "s1 on cmp1, s2 on cmp2 (no row knows that)",
    ),
    "a connection of two hosts": (facts(cmp2=report("cmp2", connections=["v1"])), "S1", "volume:v1", "cmp1, cmp2"),
    "a state that is none": (facts(replace(SERVER, vm_state="banana"), OTHER), "S7", "server:s1", "banana"),
    "a pair of states that is none": (facts(replace(SERVER, task_state="spawning"), OTHER), "S7", "server:s1", "active, spawning"),
    "active without a machine": (facts(cmp2=report("cmp2", machines={})), "S8", "server:s2", "no such machine alive"),
    "stopped with a machine": (
        facts(replace(SERVER, vm_state="stopped"), OTHER), "S8", "server:s1", "it is stopped, and its machine is alive",
    ),
    "attached without a disk": (facts(cmp1=report(machines={"s1": {}})), "S8", "volume:v1", "has no such disk"),
    "a disk by another name": (facts(cmp1=report(machines={"s1": {"v1": "/dev/vdq"}})), "S8", "volume:v1", "its machine as /dev/vdq"),
    "attached without a connection": (facts(cmp1=report(connections=[])), "S8", "volume:v1", "cmp1 is not connected to it"),
    "another server in cinder": (
        facts(volumes=volumes(replace(VOLUME, attachments=(replace(ATTACHMENT, instance_uuid="s2"),)))), "S8", "volume:v1", "the server of",
    ),
    "another host in cinder": (
        facts(volumes=volumes(replace(VOLUME, attachments=(replace(ATTACHMENT, host="cmp2"),)))), "S8", "volume:v1", "the host of",
    ),
    "another name in cinder": (
        facts(volumes=volumes(replace(VOLUME, attachments=(replace(ATTACHMENT, mountpoint="/dev/vdq"),)))), "S8", "volume:v1", "/dev/vdq in cinder",
    ),
    "attached in cinder alone": (
        facts(volumes=volumes(VOLUME, replace(VOLUME, id="v3", attachments=(replace(ATTACHMENT, id="a3"),)))), "S8", "volume:v3", "nova has no row for it",
    ),
    "secrets of a deleted mapping": (facts(secrets=("m9",)), "S14", "block_device_mapping:m9", "still keeps"),
    "building for ever": (
        facts(replace(OTHER, uuid="s3", vm_state="building", task_state="spawning", is_old=True), SERVER, OTHER), "L1", "server:s3", "building, spawning",
    ),
    "deleting for ever": (facts(replace(SERVER, task_state="deleting", is_old=True), OTHER), "L1", "server:s1", "active, deleting"),
    "a mapping whose volume is gone": (
        facts(volumes={"v2": FREE}), "L3", "volume:v1", "there is no such volume",
    ),
    "a mapping whose attachment is gone": (
        facts(volumes=volumes(replace(VOLUME, status="available", attachments=()))), "L3", "volume:v1", "has no such attachment",
    ),
    "a mapping whose attachment is another": (
        facts(volumes=volumes(replace(VOLUME, status="attaching", attachments=(replace(ATTACHMENT, id="a9", status="reserved"),)))), "L3", "volume:v1", "has no such attachment",
    ),
    "a mapping whose server is gone": (
        facts(OTHER, cmp1=report(machines={}, connections=[])), "L3", "server:s1", "the server is not",
    ),
    "a disk of nobody": (facts(cmp2=report("cmp2", machines={"s2": {"v2": "/dev/vdb"}})), "L3", "volume:v2", "no row of nova knows it"),
    "a machine of nobody": (facts(cmp2=report("cmp2", machines={"s2": {}, "s9": {}})), "L3", "server:s9", "there is no such server"),
    "a machine on another host": (
        facts(cmp2=report("cmp2", machines={"s2": {}, "s1": {}})), "L3", "server:s1", "the server is on cmp1",
    ),
    "a folder of nobody": (facts(cmp2=report("cmp2", leftovers={"s9": ["/x/s9"]})), "L3", "server:s9", "on cmp2 is left: /x/s9"),
    "half a disk": (facts(cmp2=report("cmp2", leftovers={"s2": ["block node node-1"]})), "L3", "server:s2", "node-1"),
    "a connection of nobody": (facts(cmp2=report("cmp2", connections=["v2"])), "L3", "volume:v2", "no server there has it"),
    "a machine that is silent": (
        facts(cmp1=report(machines={}, silent={"s1": "no answer"})), UNKNOWN, "server:s1", "no answer",
    ),
    "a host that never was": (facts(SERVER, OTHER, replace(OTHER, uuid="s3", host="gone")), UNKNOWN, "host:gone", "servers in its rows: 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_each_planted_violation_is_found_and_nothing_else(what: str) -> None:
    given, invariant, subject, words = PLANTED[what]
    found = audit(given)
    assert [(each.invariant, each.subject) for each in found] == [(invariant, subject)], found
    assert words in found[0].evidence
    assert found[0].mend


SOUND: dict[str, Callable[[], Facts]] = {
    "as it should be": facts,
    "nothing at all": lambda: Facts(instances=(), mappings=(), volumes={}),
    "hosts that make no connections": lambda: facts(cmp1=report(connections=None), cmp2=report("cmp2", connections=None)),
    "building, no machine yet": lambda: facts(replace(OTHER, vm_state="building", task_state="spawning"), SERVER, cmp2=report("cmp2", machines={})),
    "deleting, no machine any more": lambda: facts(replace(SERVER, task_state="deleting"), OTHER, cmp1=report(machines={}, connections=[])),
    "error, and no machine": lambda: facts(SERVER, replace(OTHER, vm_state="error", is_old=True), cmp2=report("cmp2", machines={})),
    "a server that was never placed": lambda: facts(SERVER, OTHER, InstanceFact(uuid="s3", name="x", vm_state="error")),
    "attaching, no disk yet": lambda: facts(cmp1=report(machines={"s1": {}}, connections=[]), volumes=volumes(BUSY)),
    "attaching, a disk already": lambda: facts(volumes=volumes(BUSY)),
    "detaching, no mapping any more": lambda: facts(
        mappings=(), cmp1=report(machines={"s1": {}}, connections=[]),
        volumes=volumes(replace(VOLUME, status="detaching", attachments=(replace(ATTACHMENT, status="detaching"),))),
    ),
    "a host that gave no report": lambda: facts(reports={"cmp2": report("cmp2")}),
    "cinder did not answer": lambda: facts(volumes=None),
    "multiattach": lambda: facts(
        mappings=(MAPPING, MappingFact(uuid="m2", instance_uuid="s2", volume_id="v1", attachment_id="a2", device_name="/dev/vdb")),
        volumes=volumes(replace(VOLUME, multiattach=True, attachments=(ATTACHMENT, replace(ATTACHMENT, id="a2", instance_uuid="s2", host="cmp2")))),
        cmp2=report("cmp2", machines={"s2": {"v1": "/dev/vdb"}}, connections=["v1"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SOUND)
def test_what_is_right_or_in_motion_is_no_violation(what: str) -> None:
    assert audit(SOUND[what]()) == []


def test_without_cinder_s_word_a_second_disk_is_one_that_no_row_knows() -> None:
    found = audit(facts(volumes=None, cmp2=report("cmp2", machines={"s2": {"v1": "/dev/vdb"}})))
    assert [(each.invariant, each.subject) for each in found] == [("L3", "volume:v1")]


@pytest.mark.parametrize("state", sorted(INSTANCE.states, key=str))
def test_no_state_of_a_server_makes_the_audit_fail(state) -> None:
    vm, task = state
    audit(facts(replace(SERVER, vm_state=str(vm), task_state=task and str(task)), OTHER))


def test_a_report_of_an_older_release_without_the_newer_fields_can_be_audited() -> None:
    assert (
        audit(facts(cmp1=msgspec.convert({"host": "cmp1", "kind": "qemu", "machines": {"s1": {"v1": "/dev/vdb"}}}, HostReport)))
        == []
    )
