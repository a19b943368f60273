"""What a compute host has to mend: rows, what is really there, cinder's word, and who is at work in; actions out. Pure.

    server `building`, nobody at work                                   boot: the order was lost
    server `deleting`, nobody at work                                   delete: the order was lost
    server `powering-off`, `powering-on`, `rebooting`, nobody at work   stop, start, reboot: the order was lost
    server stopped, and its machine is alive, or left over              settle_stopped
    server active, and its machine is not alive                         settle_machine: error, and its volumes are let go
    machine alive, or left over, whose server's row is deleted          reap_machine
    disk of a machine, or connection of the host, without a mapping     remove_disk
    mapping whose attachment is over in cinder                          let_go: the detach saga
    mapping, volume `attaching`, and the request was handed over        attach_volume: the order was lost
    mapping, volume `detaching`                                         detach_volume: the order was lost
    mapping, attachment attached, and the machine has no such disk      restore_disk
        or the host is not connected to it

What no row knows, and what stands in another host's rows, is left alone: the doctor tells of it, and a person decides. Of a part that
does not answer nothing is known, and nothing is decided.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from functools import cached_property

from common.base.settling import Busy, is_young, one_for_each
from nova_lite.contract import HostReport, TaskState, VmState

ATTACHING, DETACHING, IN_USE = "attaching", "detaching", "in-use"
"""volumes.status, in cinder's words."""
ATTACHED = "attached"
"""volume_attachment.attach_status, likewise."""


class Mend(StrEnum):
    """What is done about it."""

    BOOT = auto()
    DELETE = auto()
    ATTACH_VOLUME = auto()
    DETACH_VOLUME = auto()
    LET_GO = auto()
    SETTLE_MACHINE = auto()
    REAP_MACHINE = auto()
    STOP = auto()
    START = auto()
    REBOOT = auto()
    REBOOT_HARD = auto()
    SETTLE_STOPPED = auto()
    RESTORE_DISK = auto()
    REMOVE_DISK = auto()


_DESTROYING = frozenset({Mend.LET_GO, Mend.SETTLE_MACHINE, Mend.REAP_MACHINE, Mend.SETTLE_STOPPED, Mend.REMOVE_DISK})

_ORDERS: Mapping[str, Mend] = {
    TaskState.DELETING: Mend.DELETE,
    TaskState.POWERING_OFF: Mend.STOP,
    TaskState.POWERING_ON: Mend.START,
    TaskState.REBOOTING: Mend.REBOOT,
    TaskState.REBOOTING_HARD: Mend.REBOOT_HARD,
}
"""What a server's task_state says was ordered."""


