"""(instances.vm_state, instances.task_state) as one table (attach-flow 4.4, the rows of build, delete and power)."""

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
    STOP = auto()
    STOPPED = auto()
    STOP_FAILED = auto()
    START = auto()
    STARTED = auto()
    START_FAILED = auto()
    REBOOT = auto()
    REBOOT_HARD = auto()
    REBOOTED = auto()
    REBOOT_FAILED = auto()
    REBOOT_TAKEN_BACK = auto()
    REBOOT_OF_STOPPED_TAKEN_BACK = auto()
    DELETE = auto()
    DELETE_FAILED = auto()
    DELETE_TAKEN_BACK = auto()
    DELETE_OF_STOPPED_TAKEN_BACK = auto()
    DESTROYED = auto()


_SCHEDULING: State = (Vm.BUILDING, Task.SCHEDULING)
_SPAWNING: State = (Vm.BUILDING, Task.SPAWNING)
_ACTIVE: State = (Vm.ACTIVE, None)
_ERROR: State = (Vm.ERROR, None)
_STOPPED: State = (Vm.STOPPED, None)
_POWERING_OFF: State = (Vm.ACTIVE, Task.POWERING_OFF)
_POWERING_ON: State = (Vm.STOPPED, Task.POWERING_ON)
_REBOOTING: State = (Vm.ACTIVE, Task.REBOOTING)
_REBOOTING_HARD: State = (Vm.ACTIVE, Task.REBOOTING_HARD)
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
        (_ACTIVE, Event.STOP): _POWERING_OFF,
        (_POWERING_OFF, Event.STOPPED): _STOPPED,
        (_POWERING_OFF, Event.STOP_FAILED): _ACTIVE,
        (_STOPPED, Event.START): _POWERING_ON,
        (_POWERING_ON, Event.STARTED): _ACTIVE,
        (_POWERING_ON, Event.START_FAILED): _STOPPED,
        (_ACTIVE, Event.REBOOT): _REBOOTING,
        (_ACTIVE, Event.REBOOT_HARD): _REBOOTING_HARD,
        (_STOPPED, Event.REBOOT_HARD): _REBOOTING_HARD,
        (_ERROR, Event.REBOOT_HARD): _REBOOTING_HARD,
        (_REBOOTING, Event.REBOOTED): _ACTIVE,
        (_REBOOTING_HARD, Event.REBOOTED): _ACTIVE,
        (_REBOOTING, Event.REBOOT_FAILED): _ERROR,
        (_REBOOTING_HARD, Event.REBOOT_FAILED): _ERROR,
        (_REBOOTING, Event.REBOOT_TAKEN_BACK): _ACTIVE,
        (_REBOOTING_HARD, Event.REBOOT_TAKEN_BACK): _ACTIVE,
        (_REBOOTING_HARD, Event.REBOOT_OF_STOPPED_TAKEN_BACK): _STOPPED,
        (_ACTIVE, Event.DELETE): _DELETING,
        (_STOPPED, Event.DELETE): _DELETING,
        (_ERROR, Event.DELETE): _DELETING,
        (_DELETING, Event.DELETE_FAILED): _ERROR,
        (_DELETING, Event.DELETE_TAKEN_BACK): _ACTIVE,
        (_DELETING, Event.DELETE_OF_STOPPED_TAKEN_BACK): _STOPPED,
        (_DELETING, Event.DESTROYED): _DELETED,
    },
    ends=frozenset({_DELETED}),
)

_FAILED = {
    Event.STOP: Event.STOP_FAILED,
    Event.START: Event.START_FAILED,
    Event.REBOOT: Event.REBOOT_FAILED,
    Event.REBOOT_HARD: Event.REBOOT_FAILED,
    Event.DELETE: Event.DELETE_FAILED,
}
_TAKEN_BACK = {
    (Event.REBOOT, Vm.ACTIVE): Event.REBOOT_TAKEN_BACK,
    (Event.REBOOT_HARD, Vm.ACTIVE): Event.REBOOT_TAKEN_BACK,
    (Event.REBOOT_HARD, Vm.STOPPED): Event.REBOOT_OF_STOPPED_TAKEN_BACK,
    (Event.DELETE, Vm.ACTIVE): Event.DELETE_TAKEN_BACK,
    (Event.DELETE, Vm.STOPPED): Event.DELETE_OF_STOPPED_TAKEN_BACK,
}


def takes_back(begun: Event, was: Vm) -> Event:
    """What makes a server again what it was before `begun`, where its host was never told, so that its machine was not touched."""
    return _TAKEN_BACK.get((begun, was), _FAILED[begun])


ATTACH_ALLOWED: frozenset[State] = frozenset({_ACTIVE})
"""States in which volumes may be attached."""

DETACH_ALLOWED: frozenset[State] = frozenset({_ACTIVE, _STOPPED})
"""States in which volumes may be detached: a machine that is off has let go already."""

FINAL_STATES: frozenset[State] = frozenset({_ACTIVE, _STOPPED, _ERROR, _DELETED})
"""States that nobody is at work on: where `--wait` stops."""
