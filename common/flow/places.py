"""Names of the failpoints of flows: where a test can make a process die in a step, in what takes it back, and around a flow."""

from collections.abc import Iterator
from enum import StrEnum

from common.machine.saga import Saga


class Place(StrEnum):
    """Where in an act."""

    BEFORE = "before"
    """Nothing is written."""
    BEGUN = "begun"
    """The intent is written, nothing has happened."""
    ACTED = "acted"
    """It has happened, nothing says so."""
    DONE = "done"
    """The result is written."""


OPENED = "opened"
"""The flow's row is written; whoever asked for it does not know yet."""
FINISHED = "finished"
"""The flow's end is written; whoever waits for it does not know yet."""


def step_place(saga: str, step: str, place: Place, *, is_undo: bool = False) -> str:
    """attach_volume.connect_volume.begun, attach_volume.connect_volume.undo.begun"""
    return f"{saga}.{step}.undo.{place}" if is_undo else f"{saga}.{step}.{place}"


def places_of(saga: Saga) -> Iterator[str]:
    """Every failpoint of a saga, in the order in which a run comes past them; those of the undos last."""
    yield f"{saga.name}.{OPENED}"
    for step in saga.steps:
        yield from (step_place(saga.name, step.name, place) for place in Place)
    yield f"{saga.name}.{FINISHED}"
    for step in reversed(saga.steps):
        if step.undo is not None:
            yield from (step_place(saga.name, step.name, place, is_undo=True) for place in Place)