@dataclass(frozen=True, slots=True)
class Action:
    """One mending. `why` is for people. `instance_uuid` is empty for a connection that no machine has."""

    mend: Mend
    instance_uuid: str
    volume_id: str | None = None
    attachment_id: str | None = None
    why: str = field(default="", compare=False)

    @property
    def subject(self) -> str:
        return f"server:{self.instance_uuid}" if self.volume_id is None else f"volume:{self.volume_id}"

    @property
    def destroys(self) -> bool:
        return self.mend in _DESTROYING

    def __str__(self) -> str:
        return f"{self.mend}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFact:
    """A live row of instances of this host."""

    uuid: str
    vm_state: str
    task_state: str | None = None
    changed_at: datetime | None = None

    @property
    def is_at_rest(self) -> bool:
        """True when its disks and mappings should agree now."""
        return (self.vm_state, self.task_state) == (VmState.ACTIVE, None)

    @property
    def is_stopped(self) -> bool:
        """True when it should have no machine now."""
        return (self.vm_state, self.task_state) == (VmState.STOPPED, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFact:
    """A live row of block_device_mapping of one of these servers. `is_ordered`: nova-api has handed its attachment over."""

    instance_uuid: str
    volume_id: str
    attachment_id: str | None = None
    changed_at: datetime | None = None
    is_ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFact:
    """A volume by cinder's word. `attachments`: the live ones, id -> attach_status."""

    status: str
    changed_at: datetime | None = None
    attachments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a host's reconciler looks at.

    now         by the database's clock
    instances   by uuid: every live row of this host
    deleted     of the machines that are here, those whose row is deleted: uuid -> when
    mappings    every live row of these instances that is a volume
    volumes     by id, those of the mappings that cinder knows; None: it does not answer
    report      None: the hypervisor or the connector does not answer
    """

    now: datetime
    instances: Mapping[str, InstanceFact]
    deleted: Mapping[str, datetime | None] = field(default_factory=dict)
    mappings: tuple[MappingFact, ...] = ()
    volumes: Mapping[str, VolumeFact] | None
    report: HostReport | None
    busy: Busy = field(default_factory=Busy)

    @cached_property
    def mapped(self) -> frozenset[tuple[str, str]]:
        """(instance uuid, volume id) of every mapping."""
        return frozenset((mapping.instance_uuid, mapping.volume_id) for mapping in self.mappings)

    def is_alive(self, uuid: str) -> bool:
        """True for a machine that is there, whether it says what disks it has or not."""
        return self.report is not None and (uuid in self.report.machines or uuid in self.report.silent)

    def is_there(self, uuid: str) -> bool:
        """True for a machine that is alive, and for what is left of one."""
        return self.is_alive(uuid) or (self.report is not None and uuid in self.report.leftovers)


def settle(facts: Facts) -> list[Action]:
    """What is wrong now, at most one action for each server and volume: first what takes a volume from somebody who has no right to it."""
    return one_for_each(_found(facts))


def _found(facts: Facts) -> Iterator[Action]:
    if facts.report is not None:
        yield from _of_machines(facts.report, facts)
        yield from _of_connections(facts.report, facts)
    for instance in facts.instances.values():
        yield from _of_instance(instance, facts)
    for mapping in facts.mappings:
        yield from _of_mapping(mapping, facts)


def _of_machines(report: HostReport, facts: Facts) -> Iterator[Action]:
    for uuid in sorted({*report.machines, *report.silent, *report.leftovers} & facts.deleted.keys()):
        if uuid not in facts.busy and not is_young(facts.now, facts.deleted[uuid]):
            yield Action(Mend.REAP_MACHINE, uuid, why="the server is deleted, and its machine, or a part of it, is still there")
    for uuid, disks in sorted(report.machines.items()):
        instance = facts.instances.get(uuid)
        if instance is None or uuid in facts.busy or not instance.is_at_rest or is_young(facts.now, instance.changed_at):
            continue
        for volume_id in sorted(disks):
            if (uuid, volume_id) not in facts.mapped and volume_id not in facts.busy:
                yield Action(Mend.REMOVE_DISK, uuid, volume_id, why=f"the machine of server {uuid} has it, and no row knows that")


def _of_connections(report: HostReport, facts: Facts) -> Iterator[Action]:
    mapped = {volume_id for _, volume_id in facts.mapped}
    used = {volume_id for disks in report.machines.values() for volume_id in disks}
    for volume_id in report.connections or ():
        if volume_id not in mapped and volume_id not in used and volume_id not in facts.busy and not report.silent:
            yield Action(Mend.REMOVE_DISK, "", volume_id, why="this host is connected to it, and no server here has it")


def _of_instance(instance: InstanceFact, facts: Facts) -> Iterator[Action]:
    if instance.uuid in facts.busy or is_young(facts.now, instance.changed_at):
        return
    if instance.vm_state == VmState.BUILDING:
        yield Action(Mend.BOOT, instance.uuid, why="it is building, and nobody is at work on it")
    elif (mend := _ORDERS.get(instance.task_state or "")) is not None:
        yield Action(mend, instance.uuid, why=f"it is {instance.task_state}, and nobody is at work on it")
    elif instance.is_stopped and facts.report is not None and facts.is_there(instance.uuid):
        yield Action(Mend.SETTLE_STOPPED, instance.uuid, why="it is stopped, and its machine, or a part of it, is still there")
    elif instance.is_at_rest and facts.report is not None and not facts.is_alive(instance.uuid):
        yield Action(Mend.SETTLE_MACHINE, instance.uuid, why="it is active, and its machine is not alive")


def _of_mapping(mapping: MappingFact, facts: Facts) -> Iterator[Action]:
    """The server may be at work: a deletion waits for an attachment whose order was lost."""
    if facts.volumes is None or mapping.attachment_id is None or mapping.volume_id in facts.busy:
        return
    volume = facts.volumes.get(mapping.volume_id)
    if is_young(facts.now, mapping.changed_at, volume.changed_at if volume else None):
        return
    of_it = (mapping.instance_uuid, mapping.volume_id, mapping.attachment_id)
    if volume is None or mapping.attachment_id not in volume.attachments:
        yield Action(Mend.LET_GO, *of_it, why=f"attachment {mapping.attachment_id} is over in cinder, and server {of_it[0]} has it")
    elif volume.status == ATTACHING and mapping.is_ordered:
        yield Action(Mend.ATTACH_VOLUME, *of_it, why="it is attaching, and nobody is at work on it")
    elif volume.status == DETACHING:
        yield Action(Mend.DETACH_VOLUME, *of_it, why="it is detaching, and nobody is at work on it")
    elif volume.status == IN_USE and volume.attachments[mapping.attachment_id] == ATTACHED and _is_missing(mapping, facts):
        yield Action(Mend.RESTORE_DISK, *of_it, why=f"it is attached to server {of_it[0]}, and its machine has no such disk")


def _is_missing(mapping: MappingFact, facts: Facts) -> bool:
    """True when the disk, or the host's connection, of a server at rest is not there."""
    instance, report = facts.instances.get(mapping.instance_uuid), facts.report
    if instance is None or report is None or not instance.is_at_rest or instance.uuid in facts.busy:
        return False
    if is_young(facts.now, instance.changed_at) or instance.uuid not in report.machines:
        return False
    is_connected = report.connections is None or mapping.volume_id in report.connections
    return mapping.volume_id not in report.machines[instance.uuid] or not is_connected
