"""Where a request is now: which process holds it in which step, which outbox or queue it waits in, or how it ended.

The database tells of flows and of letters, the bus of queues and of dead letters. A message that waits in a queue cannot be looked into,
so what is told of queues is where it may be.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, or_, type_coerce

from common.app.flow_view import OPEN, FlowView, seconds_since, viewed
from common.app.queues import implied
from common.app.service import Find, Found
from common.base.clock import Clock
from common.base.errors import Ambiguous, NotFound, Unavailable
from common.base.limits import DEAD_LETTERS_MAX
from common.db.engine import Database
from common.db.hosts import Hosts
from common.db.journal import FlowRow, FlowState, Journal
from common.db.lease import Leases
from common.db.outbox import Letter, waiting
from common.db.tables import flows, outbox
from common.machine.saga import Saga
from common.rpc.dead_letters import DeadLetter, DeadLetters
from common.transport.port import QueueDepth, Transport


class NotKnown(NotFound):
    """Nothing is known of {name}: no server or volume has that name or id, and no flow, letter or dead letter that request id{but}. What has begun nothing yet may wait in a queue: `lite bus inspect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What is known of a request, a server or a volume.

    things     what was asked about, and what it has to do with
    flows      those about it that are not over; the one that holds it first
    nearby     those that only work on something related
    letters    those of it that wait in an outbox, oldest first
    queues     of those who work on the things, as far as something waits there
    heard      when the process that such a queue belongs to last gave a sign of life
    bus_error  why nobody knows of queues and dead letters
    dead       dead letters of it, with their topics
    ended      the flow about it that ended last
    now        when this was seen
    """

    asked: str
    now: datetime
    things: tuple[Found, ...] = ()
    flows: tuple[FlowView, ...] = ()
    nearby: tuple[FlowView, ...] = ()
    letters: tuple[Letter, ...] = ()
    queues: Mapping[str, QueueDepth]
    heard: Mapping[str, datetime] = field(default_factory=dict)
    bus_error: str | None = None
    dead: tuple[tuple[str, DeadLetter], ...] = ()
    ended: FlowView | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Whom to ask. `open_bus` raises Unavailable when the bus is away."""

    database: Database
    clock: Clock
    finds: Sequence[Find]
    sagas: Mapping[str, Saga]
    topics: Sequence[str]
    open_bus: Callable[[], AbstractAsyncContextManager[Transport]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The question, resolved: one thing, or a request id."""

    word: str
    thing: Found | None

    @property
    def mentioned(self) -> str:
        """What stands in the arguments of everything that is about it."""
        return self.thing.id if self.thing else self.word


async def where(word: str, sources: Sources) -> Whereabouts:
    """Raises NotKnown, Ambiguous, and what the database does."""
    asked = _Asked(word, await _thing(word, sources))
    rows, nearby = await _open_flows(asked, sources)
    requests = {row.request_id for row in rows if row.request_id} if asked.thing else {word}
    letters = await _letters(asked, requests, sources)
    over = await _over(asked, sources)
    ended = _last(over)
    things = await _things(asked, rows if asked.thing else [*rows, *over], sources)
    is_idle = not letters and not any(row.state is FlowState.RUNNING for row in rows)
    queues, dead, bus_error = await _on_the_bus(asked, requests, things, sources, with_dead=is_idle)
    if not (things or rows or letters or ended or dead):
        raise NotKnown(name=word, but=f" (dead letters could not be looked at: {bus_error})" if bus_error else "")
    return Whereabouts(
        asked=word,
        now=sources.clock.utcnow(),
        things=tuple(things),
        flows=await _views(rows, sources),
        nearby=await _views(nearby, sources),
        letters=tuple(letters),
        queues=queues,
        heard=await _heard(queues, sources),
        bus_error=bus_error,
        dead=tuple(dead),
        ended=None if ended is None else (await _views([ended], sources))[0],
    )


async def _thing(word: str, sources: Sources) -> Found | None:
    found = await _found(word, sources)
    if exact := [each for each in found if word in {each.id, each.subject}]:
        return exact[0]
    if len(found) > 1:
        raise Ambiguous(kind="thing", name=word, candidates=", ".join(each.subject for each in found))
    return found[0] if found else None


async def _found(word: str, sources: Sources) -> list[Found]:
    return [each for find in sources.finds for each in await find(sources.database, sources.clock, word)]


async def _things(asked: _Asked, rows: Sequence[FlowRow], sources: Sources) -> list[Found]:
    """The thing that was asked about, what it has to do with, and what the flows are about; each once."""
    things = {asked.thing.subject: asked.thing} if asked.thing else {}
    subjects = [*(asked.thing.related if asked.thing else ()), *(row.subject for row in rows)]
    for subject in dict.fromkeys(subjects):
        if subject not in things:
            things |= {each.subject: each for each in await _found(subject, sources)}
    return list(things.values())


def _about(asked: _Asked) -> ColumnElement[bool]:
    if asked.thing is None:
        return flows.c.request_id == asked.word
    mentioned = type_coerce(flows.c.arguments, Text).contains(asked.mentioned, autoescape=True)
    return or_(flows.c.subject.in_([asked.thing.subject, *asked.thing.related]), mentioned)


def _is_about(asked: _Asked, row: FlowRow) -> bool:
    """False for a flow that only works on something related."""
    if asked.thing is None:
        return row.request_id == asked.word
    return row.subject == asked.thing.subject or _mentions(row.arguments, asked.mentioned)


def _mentions(value: Any, word: str) -> bool:
    match value:
        case Mapping():
            return any(_mentions(item, word) for item in value.values())
        case list() | tuple():
            return any(_mentions(item, word) for item in value)
        case _:
            return bool(value == word)


async def _open_flows(asked: _Asked, sources: Sources) -> tuple[list[FlowRow], list[FlowRow]]:
    """Those that are not over: about it or of the same requests, and those that only work on something related."""
    journal, is_open = Journal(sources.database, sources.clock), flows.c.state.in_([str(state) for state in OPEN])
    found = await journal.list(is_open, _about(asked))
    rows = {row.id: row for row in found if _is_about(asked, row)}
    if requests := {row.request_id for row in rows.values() if row.request_id}:
        rows |= {row.id: row for row in await journal.list(is_open, flows.c.request_id.in_(requests))}
    return list(rows.values()), [row for row in found if row.id not in rows]


async def _views(rows: Sequence[FlowRow], sources: Sources) -> tuple[FlowView, ...]:
    """The one that holds it first: running before parked, then the one that moved last.

    One without a step waits for its turn behind another, and holds nothing.
    """
    journal, living = Journal(sources.database, sources.clock), await Leases(sources.database).living()
    views = [viewed(row, await journal.entries(row.id), living, sources.sagas) for row in rows]

    def rank(each: FlowView) -> tuple[bool, bool, datetime]:
        return each.row.state is FlowState.RUNNING, each.last is not None, each.moved_at or datetime.min  # noqa: DTZ901

    return tuple(sorted(views, key=rank, reverse=True))


async def _letters(asked: _Asked, requests: Collection[str], sources: Sources) -> list[Letter]:
    of_requests = outbox.c.request_id.in_(requests)
    if asked.thing is None:
        return await waiting(sources.database, of_requests)
    return await waiting(sources.database, or_(of_requests, outbox.c.body.contains(asked.mentioned, autoescape=True)))


async def _over(asked: _Asked, sources: Sources) -> list[FlowRow]:
    """Those that have ended; of a thing, those with it as their subject, and those of the same requests as the last of these."""
    journal, is_over = Journal(sources.database, sources.clock), flows.c.state.not_in([str(state) for state in OPEN])
    if asked.thing is None:
        return await journal.list(is_over, flows.c.request_id == asked.word)
    rows = await journal.list(is_over, flows.c.subject == asked.thing.subject)
    last = _last(rows)
    return rows if last is None else [*rows, *await journal.list(is_over, flows.c.request_id == last.request_id)]


def _last(rows: Sequence[FlowRow]) -> FlowRow | None:
    return max(rows, key=lambda row: row.updated_at or datetime.min, default=None)  # noqa: DTZ901  # naive UTC, as rows have it


async def _on_the_bus(
    asked: _Asked, requests: Collection[str], things: Sequence[Found], sources: Sources, *, with_dead: bool
) -> tuple[dict[str, QueueDepth], list[tuple[str, DeadLetter]], str | None]:
    """(queues in which something waits, dead letters, why nobody knows)"""
    queues: dict[str, QueueDepth] = {}
    dead: list[tuple[str, DeadLetter]] = []
    try:
        async with sources.open_bus() as transport:
            for name in dict.fromkeys(name for thing in things for name in thing.queues):
                depth = await transport.depth(name)
                if depth is not None and depth.ready:
                    queues[name] = depth
            for topic in sources.topics if with_dead else ():
                letters = await DeadLetters(transport, topic).all(DEAD_LETTERS_MAX)
                dead += [(topic, letter) for letter in letters if _is_of(letter, asked, requests)]
    except Unavailable as exc:
        return queues, dead, str(exc)
    return queues, dead, None


async def _heard(queues: Collection[str], sources: Sources) -> dict[str, datetime]:
    rows = await Hosts(sources.database, sources.clock).list() if queues else []
    last = {name: row.last_seen_up for row in rows for name in implied([], [(row.topic, row.host)])}
    return {name: at for name, at in last.items() if name in queues and at is not None}


def _is_of(letter: DeadLetter, asked: _Asked, requests: Collection[str]) -> bool:
    request = letter.request
    if request is None:
        return False
    if request.context.get("request_id") in requests:
        return True
    return asked.thing is not None and _mentions(request.args, asked.mentioned)


def waited_s(letter: Letter, now: datetime) -> float | None:
    """Since when a letter waits."""
    return seconds_since(letter.created_at, now)
