"""What is wrong between nova's rows, what its hosts have, and cinder's attachments: facts in, findings out. Pure.

Rows are taken as they stand, with words that no table of states may know: an audit must not fail because of what it looks for.
A finding needs both sides: of a host that gave no report, or of volumes that cinder did not tell of, nothing is said here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from common.base.violation import UNKNOWN, Violation
from nova_lite.contract import HostReport, VmState
from nova_lite.domain.instance import FINAL_STATES, INSTANCE

ATTACHED = "attached"
"""volume_attachment.attach_status, in cinder's words."""

_STATES = frozenset((str(vm), None if task is None else str(task)) for vm, task in INSTANCE.states)
_FINAL = frozenset((str(vm), None if task is None else str(task)) for vm, task in FINAL_STATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFact:
    """A live row of instances. `is_old`: it has been in its state for longer than states that should pass may last."""

    uuid: str
    name: str
    vm_state: str
    task_state: str | None = None
    host: str | None = None
    is_old: bool = False

    @property
    def subject(self) -> str:
        """How it is named in a finding."""
        return _server(self.uuid)

    @property
    def state(self) -> tuple[str, str | None]:
        """Both columns."""
        return self.vm_state, self.task_state

    @property
    def is_at_rest(self) -> bool:
        """True when its disks and mappings should agree now: it is active, and nobody is at work on it."""
        return self.state == (VmState.ACTIVE, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFact:
    """A live row of block_device_mapping that is a volume."""

    uuid: str
    instance_uuid: str
    volume_id: str
    attachment_id: str | None = None
    device_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentFact:
    """A live attachment, by cinder's word."""

    id: str
    status: str
    instance_uuid: str | None = None
    host: str | None = None
    mountpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeFact:
    """A volume, by cinder's word."""

    id: str
    status: str
    multiattach: bool = False
    attachments: tuple[AttachmentFact, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that nova's audit looks at.

    instances   every live row
    mappings    every live row that is a volume
    secrets     uuids of deleted mappings that keep a connection_info
    volumes     by id, cinder's volumes; None: cinder did not answer
    hosts       every nova-compute that has a row in services
    reports     of those that gave one, by host
    """

    instances: tuple[InstanceFact, ...]
    mappings: tuple[MappingFact, ...]
    secrets: tuple[str, ...] = ()
    volumes: Mapping[str, VolumeFact] | None
    hosts: frozenset[str] = frozenset()
    reports: Mapping[str, HostReport] = field(default_factory=dict)

    @cached_property
    def by_uuid(self) -> Mapping[str, InstanceFact]:
        """The instances by their uuids."""
        return {instance.uuid: instance for instance in self.instances}

    @cached_property
    def mapped(self) -> frozenset[tuple[str, str]]:
        """(instance uuid, volume id) of every mapping."""
        return frozenset((mapping.instance_uuid, mapping.volume_id) for mapping in self.mappings)

    @cached_property
    def guests_of(self) -> Mapping[str, tuple[tuple[str, str], ...]]:
        """volume id -> (host, instance uuid) of every machine that has it as a disk."""
        found: dict[str, tuple[tuple[str, str], ...]] = {}
        for host, report in sorted(self.reports.items()):
            for uuid, disks in sorted(report.machines.items()):
                for volume_id in disks:
                    found[volume_id] = (*found.get(volume_id, ()), (host, uuid))
        return found

    def report_of(self, instance: InstanceFact) -> HostReport | None:
        """The report of the instance's host, unless its machine is one that does not say what it has."""
        report = self.reports.get(instance.host or "")
        return None if report is None or instance.uuid in report.silent else report

    def is_multiattach(self, volume_id: str) -> bool:
        """Cinder's word; without it True, for then nothing may be said."""
        if self.volumes is None:
            return True
        volume = self.volumes.get(volume_id)
        return volume is not None and volume.multiattach


def audit(facts: Facts) -> list[Violation]:
    """The findings, each once."""
    found: list[Violation] = []
    for instance in facts.instances:
        found += _of_instance(instance, facts)
    for mapping in facts.mappings:
        found += _of_mapping(mapping, facts)
    for report in facts.reports.values():
        found += _of_host(report, facts)
    found += _shared(facts)
    if facts.volumes is not None:
        for volume in facts.volumes.values():
            found += _of_volume(volume, facts)
    found += _unreported(facts)
    found += [_secret(uuid) for uuid in facts.secrets]
    return list(dict.fromkeys(found))


def _of_instance(instance: InstanceFact, facts: Facts) -> Iterator[Violation]:
    shown = ", ".join(part for part in instance.state if part)
    if instance.state not in _STATES:
        yield Violation(
            "S7",
            instance.subject,
            f"its vm_state and task_state are {shown}, which nova's table of states does not have",
            "Set the states of its row",
        )
    elif instance.is_old and instance.state not in _FINAL:
        yield Violation(
            "L1",
            instance.subject,
            f"it has been {shown} for longer than that may last",
            "Whoever carries its flow on must run: `lite doctor` names services that do not; then `lite doctor --fix`",
        )
    report = facts.report_of(instance)
    if instance.is_at_rest and report is not None and instance.uuid not in report.machines:
        yield Violation(
            "S8",
            instance.subject,
            f"it is active, and {report.host} has no such machine alive",
            "The server becomes an error and its volumes available by themselves, or at once: `lite doctor --fix`",
        )

    if instance.state == (VmState.STOPPED, None) and report is not None and instance.uuid in report.machines:
        yield Violation(
            "S8",
            instance.subject,
            f"it is stopped, and its machine is alive on {report.host}",
            "Its machine is powered off by itself, or at once: `lite doctor --fix`",
        )


def _of_mapping(mapping: MappingFact, facts: Facts) -> Iterator[Violation]:
    instance = facts.by_uuid.get(mapping.instance_uuid)
    if instance is None:
        yield Violation(
            "L3",
            _server(mapping.instance_uuid),
            f"block device mapping {mapping.uuid} of volume {mapping.volume_id} is there, and the server is not",
            "Nothing needs that row; remove it: `lite doctor --fix`",
        )
        return
    attachment: AttachmentFact | None = None
    if facts.volumes is not None:
        volume = facts.volumes.get(mapping.volume_id)
        attachment = _attachment_of(mapping, volume)
        if attachment is None:
            why = "there is no such volume" if volume is None else f"the volume is {volume.status} and has no such attachment"
            yield Violation(
                "L3",
                _volume(mapping.volume_id),
                f"server {instance.uuid} has it as {mapping.device_name} by attachment {mapping.attachment_id}, and in cinder {why}",
                "Take the disk from the machine and remove the row: `lite doctor --fix`",
            )
            return
        if attachment.status == ATTACHED:
            yield from _differences(mapping, attachment, instance)
    report = facts.report_of(instance)
    if report is None or not instance.is_at_rest or instance.uuid not in report.machines:
        return
    yield from _of_disk(mapping, attachment, report)


def _attachment_of(mapping: MappingFact, volume: VolumeFact | None) -> AttachmentFact | None:
    return next((held for held in volume.attachments if held.id == mapping.attachment_id), None) if volume else None


def _differences(mapping: MappingFact, attachment: AttachmentFact, instance: InstanceFact) -> Iterator[Violation]:
    """The two rows of one attachment say the same."""
    pairs = (
        ("server", mapping.instance_uuid, attachment.instance_uuid),
        ("host", instance.host, attachment.host),
        ("name", mapping.device_name, attachment.mountpoint),
    )
    for what, ours, theirs in pairs:
        if ours != theirs:
            yield Violation(
                "S8",
                _volume(mapping.volume_id),
                f"the {what} of attachment {attachment.id} is {ours} in nova and {theirs} in cinder",
                "Detach it, and attach it again",
            )


def _of_disk(mapping: MappingFact, attachment: AttachmentFact | None, report: HostReport) -> Iterator[Violation]:
    """A mapping whose attachment is attached is a disk of that name, and a connection of the host."""
    disks = report.machines[mapping.instance_uuid]
    if attachment is None or attachment.status != ATTACHED:
        return
    if mapping.volume_id not in disks:
        yield Violation(
            "S8",
            _volume(mapping.volume_id),
            f"server {mapping.instance_uuid} has it as {mapping.device_name} by nova's and cinder's rows, and its machine on "
            f"{report.host} has no such disk",
            "Plug it in again, or detach it: `lite doctor --fix`",
        )
    elif mapping.device_name is not None and disks[mapping.volume_id] != mapping.device_name:
        yield Violation(
            "S8",
            _volume(mapping.volume_id),
            f"server {mapping.instance_uuid} has it as {mapping.device_name} by its row, and its machine as {disks[mapping.volume_id]}",
            "Detach it, and attach it again",
        )
    if report.connections is not None and mapping.volume_id not in report.connections:
        yield Violation(
            "S8",
            _volume(mapping.volume_id),
            f"it is attached to server {mapping.instance_uuid}, and {report.host} is not connected to it",
            "Connect it again, or detach it: `lite doctor --fix`",
        )


def _of_host(report: HostReport, facts: Facts) -> Iterator[Violation]:
    """What a host has that no row knows."""
    for uuid, why in report.silent.items():
        yield Violation(
            UNKNOWN,
            _server(uuid),
            f"its machine on {report.host} does not say what disks it has: {why}",
            "Look at the machine; delete the server if it does not come back",
        )
    for uuid, disks in report.machines.items():
        instance = facts.by_uuid.get(uuid)
        if instance is None or instance.host != report.host:
            where = f", and the server is on {instance.host}" if instance else ", and there is no such server"
            yield Violation(
                "L3",
                _server(uuid),
                f"its machine is alive on {report.host}{where}",
                "End that machine: `lite doctor --fix`",
            )
            continue
        for volume_id, mountpoint in disks.items():
            is_told = len(facts.guests_of[volume_id]) > 1 and not facts.is_multiattach(volume_id)
            if (uuid, volume_id) not in facts.mapped and not is_told:
                yield Violation(
                    "L3",
                    _volume(volume_id),
                    f"the machine of server {uuid} on {report.host} has it as {mountpoint}, and no row of nova knows it",
                    "Take the disk from the machine: `lite doctor --fix`",
                )
    for uuid, parts in report.leftovers.items():
        yield Violation(
            "L3",
            _server(uuid),
            f"on {report.host} is left: {', '.join(parts)}",
            "Nothing uses it; remove it: `lite doctor --fix`",
        )
    here = {mapping.volume_id for mapping in facts.mappings if _host_of(mapping, facts) == report.host}
    for volume_id in report.connections or ():
        if volume_id not in here and len(_connected(volume_id, facts)) == 1:
            yield Violation(
                "L3",
                _volume(volume_id),
                f"{report.host} is connected to it, and no server there has it",
                "Disconnect it: `lite doctor --fix`",
            )


def _shared(facts: Facts) -> Iterator[Violation]:
    """One writer, counted in guests and on hosts."""
    for volume_id, guests in facts.guests_of.items():
        if len(guests) > 1 and not facts.is_multiattach(volume_id):
            shown = ", ".join(
                f"{uuid} on {host}{'' if (uuid, volume_id) in facts.mapped else ' (no row knows that)'}" for host, uuid in guests
            )
            yield Violation(
                "S1",
                _volume(volume_id),
                f"it is not multiattach, and is a disk of {len(guests)} machines at once: {shown}",
                "Find out which one may write to it, and take it from the others",
            )
    connected = {volume_id for report in facts.reports.values() for volume_id in report.connections or ()}
    for volume_id in sorted(connected):
        hosts = _connected(volume_id, facts)
        if len(hosts) > 1 and not facts.is_multiattach(volume_id):
            yield Violation(
                "S1",
                _volume(volume_id),
                f"it is not multiattach, and these hosts are connected to it at once: {', '.join(hosts)}",
                "Find out which one may write to it, and disconnect the others",
            )


def _of_volume(volume: VolumeFact, facts: Facts) -> Iterator[Violation]:
    """An attachment that is attached has a mapping."""
    known = {mapping.attachment_id for mapping in facts.mappings}
    for attachment in volume.attachments:
        if attachment.status == ATTACHED and attachment.id not in known:
            yield Violation(
                "S8",
                _volume(volume.id),
                f"attachment {attachment.id} to server {attachment.instance_uuid} is attached in cinder, and nova has no row for it",
                "Detach it in cinder: `lite doctor --fix`",
            )


def _unreported(facts: Facts) -> Iterator[Violation]:
    """Servers on a host that never was, or is no more."""
    lost: dict[str, int] = {}
    for instance in facts.instances:
        if instance.host is not None and instance.host not in facts.hosts:
            lost[instance.host] = lost.get(instance.host, 0) + 1
    for host, number in sorted(lost.items()):
        yield Violation(
            UNKNOWN,
            f"host:{host}",
            f"servers in its rows: {number}; no nova-compute of that name has ever run on this database",
            "Start the nova-compute of this host",
        )


def _secret(uuid: str) -> Violation:
    return Violation(
        "S14",
        f"block_device_mapping:{uuid}",
        "it is deleted, and still keeps the connection_info with its credentials",
        "Clear connection_info of that row: `lite doctor --fix`",
    )


def _connected(volume_id: str, facts: Facts) -> list[str]:
    return sorted(host for host, report in facts.reports.items() if volume_id in (report.connections or ()))


def _host_of(mapping: MappingFact, facts: Facts) -> str | None:
    instance = facts.by_uuid.get(mapping.instance_uuid)
    return instance.host if instance else None


def _server(uuid: str) -> str:
    return f"server:{uuid}"


def _volume(volume_id: str) -> str:
    return f"volume:{volume_id}"
