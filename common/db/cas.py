"""Compare-and-swap on a status column: the machine says which states an event may start from, one UPDATE asks the row.

No call site repeats which states are legal, and none reads a state before it writes one.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Select, Table, Update, and_, bindparam, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from common.base.clock import Clock
from common.base.errors import Conflict, NotFound
from common.db import fence
from common.db.model import live
from common.db.now import NOW
from common.db.tables import state_history
from common.machine.table import Machine

S = TypeVar("S", bound=Hashable)
E = TypeVar("E", bound=Hashable)

_STATEMENTS_MAX = 500
_SAY = insert(state_history)
_LAST = (
    select(state_history.c.event, state_history.c.flow_id)
    .where(state_history.c.subject == bindparam("name"))
    .order_by(state_history.c.id.desc())
    .limit(1)
)
_MADE = (
    select(state_history.c.id)
    .where(
        state_history.c.subject == bindparam("name"),
        state_history.c.event == bindparam("made"),
        state_history.c.flow_id == bindparam("by_flow"),
    )
    .limit(1)
)


async def advance(
    conn: AsyncConnection,
    table: Table,
    machine: Machine[S, E],
    event: E,
    *,
    kind: str,
    key: Mapping[str, object],
    clock: Clock,
    columns: Sequence[str] = ("status",),
    where: Sequence[ColumnElement[bool]] = (),
    values: Mapping[str, object] | None = None,
) -> None:
    """Moves the live row of `key` along `event`, and sets `updated_at` and `values` with it; state_history tells of it.

    `updated_at` is the database's time, since others ask by that how old the change is.

    kind      what an error calls the row: "Volume"
    columns   where the state stands; with several of them the machine's states are tuples in that order
    where     what must hold besides the state
    values    other columns to set, values or SQL expressions
    Raises NotFound when there is no such live row, Conflict(kind, name, found, expected) when its state forbids the event.
    """
    target = _parts(machine.target(event))
    plain, computed = _divided({**({"updated_at": NOW} if "updated_at" in table.c else {}), **(values or {})})
    found_by = {f"of_{column}": value for column, value in key.items()}
    change = _change(table, tuple(key), tuple(columns), machine.sources(event), tuple(computed.items()))
    if where:
        change = change.where(*where)
    # Every driver here counts the rows that matched, changed or not (MariaDB: CLIENT.FOUND_ROWS).
    name = ", ".join(str(value) for value in key.values())
    if (await conn.execute(change, {**found_by, **dict(zip(columns, target, strict=True)), **plain})).rowcount:
        await conn.execute(_SAY, _history(kind, name, event, _shown(target), clock))
        return
    state = (await conn.execute(_state(table, tuple(key), tuple(columns)), found_by)).first()
    if state is None:
        raise NotFound(kind=kind, name=name)
    expected = " or ".join(sorted(_shown(_parts(source)) for source in machine.sources(event)))
    raise Conflict(kind=kind, name=name, found=_shown(state), expected=expected)


async def began(conn: AsyncConnection, name: str, event: object) -> bool:
    """True when the last change of the row `name` was `event`, made for the flow under whose fence the running task works.

    So a step that is repeated, since the answer was lost, can tell its own change from somebody else's.
    """
    held = fence.held()
    last = (await conn.execute(_LAST, {"name": name})).first()
    return held is not None and last is not None and (last.event, last.flow_id) == (str(event), held.flow_id)


async def has_made(conn: AsyncConnection, name: str, event: object) -> bool:
    """True when the flow under whose fence the running task works has made `event` of the row `name`, whatever came after it."""
    if (held := fence.held()) is None:
        return False
    return (await conn.execute(_MADE, {"name": name, "made": str(event), "by_flow": held.flow_id})).first() is not None


@lru_cache(_STATEMENTS_MAX)
def _change(
    table: Table, key: tuple[str, ...], columns: tuple[str, ...], sources: frozenset[Any],
    computed: tuple[tuple[str, ColumnElement[Any]], ...],
) -> Update:  # fmt: skip
    """The statement of one event. What it sets, and which row, is given with each execution, but for what SQL is to compute."""
    found_by = [table.c[name] == bindparam(f"of_{name}") for name in key]
    change = update(table).where(*found_by, live(table), _in_states(table, columns, sources))
    return change.values(dict(computed)) if computed else change


@lru_cache(_STATEMENTS_MAX)
def _state(table: Table, key: tuple[str, ...], columns: tuple[str, ...]) -> Select[Any]:
    found_by = [table.c[name] == bindparam(f"of_{name}") for name in key]
    return select(*(table.c[name] for name in columns)).where(*found_by, live(table))


def _divided(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, ColumnElement[Any]]]:
    """Values that are given with an execution, and those that belong to the statement."""
    computed = {name: value for name, value in values.items() if isinstance(value, ColumnElement)}
    return {name: value for name, value in values.items() if name not in computed}, computed


def _history(kind: str, name: str, event: object, state: str, clock: Clock) -> dict[str, object]:
    held = fence.held()
    flow_id = None if held is None else held.flow_id
    return {"kind": kind, "subject": name, "event": str(event), "state": state, "flow_id": flow_id, "created_at": clock.utcnow()}


def _parts(state: object) -> tuple[Any, ...]:
    """A state as one plain value for each column."""
    parts = state if isinstance(state, tuple) else (state,)
    return tuple(None if part is None else str(part) for part in parts)


def _in_states(table: Table, columns: Sequence[str], states: frozenset[Any]) -> ColumnElement[bool]:
    """True for a row in one of the states; in SQL NULL equals nothing, so a part that is None is asked for by IS NULL."""
    if len(columns) == 1 and None not in states:
        return table.c[columns[0]].in_(sorted(_parts(state)[0] for state in states))
    return or_(
        *(
            and_(
                *(
                    table.c[name].is_(None) if part is None else table.c[name] == part
                    for name, part in zip(columns, _parts(state), strict=True)
                )
            )
            for state in sorted(states, key=str)
        )
    )


def _shown(state: Row[Any] | tuple[Any, ...]) -> str:
    """ "in-use", or for several columns "active, deleting" with the empty ones left out."""
    return ", ".join(str(part) for part in state if part is not None)
