"""What a backend has to mend: rows, what is really there, and who is at work in; actions out. Pure.

    volume `creating`, placed here, nobody at work                                create_volume: the order was lost
    volume `deleting`, nobody at work                                             delete_volume: the order was lost
    volume `extending`, nobody at work                                            extend_volume: the order was lost
    snapshot `creating`, nobody at work on its volume                             create_snapshot: the order was lost
    snapshot `deleting`, nobody at work on its volume                             delete_snapshot: the order was lost
    held by an initiator, its row says exported, and there is no export,          restore_export: a tgtd that was restarted
    or one that serves something else; also while others are at work on it        keeps nothing, and guests wait
    ... or the export does not let that initiator in, or lets others in           restore_export
    exported, and no live attachment has a connector; row live or deleted         remove_stale_export
    not held, not exported, and the row says that it is exported                  remove_stale_export
    bytes of a snapshot whose row is deleted                                      remove_stale_snapshot
    bytes of a volume whose row is deleted                                        remove_stale_volume

What no row of this backend knows is left alone: the doctor tells of it, and a person decides. Of a part that does not answer
nothing is known, and nothing is decided.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, auto
from functools import cached_property
from itertools import chain
from pathlib import PurePosixPath

from cinder_lite.contract import ExportReport, SnapshotStatus, VolumeStatus as Status
from common.base.settling import Busy, is_young, one_for_each

_HELD = frozenset({Status.ATTACHING, Status.IN_USE, Status.DETACHING, Status.EXTENDING})
_IDLE = frozenset({Status.AVAILABLE, Status.ERROR, Status.ERROR_DELETING, Status.ERROR_EXTENDING})


class Mend(StrEnum):
    """What is done about it; the values are names of sagas."""

    CREATE_VOLUME = auto()
    DELETE_VOLUME = auto()
    EXTEND_VOLUME = auto()
    CREATE_SNAPSHOT = auto()
    DELETE_SNAPSHOT = auto()
    RESTORE_EXPORT = auto()
    REMOVE_STALE_EXPORT = auto()
    REMOVE_STALE_SNAPSHOT = auto()
    REMOVE_STALE_VOLUME = auto()


@dataclass(frozen=True, slots=True)
class Action:
    """One mending. `snapshot_id`: which of the volume's, when it is one's. `why` is for people."""

    mend: Mend
    volume_id: str
    destroys: bool = False
    why: str = field(default="", compare=False)
    snapshot_id: str | None = None

    @property
    def subject(self) -> str:
        return f"volume:{self.volume_id}"

    def __str__(self) -> str:
        return f"{self.mend}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachmentFact:
    """A live row of volume_attachment. `who`: the names by which its connector may be let in; none before it has one."""

    id: str
    who: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class VolumeFact:
    """A row of volumes of this backend, live or deleted, with its live attachments."""

    id: str
    status: str
    changed_at: datetime | None = None
    is_deleted: bool = False
    multiattach: bool = False
    provider_location: str | None = None
    has_auth: bool = False
    attachments: tuple[AttachmentFact, ...] = ()

    @property
    def name(self) -> str:
        """The backend's name of it."""
        return f"volume-{self.id}"

    @cached_property
    def holders(self) -> tuple[AttachmentFact, ...]:
        """The attachments that an export is for."""
        return tuple(held for held in self.attachments if held.who)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFact:
    """A row of snapshots of a volume of this backend, live or deleted."""

    id: str
    volume_id: str
    status: str
    changed_at: datetime | None = None
    is_deleted: bool = False

    @property
    def name(self) -> str:
        """The backend's name of it."""
        return f"snapshot-{self.id}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that a backend's reconciler looks at.

    now       by the database's clock
    volumes   by id: every live row of this backend, and the deleted ones of which the backend has something
    exports   by name, what the target has; None: it does not answer
    kept      names of the volumes and snapshots that the driver keeps; None: it does not answer
    snapshots every live row, and the deleted ones of which the backend has something
    own       volumes on which this backend itself is at work
    """

    now: datetime
    volumes: Mapping[str, VolumeFact]
    exports: Mapping[str, ExportReport] | None
    kept: frozenset[str] | None
    snapshots: tuple[SnapshotFact, ...] = ()
    busy: Busy = field(default_factory=Busy)
    own: frozenset[str] = frozenset()

    @cached_property
    def exports_of(self) -> Mapping[str, tuple[ExportReport, ...]]:
        """The exports of each volume that a name tells of."""
        found: dict[str, tuple[ExportReport, ...]] = {}
        for export in (self.exports or {}).values():
            if export.volume_id is not None:
                found[export.volume_id] = (*found.get(export.volume_id, ()), export)
        return found


def settle(facts: Facts) -> list[Action]:
    """What is wrong now, at most one action for each volume."""
    of_snapshots = (action for snapshot in facts.snapshots for action in _of_snapshot(snapshot, facts))
    of_volumes = (action for volume in facts.volumes.values() for action in _actions(volume, facts))
    # A volume that has snapshots cannot be deleted, so what is left of these goes first; but guests do not wait for it.
    found = chain(of_volumes, of_snapshots)
    return one_for_each(sorted(found, key=lambda action: action.mend is not Mend.RESTORE_EXPORT and action.snapshot_id is None))


def _of_snapshot(snapshot: SnapshotFact, facts: Facts) -> Iterator[Action]:
    if snapshot.volume_id in facts.busy or is_young(facts.now, snapshot.changed_at):
        return
    mend, why = None, ""
    if snapshot.is_deleted:
        if facts.kept is not None and snapshot.name in facts.kept:
            mend, why = Mend.REMOVE_STALE_SNAPSHOT, "it is deleted, and its bytes are still there"
    elif snapshot.status == SnapshotStatus.CREATING:
        mend, why = Mend.CREATE_SNAPSHOT, "it is creating, and nobody is at work on it"
    elif snapshot.status == SnapshotStatus.DELETING:
        mend, why = Mend.DELETE_SNAPSHOT, "it is deleting, and nobody is at work on it"
    if mend is not None:
        why = f"snapshot {snapshot.id}: {why}"
        yield Action(mend, snapshot.volume_id, mend is Mend.REMOVE_STALE_SNAPSHOT, why=why, snapshot_id=snapshot.id)


def _actions(volume: VolumeFact, facts: Facts) -> Iterator[Action]:
    """Whoever is at work on an attachment elsewhere may be waiting for its lost export, as a guest does that is to let go of it."""
    if volume.id not in facts.busy:
        yield from _of_volume(volume, facts)
    elif volume.id not in facts.own and facts.exports is not None and not volume.is_deleted:
        yield from _of_lost(volume, facts.exports_of.get(volume.id, ()))


def _of_volume(volume: VolumeFact, facts: Facts) -> Iterator[Action]:
    young = is_young(facts.now, volume.changed_at)
    if not volume.is_deleted and not young:
        if volume.status == Status.CREATING:
            yield Action(Mend.CREATE_VOLUME, volume.id, why="it is creating, and nobody is at work on it")
        elif volume.status == Status.DELETING:
            yield Action(Mend.DELETE_VOLUME, volume.id, why="it is deleting, and nobody is at work on it")
        elif volume.status == Status.EXTENDING:
            yield Action(Mend.EXTEND_VOLUME, volume.id, why="it is extending, and nobody is at work on it")
    if facts.exports is not None:
        if volume.holders:
            yield from _of_holders(volume, facts.exports_of.get(volume.id, ()), young=young)
        elif not young:
            yield from _of_nobody(volume, facts.exports_of.get(volume.id, ()))
    if volume.is_deleted and not young and facts.kept is not None and volume.name in facts.kept:
        yield Action(Mend.REMOVE_STALE_VOLUME, volume.id, destroys=True, why="it is deleted, and its bytes are still there")


def _of_holders(volume: VolumeFact, exports: tuple[ExportReport, ...], *, young: bool) -> Iterator[Action]:
    """A missing export is brought back at once, for nothing but a lost one looks so while this backend is not at work on it."""
    if volume.status not in _HELD or volume.provider_location is None:
        return
    lost = list(_of_lost(volume, exports))
    if lost:
        yield from lost
        return
    let_in = {name for export in exports for name in export.let_in}
    if young:
        return
    if not all(held.who & let_in for held in volume.holders):
        yield Action(Mend.RESTORE_EXPORT, volume.id, why="it is held by a host that is not let in")
    elif not volume.multiattach and let_in - {name for held in volume.holders for name in held.who}:
        yield Action(Mend.RESTORE_EXPORT, volume.id, destroys=True, why="a host is let in that does not hold it")


def _of_lost(volume: VolumeFact, exports: tuple[ExportReport, ...]) -> Iterator[Action]:
    is_held = volume.holders and volume.status in _HELD and volume.provider_location is not None
    if is_held and not any(export.path is not None and PurePosixPath(export.path).name == volume.name for export in exports):
        yield Action(Mend.RESTORE_EXPORT, volume.id, why="it is held, and not exported")


def _of_nobody(volume: VolumeFact, exports: tuple[ExportReport, ...]) -> Iterator[Action]:
    if exports:
        yield Action(Mend.REMOVE_STALE_EXPORT, volume.id, destroys=True, why="it is exported, and nobody holds it")
    elif not volume.is_deleted and volume.status in _IDLE and (volume.provider_location is not None or volume.has_auth):
        yield Action(Mend.REMOVE_STALE_EXPORT, volume.id, destroys=True, why="its row says it is exported, and it is not")
