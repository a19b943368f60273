"""The engine of every saga: one pure function from a saga and its journal to the next thing to do.

Laws that it rests on: a row is written before an act (`begun`, `undoing`) and after it (`done`, `failed`, `refused`,
`undone`, `undo-failed`); acts and undos may run twice; behind the pivot only forward. The journal is the only state, so going on after a
crash is asking again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.machine.saga import Saga, Step


class Mark(StrEnum):
    """What a journal row says of its step. `failed` leaves open whether something happened; `refused` says that nothing did."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    UNDOING = "undoing"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal row, as the engine sees it. `final` on a failure: trying again is pointless."""

    step: str
    mark: Mark
    final: bool = False


@dataclass(frozen=True, slots=True)
class Do:
    """Carry out the step; `attempt` counts from 1."""

    step: Step
    attempt: int


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the step back; `attempt` counts from 1."""

    step: Step
    attempt: int


@dataclass(frozen=True, slots=True)
class Completed:
    """Every step is done."""


@dataclass(frozen=True, slots=True)
class Compensated:
    """Every step that was begun is taken back."""


@dataclass(frozen=True, slots=True)
class Parked:
    """Neither forward nor back without a person: retries behind the pivot, or of an undo, are spent."""

    step: Step


Decision = Do | Undo | Completed | Compensated | Parked

_FAILURES = frozenset({Mark.FAILED, Mark.REFUSED})

UNDO_ATTEMPTS = 5
"""An undo is tried more often than its act: giving up leaves something behind."""


def decide(saga: Saga, journal: Sequence[Entry]) -> Decision:
    """What comes next for a saga with this journal, oldest row first."""
    if _turned_back(saga, journal):
        return _back(saga, journal)
    return _forward(saga, journal)


def _forward(saga: Saga, journal: Sequence[Entry]) -> Decision:
    for step in saga.steps:
        marks = [entry for entry in journal if entry.step == step.name]
        if any(entry.mark is Mark.DONE for entry in marks):
            continue
        failures = sum(entry.mark in _FAILURES for entry in marks)
        if _spent(step, marks):
            return Parked(step)
        return Do(step, failures + 1)
    return Completed()


def _back(saga: Saga, journal: Sequence[Entry]) -> Decision:
    for step in reversed(saga.steps):
        marks = [entry.mark for entry in journal if entry.step == step.name]
        if step.undo is None or Mark.UNDONE in marks or _had_no_effect(marks):
            continue
        failures = marks.count(Mark.UNDO_FAILED)
        return Parked(step) if failures >= UNDO_ATTEMPTS else Undo(step, failures + 1)
    return Compensated()


def _had_no_effect(marks: Sequence[Mark]) -> bool:
    """Never begun, or every attempt was refused: taking it back would take back what somebody else did."""
    return marks.count(Mark.BEGUN) == marks.count(Mark.REFUSED)


def _turned_back(saga: Saga, journal: Sequence[Entry]) -> bool:
    """True when a step in front of the pivot has failed for good. Nothing else begins a compensation, and nothing ends it."""
    if any(entry.step == saga.pivot and entry.mark is Mark.DONE for entry in journal):
        return False
    return any(_spent(step, [entry for entry in journal if entry.step == step.name]) for step in saga.steps)


def _spent(step: Step, marks: Sequence[Entry]) -> bool:
    failures = [entry for entry in marks if entry.mark in _FAILURES]
    return len(failures) >= step.attempts or any(entry.final for entry in failures)
