"""(instances.vm_state, instances.task_state) as one table (attach-flow 4.4, the rows of build and delete)."""

from enum import StrEnum, auto

from common.machine.table import Machine
from nova_lite.contract import TaskState as Task, VmState as Vm

State = tuple[Vm, Task | None]


class Event(StrEnum):
    """What happens to a server."""

    SPAWN = auto()
    SPAWNED = auto()
    BUILD_FAILED = auto()
    MACHINE_LOST = auto()
    DELETE = auto()
    DELETE_FAILED = auto()
    DESTROYED = auto()


_SCHEDULING: State = (Vm.BUILDING, Task.SCHEDULING)
_SPAWNING: State = (Vm.BUILDING, Task.SPAWNING)
_ACTIVE: State = (Vm.ACTIVE, None)
_ERROR: State = (Vm.ERROR, None)
_DELETING: State = (Vm.ACTIVE, Task.DELETING)
_DELETED: State = (Vm.DELETED, None)

INSTANCE: Machine[State, Event] = Machine(
    "server",
    start=_SCHEDULING,
    rows={
        (_SCHEDULING, Event.SPAWN): _SPAWNING,
        (_SPAWNING, Event.SPAWN): _SPAWNING,
        (_SPAWNING, Event.SPAWNED): _ACTIVE,
        (_SCHEDULING, Event.BUILD_FAILED): _ERROR,
        (_SPAWNING, Event.BUILD_FAILED): _ERROR,
        (_ACTIVE, Event.MACHINE_LOST): _ERROR,
        (_ACTIVE, Event.DELETE): _DELETING,
        (_ERROR, Event.DELETE): _DELETING,
        (_DELETING, Event.DELETE_FAILED): _ERROR,
        (_DELETING, Event.DESTROYED): _DELETED,
    },
    ends=frozenset({_DELETED}),
)

ATTACH_ALLOWED: frozenset[State] = frozenset({_ACTIVE})
"""States in which volumes may be attached and detached."""

FINAL_STATES: frozenset[State] = frozenset({_ACTIVE, _ERROR, _DELETED})
"""States that nobody is at work on: where `--wait` stops."""
