"""What is wrong between cinder's rows and what its backends have: rows and reports in, findings out. Pure.

Rows are taken as they stand, with words that no table of states may know: an audit must not fail because of what it looks for.
A finding needs both sides: of a backend that gave no report nothing is said here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from cinder_lite.contract import AttachStatus, BackendReport, ExportReport, SnapshotStatus, VolumeStatus as Status
from cinder_lite.domain.attachment import ATTACHMENT
from cinder_lite.domain.snapshot import FINAL_STATES as SNAPSHOT_FINAL, SNAPSHOT
from cinder_lite.domain.volume import FINAL_STATES, VOLUME, attach_status_of
from common.base.violation import UNKNOWN, Violation

_HELD = {
    Status.ATTACHING: frozenset({AttachStatus.RESERVED, AttachStatus.ATTACHING}),
    Status.IN_USE: frozenset({AttachStatus.ATTACHED}),
    Status.DETACHING: frozenset({AttachStatus.DETACHING}),
}
"""States of a volume that has attachments -> the states that these may have. In every other state it has none, but for one
that is extended, which may be attached.
"""
_KEPT = frozenset({Status.AVAILABLE, Status.EXTENDING, Status.ERROR_EXTENDING, *_HELD})
"""States in which the backend must have the volume. Before, it may; afterwards, it may still."""
_GIB_SLACK = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentFact:
    """A live row of volume_attachment. `who`: the names by which its connector may be let in; none before it has one."""

    id: str
    volume_id: str
    status: str
    instance_uuid: str | None = None
    attached_host: str | None = None
    who: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class VolumeFact:
    """A live row of volumes with its live attachments.

    is_old     it has been in its state for longer than states that should pass may last
    has_auth   credentials are kept with it
    """

    id: str
    status: str
    attach_status: str
    size: int
    host: str | None = None
    is_old: bool = False
    multiattach: bool = False
    provider_location: str | None = None
    has_auth: bool = False
    attachments: tuple[AttachmentFact, ...] = ()

    @property
    def name(self) -> str:
        """The backend's name of it."""
        return f"volume-{self.id}"

    @property
    def subject(self) -> str:
        """How it is named in a finding."""
        return _volume(self.id)

    @property
    def backend(self) -> str | None:
        """host@backend."""
        return self.host.partition("#")[0] if self.host else None

    @cached_property
    def who(self) -> frozenset[str]:
        """Everybody whom an attachment of it may let in."""
        return frozenset(name for held in self.attachments for name in held.who)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFact:
    """A live row of snapshots. `backend`: of its volume, host@backend."""

    id: str
    volume_id: str
    status: str
    backend: str | None = None
    is_old: bool = False

    @property
    def name(self) -> str:
        """The backend's name of it."""
        return f"snapshot-{self.id}"

    @property
    def subject(self) -> str:
        """How it is named in a finding."""
        return f"snapshot:{self.id}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that cinder's audit looks at.

    volumes    every live row
    snapshots  every live row
    orphans    live rows of volume_attachment whose volume is deleted or never was
    secrets    ids of volumes that are deleted and whose credentials are kept all the same
    backends   host@backend of every cinder-volume that has a row in services
    reports    of those that gave one, by host@backend
    """

    volumes: tuple[VolumeFact, ...]
    snapshots: tuple[SnapshotFact, ...] = ()
    orphans: tuple[AttachmentFact, ...] = ()
    secrets: tuple[str, ...] = ()
    backends: frozenset[str] = frozenset()
    reports: Mapping[str, BackendReport]

    @cached_property
    def by_id(self) -> Mapping[str, VolumeFact]:
        """The volumes by their ids."""
        return {volume.id: volume for volume in self.volumes}


def audit(facts: Facts) -> list[Violation]:
    """The findings, each once."""
    found: list[Violation] = []
    for volume in facts.volumes:
        found += _of_rows(volume)
        report = facts.reports.get(volume.backend or "")
        if report is not None:
            found += _of_backend(volume, report)
    for snapshot in facts.snapshots:
        found += _of_snapshot(snapshot, facts)
    for report in facts.reports.values():
        found += _strays(report, facts)
        found += _stray_snapshots(report, facts)
        found += _capacity(report, facts)
    found += _unreported(facts)
    found += [_orphan(attachment) for attachment in facts.orphans]
    found += [_secret(volume_id) for volume_id in facts.secrets]
    return list(dict.fromkeys(found))


def _of_rows(volume: VolumeFact) -> Iterator[Violation]:
    """What is wrong with the rows alone."""
    if volume.status not in VOLUME.states:
        yield Violation(
            "S7", volume.subject, f"its status is {volume.status!r}, a word that cinder does not know", "Set the status of its row"
        )
        return
    status = Status(volume.status)
    wanted = attach_status_of(status) or (AttachStatus.ATTACHED if volume.attachments else AttachStatus.DETACHED)
    if volume.attach_status != wanted:
        yield Violation(
            "S7",
            volume.subject,
            f"its status is {status} and its attach_status {volume.attach_status}; wanted: {wanted}",
            "Set the attach_status of its row",
        )
    for attachment in volume.attachments:
        if attachment.status not in ATTACHMENT.states:
            yield Violation(
                "S7",
                volume.subject,
                f"attach_status of attachment {attachment.id} is {attachment.status!r}, a word that cinder does not know",
                "Set the attach_status of that row",
            )
    if volume.backend is None and status in _KEPT:
        yield Violation("S7", volume.subject, f"it is {status}, and was never placed on a backend", "Delete it")
    if volume.is_old and status not in FINAL_STATES:
        yield Violation(
            "L1",
            volume.subject,
            f"it has been {status} for longer than that may last",
            "Whoever carries its flow on must run: `lite doctor` names services that do not; then `lite doctor --fix`",
        )
    yield from _held(volume, status)


def _held(volume: VolumeFact, status: Status) -> Iterator[Violation]:
    """The status of a volume follows from its attachments."""
    held, shown = volume.attachments, _shown(volume.attachments)
    if len(held) > 1 and not volume.multiattach:
        yield Violation(
            "S1",
            volume.subject,
            f"it is not multiattach and has {len(held)} attachments: {shown}",
            "Find out which server may write to it, and detach it from the others",
        )
        return
    if status is Status.ERROR:  # an operator may have put it there from any other state
        return
    wanted = _HELD.get(status, frozenset())
    if status is Status.EXTENDING and held:
        wanted = _HELD[Status.IN_USE]
    is_so = [attachment.status in wanted for attachment in held]
    if wanted and not (any(is_so) if volume.multiattach else held and all(is_so)):
        yield Violation(
            "S8",
            volume.subject,
            f"it is {status} and its attachments are: {shown}; wanted: one that is {' or '.join(sorted(wanted))}",
            "Its status must follow from its attachments: `lite doctor --fix`",
        )
    elif not wanted and held:
        yield Violation(
            "S8",
            volume.subject,
            f"it is {status}, and has attachments all the same: {shown}",
            "Its status must follow from its attachments: `lite doctor --fix`",
        )
    elif status is Status.AVAILABLE and volume.has_auth:
        yield Violation(
            "S14", volume.subject, "it is available, and the credentials of its last export are still in its row", _WIPE
        )
    elif status is Status.AVAILABLE and volume.provider_location is not None:
        yield Violation(
            "S8",
            volume.subject,
            f"it is available, and its row says that it is exported as {volume.provider_location}",
            "Clear provider_location of its row: `lite doctor --fix`",
        )


_WIPE = "Clear provider_auth of its row: `lite doctor --fix`"


def _of_backend(volume: VolumeFact, report: BackendReport) -> Iterator[Violation]:
    """What is wrong between a volume and its backend."""
    if volume.status not in VOLUME.states:
        return
    status = Status(volume.status)
    if status in _KEPT and volume.name not in report.volumes:
        yield Violation(
            "L3",
            volume.subject,
            f"it is {status}, and {report.backend} does not keep it",
            "Its bytes are gone: restore them, or delete the volume",
        )
    exports = {name: export for name, export in report.exports.items() if export.volume_id == volume.id}
    for attachment in volume.attachments:
        if attachment.status == AttachStatus.ATTACHED:
            yield from _missing(volume, attachment, exports, report)
    for name, export in exports.items():
        yield from _of_export(volume, name, export, report)


def _missing(
    volume: VolumeFact, attachment: AttachmentFact, exports: Mapping[str, ExportReport], report: BackendReport
) -> Iterator[Violation]:
    """An attached attachment has an export, and is let in."""
    if not exports:
        yield Violation(
            "S8",
            volume.subject,
            f"attachment {attachment.id} is attached, and {report.backend} does not export the volume",
            "Export it again: `lite doctor --fix`, or restart that cinder-volume",
        )
    elif attachment.who and not any(attachment.who & set(export.let_in) for export in exports.values()):
        yield Violation(
            "S8",
            volume.subject,
            f"attachment {attachment.id} is attached, and its host {attachment.attached_host} is not let in",
            "Let it in again: `lite doctor --fix`, or restart that cinder-volume",
        )


def _of_export(volume: VolumeFact, name: str, export: ExportReport, report: BackendReport) -> Iterator[Violation]:
    """An export of a known volume serves that volume, to whoever holds it, once."""
    if export.path is not None and PurePosixPath(export.path).name != volume.name:
        yield Violation(
            "S12",
            volume.subject,
            f"{name} of {report.backend} is its export, and serves {export.path}",
            "Remove that export at once: it serves bytes of something else",
        )
    if not volume.attachments:
        yield Violation("L3", volume.subject, f"{_exported(name, export, report)}, and it has no attachment", _REMOVE_EXPORT)
        return
    strangers = {peer for peer in {*export.let_in, *export.sessions} if peer not in volume.who}
    is_shared = len(export.sessions) > 1 and not volume.multiattach
    if is_shared:
        yield Violation(
            "S1",
            volume.subject,
            f"{name} of {report.backend} has {len(export.sessions)} sessions at once: {', '.join(export.sessions)}",
            "Find out who may write to it, and end the other session",
        )
    for peer in sorted(strangers):
        if peer not in export.sessions:
            yield Violation(
                "L3",
                volume.subject,
                f"{name} of {report.backend} lets in {peer}, and no attachment of the volume is for it",
                f"Take {peer} off its list: `lite doctor --fix`",
            )
        elif not is_shared:
            yield Violation(
                "S2",
                volume.subject,
                f"{peer} has a session at {name} of {report.backend}, and the volume is held for another: {_shown(volume.attachments)}",
                f"Put {peer} out before anybody else is let in: `lite doctor --fix`",
            )


_REMOVE_EXPORT = "Nothing needs that export; remove it: `lite doctor --fix`"


def _strays(report: BackendReport, facts: Facts) -> Iterator[Violation]:
    """What a backend has that no row of it knows."""
    for name, export in report.exports.items():
        volume = facts.by_id.get(export.volume_id or "")
        if volume is None:
            subject = _volume(export.volume_id) if export.volume_id else f"export:{name}"
            yield Violation("L3", subject, f"{_exported(name, export, report)}, and there is no such volume", _REMOVE_EXPORT)
        elif volume.backend != report.backend and _is_elsewhere(name, volume, facts):
            yield Violation(
                "L3", volume.subject, f"{_exported(name, export, report)}, and the volume is on {volume.backend}", _REMOVE_EXPORT
            )
    here = {volume.name for volume in facts.volumes if volume.backend == report.backend}
    for name in report.volumes:
        if name not in here:
            yield Violation(
                "L3",
                f"volume:{name.removeprefix('volume-')}",
                f"{report.backend} keeps {name}, and no row of that backend knows it",
                "Look at it and keep it elsewhere if somebody needs it; then `lite doctor --fix` removes it",
            )


def _of_snapshot(snapshot: SnapshotFact, facts: Facts) -> Iterator[Violation]:
    """What is wrong with its row, and between it and the backend of its volume."""
    if snapshot.status not in SNAPSHOT.states:
        words = f"its status is {snapshot.status!r}, a word that cinder does not know"
        yield Violation("S7", snapshot.subject, words, "Set the status of its row")
        return
    if snapshot.volume_id not in facts.by_id:
        words = f"it is {snapshot.status}, and its volume {snapshot.volume_id} is gone"
        yield Violation("L3", snapshot.subject, words, "Delete that row of snapshots")
    if snapshot.is_old and snapshot.status not in SNAPSHOT_FINAL:
        yield Violation(
            "L1",
            snapshot.subject,
            f"it has been {snapshot.status} for longer than that may last",
            "Whoever carries its flow on must run: `lite doctor` names services that do not; then `lite doctor --fix`",
        )
    report = facts.reports.get(snapshot.backend or "")
    if report is not None and snapshot.status == SnapshotStatus.AVAILABLE and snapshot.name not in report.snapshots:
        words = f"it is available, and {report.backend} does not keep it"
        yield Violation("L3", snapshot.subject, words, "Its bytes are gone: delete the snapshot")


def _stray_snapshots(report: BackendReport, facts: Facts) -> Iterator[Violation]:
    """What a backend keeps that no row of it knows."""
    here = {snapshot.name for snapshot in facts.snapshots if snapshot.backend == report.backend}
    for name, volume_name in report.snapshots.items():
        if name not in here:
            yield Violation(
                "L3",
                f"snapshot:{name.removeprefix('snapshot-')}",
                f"{report.backend} keeps {name} of {volume_name}, and no row of that backend knows it",
                "Look at it and keep it elsewhere if somebody needs it; then `lite doctor --fix` removes it",
            )


def _is_elsewhere(name: str, volume: VolumeFact, facts: Facts) -> bool:
    """True when the volume's own backend does not tell of that export: backends that share one target tell of each other's."""
    own = facts.reports.get(volume.backend or "")
    return own is not None and name not in own.exports


def _capacity(report: BackendReport, facts: Facts) -> Iterator[Violation]:
    """The sum of the rows is what the backend keeps. Where the names differ, that is another finding."""
    rows = [volume for volume in facts.volumes if volume.backend == report.backend]
    promised = float(sum(volume.size for volume in rows if volume.status in VOLUME.states))
    subject = f"backend:{report.backend}"
    if promised > report.capacity_gb + _GIB_SLACK:
        yield Violation(
            "S13",
            subject,
            f"{promised:g} GiB are promised in its rows, and there are {report.capacity_gb:g} GiB",
            "Give it more room, or delete volumes",
        )
    kept = [volume for volume in rows if volume.name in report.volumes]
    if len(kept) != len(report.volumes) or any(volume.status == Status.EXTENDING for volume in rows):
        return
    most = float(sum(volume.size for volume in kept))
    least = float(sum(volume.size for volume in kept if volume.status in _KEPT))
    if not least - _GIB_SLACK <= report.provisioned_gb <= most + _GIB_SLACK:
        yield Violation(
            "S13",
            subject,
            f"its volumes have {most:g} GiB by their rows, and {report.provisioned_gb:g} GiB on the backend",
            "Compare the size of each volume in its row with what is stored, and mend the row",
        )


def _unreported(facts: Facts) -> Iterator[Violation]:
    """Volumes of a backend that never was, or is no more."""
    lost: dict[str, int] = {}
    for volume in facts.volumes:
        if volume.backend is not None and volume.backend not in facts.backends:
            lost[volume.backend] = lost.get(volume.backend, 0) + 1
    for backend, number in sorted(lost.items()):
        yield Violation(
            UNKNOWN,
            f"backend:{backend}",
            f"volumes in its rows: {number}; no cinder-volume of that name has ever run on this database",
            "Start the cinder-volume that has this backend",
        )


def _orphan(attachment: AttachmentFact) -> Violation:
    return Violation(
        "L3",
        _volume(attachment.volume_id),
        f"attachment {attachment.id} (server {attachment.instance_uuid}) is {attachment.status}, and its volume is gone",
        "Delete that row of volume_attachment: `lite doctor --fix`",
    )


def _secret(volume_id: str) -> Violation:
    return Violation("S14", _volume(volume_id), "it is deleted, and the credentials of its last export are still in its row", _WIPE)


def _exported(name: str, export: ExportReport, report: BackendReport) -> str:
    peers = [f"lets in {', '.join(export.let_in)}"] if export.let_in else []
    peers += [f"has sessions of {', '.join(export.sessions)}"] if export.sessions else []
    return " and ".join([f"{report.backend} exports {name}", *peers])


def _shown(attachments: tuple[AttachmentFact, ...]) -> str:
    return (
        ", ".join(
            f"{held.id} ({held.status}, server {held.instance_uuid}, host {held.attached_host or 'none yet'})"
            for held in attachments
        )
        or "none"
    )


def _volume(volume_id: str) -> str:
    return f"volume:{volume_id}"
