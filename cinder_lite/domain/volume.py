"""volumes.status as a table (attach-flow 4.1, the rows of create, attach, detach and delete)."""

from enum import StrEnum, auto

from cinder_lite.contract import AttachStatus, VolumeStatus as Status
from common.base.ids import is_uuid
from common.machine.table import Machine


class Event(StrEnum):
    """What happens to a volume."""

    CREATED = auto()
    CREATE_FAILED = auto()
    RESERVE = auto()
    UNRESERVE = auto()
    ATTACHED = auto()
    BEGIN_DETACHING = auto()
    ROLL_DETACHING = auto()
    DETACHED = auto()
    EXTEND = auto()
    EXTENDED = auto()
    EXTENDED_IN_USE = auto()
    EXTEND_FAILED = auto()
    ROLL_EXTENDING = auto()
    DELETE = auto()
    DELETE_BUSY = auto()
    DELETE_FAILED = auto()
    DESTROYED = auto()
    RESET_AVAILABLE = auto()
    RESET_ERROR = auto()
    RESET_IN_USE = auto()


_MOVING = (Status.ATTACHING, Status.IN_USE, Status.DETACHING, Status.EXTENDING, Status.ERROR_EXTENDING)

VOLUME: Machine[Status, Event] = Machine(
    "volume",
    start=Status.CREATING,
    rows={
        (Status.CREATING, Event.CREATED): Status.AVAILABLE,
        (Status.CREATING, Event.CREATE_FAILED): Status.ERROR,
        (Status.AVAILABLE, Event.RESERVE): Status.ATTACHING,
        (Status.ATTACHING, Event.UNRESERVE): Status.AVAILABLE,
        (Status.ATTACHING, Event.ATTACHED): Status.IN_USE,
        (Status.IN_USE, Event.BEGIN_DETACHING): Status.DETACHING,
        (Status.DETACHING, Event.ROLL_DETACHING): Status.IN_USE,
        # ATTACHING: the compensation of an attachment that cinder had already completed when its answer was lost.
        (Status.DETACHING, Event.DETACHED): Status.AVAILABLE,
        (Status.ATTACHING, Event.DETACHED): Status.AVAILABLE,
        (Status.IN_USE, Event.DETACHED): Status.AVAILABLE,
        (Status.AVAILABLE, Event.EXTEND): Status.EXTENDING,
        (Status.IN_USE, Event.EXTEND): Status.EXTENDING,
        (Status.EXTENDING, Event.EXTENDED): Status.AVAILABLE,
        (Status.EXTENDING, Event.EXTENDED_IN_USE): Status.IN_USE,
        (Status.EXTENDING, Event.EXTEND_FAILED): Status.ERROR_EXTENDING,
        # Cinder leaves an attached volume in error_extending, where nobody can detach it; it is as it was, and its guest works on.
        (Status.EXTENDING, Event.ROLL_EXTENDING): Status.IN_USE,
        (Status.ERROR_EXTENDING, Event.DELETE): Status.DELETING,
        (Status.AVAILABLE, Event.DELETE): Status.DELETING,
        (Status.ERROR, Event.DELETE): Status.DELETING,
        (Status.ERROR_DELETING, Event.DELETE): Status.DELETING,
        (Status.DELETING, Event.DELETE_BUSY): Status.AVAILABLE,
        (Status.DELETING, Event.DELETE_FAILED): Status.ERROR_DELETING,
        (Status.DELETING, Event.DESTROYED): Status.DELETED,
        # An administrator's, who is only believed as far as the rows and the backend bear him out.
        **{(state, Event.RESET_AVAILABLE): Status.AVAILABLE for state in (Status.ERROR, Status.ERROR_DELETING, *_MOVING)},
        **{(state, Event.RESET_ERROR): Status.ERROR for state in (Status.AVAILABLE, Status.ERROR_DELETING, *_MOVING)},
        (Status.ERROR, Event.RESET_IN_USE): Status.IN_USE,
    },
    ends=frozenset({Status.DELETED}),
)


def attach_status_of(status: Status) -> AttachStatus | None:
    """volumes.attach_status is a function of the status, so nothing can set the one without the other.

    None: it stays as it was, for a volume is extended attached or not.
    """
    match status:
        case Status.EXTENDING:
            return None
        case Status.IN_USE | Status.DETACHING:
            return AttachStatus.ATTACHED
        case Status.DELETED:
            return AttachStatus.DELETED
        case _:
            return AttachStatus.DETACHED


EXTENDABLE = frozenset({Status.AVAILABLE, Status.IN_USE})
"""States in which a volume may be extended, and those in which a snapshot or a copy of it may be taken."""


def volume_id_of(name: str) -> str | None:
    """The id in the name of a volume or of its export, which ends with it; None for the name of something else."""
    _, found, volume_id = name.rpartition("volume-")
    return volume_id if found and is_uuid(volume_id) else None


FINAL_STATES = frozenset(
    {Status.AVAILABLE, Status.IN_USE, Status.ERROR, Status.ERROR_DELETING, Status.ERROR_EXTENDING, Status.DELETED}
)
"""States that nobody is at work on: where `--wait` stops."""
