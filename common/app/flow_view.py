"""Flows as an operator sees them: found by the beginning of an id, with their last step, their owner, and what comes next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from common.app.cli import span
from common.app.masking import mask_text
from common.base.clock import Clock
from common.base.errors import Ambiguous, NotFound
from common.db.engine import Database
from common.db.journal import FlowRow, FlowState, Journal, JournalRow
from common.db.lease import Leases
from common.db.tables import flows
from common.machine.ahead import ahead
from common.machine.decide import Completed, Do, Mark, Undo
from common.machine.saga import Saga

OPEN = (FlowState.RUNNING, FlowState.PARKED)
"""The states of a flow that is not over."""
_NAMED_MAX = 10


class NoSuchFlow(NotFound):
    """There is no flow whose id is {name} or begins so; `lite flow list --all` shows the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowView:
    """A flow, and what its rows and its owner's lease say.

    last    the newest row of its journal; None: no step was begun
    lives   its owner holds its lease
    next    what comes behind the step that is in progress; None: nobody can say, since no installed service has such a saga
    error   the last thing that went wrong, secrets masked
    """

    row: FlowRow
    last: JournalRow | None
    lives: bool
    next: str | None = None
    error: str | None = None

    @property
    def moved_at(self) -> datetime | None:
        """When something of it was last written."""
        return self.last.created_at if self.last is not None else self.row.created_at

    @property
    def step(self) -> str | None:
        """Its last step and how far that is: "connect_volume begun"."""
        return None if self.last is None else f"{self.last.step} {self.last.mark}"

    @property
    def owner(self) -> str:
        """Its owner, and whether that lives."""
        if self.row.state not in OPEN:
            return f"{self.row.owner or 'nobody'}, no longer at work on it"
        if not self.row.owner:
            return f"nobody yet; any process of home {self.row.home} takes it"
        if self.lives:
            return f"{self.row.owner}, whose lease lives"
        return f"{self.row.owner}, whose lease is over; any process of home {self.row.home} takes it"

    def deadline(self, now: datetime) -> str | None:
        """What is left of the time of who asked for it."""
        if self.row.deadline is None:
            return None
        if self.row.is_over:
            return f"passed {span((now - self.row.deadline).total_seconds())} ago"
        return f"in {span((self.row.deadline - now).total_seconds())}"

    def to_dict(self, now: datetime) -> dict[str, object]:
        """For JSON, without arguments."""
        row, last = self.row, self.last
        return {
            "id": row.id, "saga": row.saga, "subject": row.subject, "state": row.state, "request_id": row.request_id,
            "home": row.home, "owner": row.owner, "owner_lives": self.lives, "fence": row.fence,
            "step": last.step if last else None, "mark": last.mark if last else None, "attempt": last.attempt if last else None,
            "step_at": last.created_at if last else None, "created_at": row.created_at, "updated_at": row.updated_at,
            "age_s": seconds_since(row.created_at, now), "deadline": row.deadline, "is_over": row.is_over, "next": self.next,
            "error": self.error,
        }  # fmt: skip


async def find_flow(journal: Journal, name: str) -> FlowRow:
    """The flow of that id, or of the only id that begins so. Raises NoSuchFlow, Ambiguous."""
    if (exact := await journal.flow(name)) is not None:
        return exact
    found = await journal.list(flows.c.id.startswith(name, autoescape=True)) if name else []
    if not found:
        raise NoSuchFlow(name=repr(name))
    if len(found) > 1:
        more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
        raise Ambiguous(kind="flow", name=name, candidates=", ".join(row.id for row in found[:_NAMED_MAX]) + more)
    return found[0]


async def view(database: Database, clock: Clock, row: FlowRow, sagas: Mapping[str, Saga]) -> tuple[FlowView, list[JournalRow]]:
    """One flow, with its journal."""
    entries = await Journal(database, clock).entries(row.id)
    return viewed(row, entries, await Leases(database).living(), sagas), entries


def viewed(row: FlowRow, entries: Sequence[JournalRow], living: frozenset[str], sagas: Mapping[str, Saga]) -> FlowView:
    """A flow by its rows, and by who lives."""
    errors = [row.error, *(entry.error for entry in reversed(entries))]
    error = next((text for text in errors if text), None)
    return FlowView(
        row=row,
        last=entries[-1] if entries else None,
        lives=row.owner in living,
        next=next_of(row, entries, sagas),
        error=None if error is None else mask_text(error),
    )


def next_of(row: FlowRow, entries: Sequence[JournalRow], sagas: Mapping[str, Saga]) -> str | None:
    """What comes behind the step that is in progress, if that goes well."""
    match row.state:
        case FlowState.PARKED:
            return f"a person: `lite flow resume {row.id}` or `lite flow abandon {row.id} --reason TEXT`"
        case FlowState.COMPLETED | FlowState.COMPENSATED | FlowState.ABANDONED:
            return "nothing: it is over"
        case FlowState.RUNNING:
            if row.saga not in sagas:
                return None
            todo = ahead(sagas[row.saga], [entry.entry for entry in entries])
            is_at_it = bool(entries) and entries[-1].mark in {Mark.BEGUN, Mark.UNDOING}
            behind = todo.acts[1 if is_at_it else 0 :]
            return said(behind[0]) if behind else "completed" if isinstance(todo.end, Completed) else "compensated"
        case state:
            assert_never(state)


def said(act: Do | Undo) -> str:
    """An act of a saga in words."""
    return act.step.name if isinstance(act, Do) else f"{act.step.undo}, which takes {act.step.name} back"


def seconds_since(then: datetime | None, now: datetime) -> float | None:
    """None for what has no time."""
    return None if then is None else round((now - then).total_seconds(), 3)


def age(then: datetime | None, now: datetime) -> str | None:
    """The same for people."""
    seconds = seconds_since(then, now)
    return None if seconds is None else span(seconds)
