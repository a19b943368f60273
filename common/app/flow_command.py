"""`lite flow`: the runs of sagas, and a person's word on those that stopped."""

import getpass
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import structlog
import typer
from sqlalchemy import ColumnElement

from common.app.cli import print_json, print_properties, print_table
from common.app.commands import AsJson, ConfigFiles, Debug, agreed, on_database, tell
from common.app.exits import Exit
from common.app.flow_view import OPEN, FlowView, age, find_flow, said, seconds_since, view
from common.app.following import follow
from common.app.masking import mask, mask_text
from common.app.whole import read_whole
from common.base.clock import Clock
from common.base.errors import Conflict
from common.base.limits import LIST_ROWS_MAX
from common.db.engine import Database
from common.db.journal import FlowRow, FlowState, Journal, JournalRow
from common.db.lease import Leases
from common.db.owner import is_of_home
from common.db.tables import flows
from common.machine.ahead import ahead
from common.machine.decide import Completed
from common.machine.saga import Saga

app = typer.Typer(
    help="Flows: what was begun, how far each is, and those that stopped and wait for a person.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(metavar="FLOW-ID", help="Its id, or the beginning of it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

RESUME_WAIT_S = 15.0
"""Longer than a process takes to look for work that was left behind."""

_log = structlog.get_logger(__name__)


@app.command("list")
def list_(
    state: Annotated[list[FlowState] | None, typer.Option("--state", help="Only those in this state; repeat it for several. Default: running and parked.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", metavar="SUBJECT", help="Only those about this: server:UUID, volume:ID, or the id alone.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="In any state.")] = False,
    json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """List them, the oldest first."""
    if all_ and state:
        raise typer.BadParameter("--all and --state contradict each other; leave one out")
    whole = read_whole(config_file, debug=debug)
    states = list(FlowState) if all_ else state or list(OPEN)

    async def work(database: Database, clock: Clock) -> tuple[list[FlowView], datetime]:
        return await listed(database, clock, states=states, subject=subject), clock.utcnow()

    found, now = on_database(whole, work)
    if json:
        print_json([each.to_dict(now) for each in found])
        return
    columns = ("Id", "Subject", "State", "Step", "Attempt", "Owner", "Age", "Request Id", "Error")
    print_table(columns, [_cells(each, now) for each in found])
    if len(found) == LIST_ROWS_MAX:
        tell(f"These are the newest {LIST_ROWS_MAX}; --state and --subject narrow them down.")


@app.command()
def show(id_: Id, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Show one, and row by row what happened to it; secrets are masked."""
    whole = read_whole(config_file, debug=debug)

    async def work(database: Database, clock: Clock) -> tuple[FlowView, list[JournalRow], datetime]:
        row = await find_flow(Journal(database, clock), id_)
        return *(await view(database, clock, row, whole.sagas)), clock.utcnow()

    found, entries, now = on_database(whole, work)
    if json:
        print_json({**found.to_dict(now), **_secretless(found.row), "journal": [_entry(entry) for entry in entries]})
        return
    print_properties(_properties(found, now))
    print_table(("#", "Time", "After", "Step", "Mark", "Attempt", "Error"), _journal(found.row, entries))


@app.command()
def resume(
    id_: Id,
    wait: Annotated[float, typer.Option("--wait", min=0, metavar="SECONDS", help="Watch it for so long; 0: do not.")] = RESUME_WAIT_S,
    config_file: ConfigFiles = None, debug: Debug = False,
) -> int:  # fmt: skip
    """Let a parked one go on: the step that it stopped at is tried anew. Mend first what made it stop.

    Exit codes: 0 it ended, 1 it is parked again, 2 it still runs after --wait, 3 no process is up that may carry it on.
    """
    whole = read_whole(config_file, debug=debug)

    async def work(database: Database, clock: Clock) -> int:
        row = await resumed(database, clock, id_)
        return await watched(database, clock, row, wait_s=wait)

    return on_database(whole, work)


@app.command()
def abandon(
    id_: Id,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those who come after you.")],
    yes: Yes = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> int:  # fmt: skip
    """Give a parked one up. Nothing more is done or undone: what it left behind is yours, and is told before you are asked."""
    if not reason.strip():
        raise typer.BadParameter("--reason is empty; say why")
    whole = read_whole(config_file, debug=debug)

    async def look(database: Database, clock: Clock) -> tuple[FlowView, list[JournalRow]]:
        return await view(database, clock, await find_flow(Journal(database, clock), id_), whole.sagas)

    found, entries = on_database(whole, look)
    row = found.row
    if row.state is not FlowState.PARKED:
        raise Conflict(kind="Flow", name=row.id, found=row.state, expected=FlowState.PARKED)
    for line in left_behind(row, entries, whole.sagas.get(row.saga)):
        tell(line)
    if not yes and not agreed(f"abandon {row.saga} of {row.subject}?"):
        tell("Nothing was changed.")
        return Exit.REFUSED
    on_database(whole, lambda database, clock: Journal(database, clock).abandon(row.id, reason))
    audit("abandoned", row, reason=reason)
    return Exit.OK


async def listed(database: Database, clock: Clock, *, states: Sequence[FlowState], subject: str | None = None) -> list[FlowView]:
    """The newest LIST_ROWS_MAX flows in these states and about this subject, oldest first."""
    journal = Journal(database, clock)
    where: list[ColumnElement[bool]] = [flows.c.state.in_([str(state) for state in states])]
    if subject is not None:
        where.append(flows.c.subject == subject if ":" in subject else flows.c.subject.endswith(f":{subject}", autoescape=True))
    rows = await journal.list(*where)
    last, living = await journal.last_entries([row.id for row in rows]), await Leases(database).living()
    return [_listed(row, last.get(row.id), living) for row in rows]


def _listed(row: FlowRow, last: JournalRow | None, living: frozenset[str]) -> FlowView:
    error = row.error or (last.error if last else None)
    return FlowView(row=row, last=last, lives=row.owner in living, error=mask_text(error) if error else None)


async def resumed(database: Database, clock: Clock, name: str) -> FlowRow:
    """The flow, which may go on from now. Raises NoSuchFlow, Ambiguous, Conflict."""
    journal = Journal(database, clock)
    row = await find_flow(journal, name)
    await journal.resume(row.id)
    audit("resumed", row)
    return row


async def watched(database: Database, clock: Clock, row: FlowRow, *, wait_s: float) -> Exit:
    """Tell how a flow that was resumed goes on, for `wait_s` seconds. Raises Timeout when it still runs then."""
    living = await Leases(database).living()
    if not any(is_of_home(owner, row.home) for owner in living):
        tell(
            f"No process of home {row.home or '(unknown)'} is up to carry it on. The flow is running again, and goes on as soon as one is."
        )
        return Exit.NOBODY_LISTENS
    if not wait_s:
        tell(f"It is carried on within moments; `lite flow show {row.id}` shows how.")
        return Exit.OK
    journal = Journal(database, clock)

    async def look() -> tuple[FlowRow, JournalRow | None]:
        now = await journal.flow(row.id)
        assert now is not None, "flows are never deleted"
        return now, (await journal.last_entries([row.id])).get(row.id)

    now, _ = await follow(
        look,
        is_final=lambda seen: seen[0].state is not FlowState.RUNNING,
        shown=lambda seen: f"{row.saga} of {row.subject}: {_progress(*seen)}",
        tell=tell,
        clock=clock,
        what=f"flow {row.id}",
        timeout_s=wait_s,
    )
    if now.error:
        tell(f"reason: {mask_text(now.error)}")
    return Exit.OK if now.state in {FlowState.COMPLETED, FlowState.COMPENSATED} else Exit.REFUSED


def _progress(row: FlowRow, last: JournalRow | None) -> str:
    return f"{row.state}, {last.step} {last.mark}" if row.state is FlowState.RUNNING and last else str(row.state)


def left_behind(row: FlowRow, entries: Sequence[JournalRow], saga: Saga | None) -> list[str]:
    """What stays as it is when a parked flow is given up, in lines."""
    why = [f"{row.saga} of {row.subject} is parked: {mask_text(row.error or 'no reason is recorded')}"]
    if saga is None:
        return [
            *why,
            f"No installed service has the saga {row.saga}: what stays behind has to be read from `lite flow show {row.id}`.",
        ]
    todo = ahead(saga, [entry.entry for entry in entries])
    if isinstance(todo.end, Completed):
        head = "It is behind the point of no return, and these steps are not done:"
    else:
        head = "It had turned back. These steps have, or may have, taken effect, and are not undone:"
    return [*why, head, *(f"  {said(act)}" for act in todo.acts), f"`lite where {row.subject}` shows what that leaves."]


def audit(what: str, row: FlowRow, **more: str) -> None:
    """A line on stderr: who did what to which flow. A warning, so that no level hides it."""
    _log.warning(
        f"flow {what}", user=getpass.getuser(), id=row.id, saga=row.saga, subject=row.subject, of_request=row.request_id,
        error=mask_text(row.error or ""), **more,
    )  # fmt: skip


def _cells(found: FlowView, now: datetime) -> tuple[object, ...]:
    row, last = found.row, found.last
    owner = f"{row.owner or 'nobody'}{'' if found.lives or row.state is not FlowState.RUNNING else ' (gone)'}"
    return (
        row.id, row.subject, row.state, found.step, last.attempt if last else None, owner, age(row.created_at, now),
        row.request_id, found.error,
    )  # fmt: skip


def _properties(found: FlowView, now: datetime) -> dict[str, object]:
    row = found.row
    return {
        "id": row.id, "saga": row.saga, "subject": row.subject, "state": row.state, "next": found.next, "owner": found.owner,
        "home": row.home, "fence": row.fence, "request_id": row.request_id, "deadline": found.deadline(now), "error": found.error,
        "created_at": row.created_at, "updated_at": row.updated_at, "arguments": mask(row.arguments),
    }  # fmt: skip


def _secretless(row: FlowRow) -> dict[str, object]:
    return {"arguments": mask(row.arguments), "context": mask(row.context)}


def _entry(entry: JournalRow) -> dict[str, object]:
    return {
        "seq": entry.seq, "step": entry.step, "mark": entry.mark, "attempt": entry.attempt, "final": entry.final,
        "output": mask(entry.output), "error": mask_text(entry.error) if entry.error else None, "created_at": entry.created_at,
    }  # fmt: skip


def _journal(row: FlowRow, entries: Sequence[JournalRow]) -> list[tuple[object, ...]]:
    """The journal's rows; "After" is the time since the row before."""
    before, rows = row.created_at, list[tuple[object, ...]]()
    for entry in entries:
        passed = seconds_since(before, entry.created_at)
        error = f"{mask_text(entry.error)}{' (final)' if entry.final else ''}" if entry.error else None
        after = None if passed is None else f"{passed:.3f} s"
        rows.append((entry.seq, entry.created_at, after, entry.step, entry.mark, entry.attempt, error))
        before = entry.created_at
    return rows
