"""The engine of every saga: one pure function from a saga and its journal to the next thing to do.

Laws that it rests on: a row is written before an act (`begun`, `undoing`) and after it (`done`, `failed`, `refused`,
`undone`, `undo-failed`); acts and undos may run twice; behind the pivot only forward. The journal is the only state, so going on after a
crash is asking again. An act that took its process with it CRASHES_MAX times is not tried again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from common.machine.saga import Saga, Step


class Mark(StrEnum):
    """What a journal row says of its step. `failed` leaves open whether something happened; `refused` says that nothing did.

    `resumed` is a person's: what was tried before it no longer counts against the step that a flow was parked at.
    """

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"
    UNDOING = "undoing"
    UNDONE = "undone"
    UNDO_FAILED = "undo-failed"
    RESUMED = "resumed"


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
_ENDS = _FAILURES | {Mark.DONE}
_UNDO_ENDS = frozenset({Mark.UNDONE, Mark.UNDO_FAILED})
_BEGINS = frozenset({Mark.BEGUN, Mark.UNDOING})

CRASHES_MAX = 20
"""Times that an act may be begun and not ended, by a process that died or was stopped in it. Most that die in an act are killed by others."""
_UNSUSPECTED = 2
_CALM_S_MAX = 30.0


def decide(saga: Saga, journal: Sequence[Entry]) -> Decision:
    """What comes next for a saga with this journal, oldest row first."""
    if _turned_back(saga, journal):
        return _back(saga, journal)
    return _forward(saga, journal)


def calm_s(journal: Sequence[Entry], step: Step) -> float:
    """Seconds to leave a process alone before it tries once more what its predecessors died in: should the step be to blame, others get on
    with their work meanwhile; should it not be, it is not in the way of every kill.
    """
    marks = [entry.mark for entry in _since_resumed([entry for entry in journal if entry.step == step.name])]
    begun = sum(mark in _BEGINS for mark in marks)
    crashes = begun - sum(mark in _ENDS or mark in _UNDO_ENDS for mark in marks)
    return 0.0 if crashes < _UNSUSPECTED else min(2.0 ** (crashes - _UNSUSPECTED), _CALM_S_MAX)


def _forward(saga: Saga, journal: Sequence[Entry]) -> Decision:
    is_behind_pivot = _pivoted(saga, journal)
    for step in saga.steps:
        marks = [entry for entry in journal if entry.step == step.name]
        if any(entry.mark is Mark.DONE for entry in marks):
            continue
        recent = _since_resumed(marks)
        if _spent_behind(saga, step, recent) if is_behind_pivot else _spent(step.attempts, recent):
            return Parked(step)
        return Do(step, sum(entry.mark in _FAILURES for entry in recent) + 1)
    return Completed()


def _back(saga: Saga, journal: Sequence[Entry]) -> Decision:
    for step in reversed(saga.steps):
        marks = [entry for entry in journal if entry.step == step.name]
        if step.undo is None or any(entry.mark is Mark.UNDONE for entry in marks) or _had_no_effect(marks):
            continue
        recent = [entry.mark for entry in _since_resumed(marks)]
        failures = recent.count(Mark.UNDO_FAILED)
        crashes = recent.count(Mark.UNDOING) - sum(mark in _UNDO_ENDS for mark in recent)
        return Parked(step) if failures >= saga.patience or crashes >= CRASHES_MAX else Undo(step, failures + 1)
    return Compensated()


def _had_no_effect(entries: Sequence[Entry]) -> bool:
    """Never begun, or every attempt was refused: taking it back would take back what somebody else did."""
    marks = [entry.mark for entry in entries]
    return marks.count(Mark.BEGUN) == marks.count(Mark.REFUSED)


def _pivoted(saga: Saga, journal: Sequence[Entry]) -> bool:
    return any(entry.step == saga.pivot and entry.mark is Mark.DONE for entry in journal)


def _turned_back(saga: Saga, journal: Sequence[Entry]) -> bool:
    """True when a step in front of the pivot has failed for good. Nothing else begins a compensation, and nothing ends it."""
    if _pivoted(saga, journal):
        return False
    return any(_spent(step.attempts, [entry for entry in journal if entry.step == step.name]) for step in saga.steps)


def _spent(attempts: int, marks: Sequence[Entry]) -> bool:
    failures = [entry for entry in marks if entry.mark in _FAILURES]
    crashes = sum(entry.mark is Mark.BEGUN for entry in marks) - sum(entry.mark in _ENDS for entry in marks)
    return len(failures) >= attempts or any(entry.final for entry in failures) or crashes >= CRASHES_MAX


def _spent_behind(saga: Saga, step: Step, marks: Sequence[Entry]) -> bool:
    """Behind the pivot there is no other way than on: even a failure that looks final is met some more times, but not for so long."""
    finals = sum(entry.final for entry in marks)
    crashes = sum(entry.mark is Mark.BEGUN for entry in marks) - sum(entry.mark in _ENDS for entry in marks)
    failures = sum(entry.mark in _FAILURES for entry in marks)
    return failures >= max(step.attempts, saga.patience) or finals >= max(1, saga.patience // 10) or crashes >= CRASHES_MAX


def _since_resumed(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The rows behind the last `resumed`."""
    last = max((number for number, entry in enumerate(entries) if entry.mark is Mark.RESUMED), default=-1)
    return entries[last + 1 :]
