"""volume_attachment.attach_status as a table (attach-flow 4.3)."""

from enum import StrEnum, auto

from cinder_lite.contract import AttachStatus as Status
from common.machine.table import Machine


class Event(StrEnum):
    """What happens to an attachment. The volume's events of the same names happen in the same transaction."""

    CONNECT = auto()
    ATTACHED = auto()
    BEGIN_DETACHING = auto()
    ROLL_DETACHING = auto()
    DETACHED = auto()


ATTACHMENT: Machine[Status, Event] = Machine(
    "volume attachment",
    start=Status.RESERVED,
    rows={
        (Status.RESERVED, Event.CONNECT): Status.ATTACHING,
        (Status.ATTACHING, Event.CONNECT): Status.ATTACHING,
        (Status.ATTACHING, Event.ATTACHED): Status.ATTACHED,
        (Status.ATTACHED, Event.ATTACHED): Status.ATTACHED,
        (Status.ATTACHED, Event.BEGIN_DETACHING): Status.DETACHING,
        (Status.DETACHING, Event.ROLL_DETACHING): Status.ATTACHED,
        (Status.RESERVED, Event.DETACHED): Status.DETACHED,
        (Status.ATTACHING, Event.DETACHED): Status.DETACHED,
        (Status.ATTACHED, Event.DETACHED): Status.DETACHED,
        (Status.DETACHING, Event.DETACHED): Status.DETACHED,
    },
    ends=frozenset({Status.DETACHED}),
)
