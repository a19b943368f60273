"""snapshots.status as a table (attach-flow 4.5, the rows of create and delete)."""

from enum import StrEnum, auto

from cinder_lite.contract import SnapshotStatus as Status
from common.base.ids import is_uuid
from common.machine.table import Machine


class Event(StrEnum):
    """What happens to a snapshot."""

    CREATED = auto()
    CREATE_FAILED = auto()
    DELETE = auto()
    DELETE_BUSY = auto()
    DELETE_FAILED = auto()
    DESTROYED = auto()


SNAPSHOT: Machine[Status, Event] = Machine(
    "snapshot",
    start=Status.CREATING,
    rows={
        (Status.CREATING, Event.CREATED): Status.AVAILABLE,
        (Status.CREATING, Event.CREATE_FAILED): Status.ERROR,
        (Status.AVAILABLE, Event.DELETE): Status.DELETING,
        (Status.ERROR, Event.DELETE): Status.DELETING,
        (Status.ERROR_DELETING, Event.DELETE): Status.DELETING,
        (Status.DELETING, Event.DELETE_BUSY): Status.AVAILABLE,
        (Status.DELETING, Event.DELETE_FAILED): Status.ERROR_DELETING,
        (Status.DELETING, Event.DESTROYED): Status.DELETED,
    },
    ends=frozenset({Status.DELETED}),
)

FINAL_STATES = frozenset({Status.AVAILABLE, Status.ERROR, Status.ERROR_DELETING, Status.DELETED})
"""States that nobody is at work on: where `--wait` stops."""


def snapshot_id_of(name: str) -> str | None:
    """The id in the name of a snapshot; None for the name of something else."""
    prefix, found, snapshot_id = name.partition("snapshot-")
    return snapshot_id if found and not prefix and is_uuid(snapshot_id) else None
