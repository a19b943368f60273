"""`lite where`: who holds a request now, on one screen."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from common.app.cli import print_facts, print_json, span
from common.app.commands import AsJson, ConfigFiles, Debug, on_database, users_transport
from common.app.flow_view import FlowView, age, seconds_since
from common.app.masking import mask, mask_text
from common.app.service import Found
from common.app.whereabouts import Sources, Whereabouts, waited_s, where as ask
from common.app.whole import read_whole
from common.base.clock import Clock
from common.db.engine import Database
from common.db.journal import FlowState
from common.db.outbox import Letter
from common.db.owner import process_of
from common.rpc.dead_letters import DeadLetter
from common.transport.port import QueueDepth

_SHOWN_MAX = 3
"""Flows, letters and dead letters on the screen; --json has all of them."""
_TEXT_MAX = 300
"""Characters of an error on the screen."""

Fact = tuple[str, object]


def where(
    word: Annotated[str, typer.Argument(metavar="REQUEST-ID|SERVER|VOLUME", help="A request's id, or the name or id of a server or volume.")],
    json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Tell where a request is now: process, host, step or queue, since when, what failed last, and until when it may take."""
    whole = read_whole(config_file, debug=debug)

    async def work(database: Database, clock: Clock) -> Whereabouts:
        sources = Sources(
            database=database,
            clock=clock,
            finds=[service.find for service in whole.installed],
            sagas=whole.sagas,
            topics=whole.topics,
            open_bus=lambda: users_transport(whole.common, clock),
        )
        return await ask(word, sources)

    found = on_database(whole, work)
    if json:
        print_json(as_json(found))
        return
    print_facts(screen(found))


def screen(found: Whereabouts) -> Iterator[Fact]:
    """The lines of the screen."""
    held = holder(found)
    yield "now", held["text"]
    for thing in found.things:
        yield from _thing(thing)
    for flow in found.flows[:1]:
        yield from _flow(flow, found)
    for flow in found.flows[1:_SHOWN_MAX]:
        yield "flow", _brief(flow)
    yield from _more(len(found.flows), "flows: `lite flow list`")
    for flow in found.nearby[:_SHOWN_MAX]:
        yield "nearby", _brief(flow)
    yield from _more(len(found.nearby), "flows nearby")
    for letter in found.letters[:_SHOWN_MAX]:
        yield "letter", f"to {letter.address}, in the outbox of {letter.owner}"
        yield "  waits", f"{age(letter.created_at, found.now)}, tried {letter.attempts} times"
        yield "  error", _short(letter.error)
    yield from _more(len(found.letters), "letters")
    for name, depth in found.queues.items():
        yield "queue", _queue(name, depth, found)
    yield "bus", None if found.bus_error is None else f"queues and dead letters are not known: {found.bus_error}"
    for topic, dead in found.dead[:_SHOWN_MAX]:
        yield "dead", f"{_dead(topic, dead)}; `lite dlq show {dead.id}`"
    yield from _more(len(found.dead), "dead letters: `lite dlq list`")
    if found.ended is not None and held["kind"] != "nobody":
        yield "last", _ended(found.ended, found)


def holder(found: Whereabouts) -> dict[str, object]:
    """Who holds it: kind, hop, host, queue, step, age_s, error, deadline; and `text`, the same as a sentence."""
    flow = found.flows[0] if found.flows else None
    if flow is not None and (flow.row.state is FlowState.RUNNING or not found.letters):
        return _held_by_flow(flow, found)
    if found.letters:
        return _held_by_outbox(found.letters[0], found)
    return _held_by_nobody(found)


def _held_by_nobody(found: Whereabouts) -> dict[str, object]:
    ended = found.ended
    dead = [(topic, letter) for topic, letter in found.dead if ended is None or _died_later(letter, ended)]
    if dead:
        topic, letter = dead[0]
        facts = _facts("dead letter", queue=letter.queue, hop=topic, error=mask_text(letter.reason))
        return {**facts, "text": f"nobody works on it: {_dead(topic, letter)}"}
    if found.queues:
        name, depth = next(iter(found.queues.items()))
        facts = _facts("queue", queue=name, age_s=depth.oldest_s)
        return {**facts, "text": f"no flow holds it; it may wait in queue {_queue(name, depth, found)}"}
    if ended is not None:
        facts = _facts("nobody", step=ended.step, error=ended.error, age_s=seconds_since(ended.row.updated_at, found.now))
        return {**facts, "text": f"nobody holds it: {_ended(ended, found)}"}
    return {**_facts("nobody"), "text": "nobody holds it, and no flow ever worked on it"}


def _died_later(letter: DeadLetter, ended: FlowView) -> bool:
    """Whether it may be what came of it last; letters tell whole seconds."""
    at = ended.row.updated_at
    return at is None or letter.died_at >= f"{at:%Y-%m-%dT%H:%M:%SZ}"


def as_json(found: Whereabouts) -> dict[str, Any]:
    """All of it, without secrets."""
    return {
        "asked": found.asked,
        "held_by": holder(found),
        "things": [
            {"subject": each.subject, "name": each.name, **mask(each.state), "related": each.related, "queues": each.queues}
            for each in found.things
        ],
        "flows": [each.to_dict(found.now) for each in found.flows],
        "nearby": [each.to_dict(found.now) for each in found.nearby],
        "letters": [
            {
                "id": each.id, "address": each.address, "owner": each.owner, "request_id": each.request_id,
                "age_s": waited_s(each, found.now), "attempts": each.attempts, "error": mask_text(each.error) if each.error else None,
            }
            for each in found.letters
        ],
        "queues": [
            {"name": name, "ready": depth.ready, "unsettled": depth.unsettled, "consumers": depth.consumers, "oldest_s": depth.oldest_s, "heard_at": found.heard.get(name)}
            for name, depth in found.queues.items()
        ],
        "bus_error": found.bus_error,
        "dead_letters": [
            {
                "id": each.id, "topic": topic, "queue": each.queue, "reason": mask_text(each.reason), "error": each.error,
                "attempts": each.attempts, "died_at": each.died_at, "method": each.request.method if each.request else None,
            }
            for topic, each in found.dead
        ],
        "last_flow": found.ended.to_dict(found.now) if found.ended else None,
    }  # fmt: skip


def _facts(kind: str, **known: object) -> dict[str, object]:
    words = ("hop", "host", "queue", "step", "age_s", "error", "deadline")
    return {"kind": kind, **{word: known.get(word) for word in words}}


def _held_by_flow(flow: FlowView, found: Whereabouts) -> dict[str, object]:
    row = flow.row
    hop, host = _place(row.owner)
    facts = _facts(
        row.state,
        hop=hop,
        host=host,
        step=flow.step,
        age_s=seconds_since(flow.moved_at, found.now),
        error=flow.error,
        deadline=row.deadline,
    )
    what, since = f"{row.saga} of {row.subject}", age(flow.moved_at, found.now)
    at = f"{flow.step}, {since} ago" if flow.step else f"waits for its turn since {since}"
    if row.state is FlowState.PARKED:
        return {**facts, "text": f"{what} is parked and waits for a person, since {since}; it stopped at: {flow.step}"}
    if not flow.lives:
        return {**facts, "text": f"nobody carries on {what} until a process of home {row.home} is up: {at}"}
    return {**facts, "text": f"{hop} on {host} is at work on it, {what}: {at}"}


def _held_by_outbox(letter: Letter, found: Whereabouts) -> dict[str, object]:
    hop, host = _place(letter.owner)
    waited = age(letter.created_at, found.now)
    facts = _facts(
        "outbox",
        hop=hop,
        host=host,
        queue=letter.address,
        age_s=waited_s(letter, found.now),
        error=mask_text(letter.error) if letter.error else None,
    )
    text = f"it waits in the outbox of {hop} on {host} for {letter.address} since {waited}, tried {letter.attempts} times"
    return {**facts, "text": f"{text}: {_short(letter.error)}" if letter.error else text}


def _place(owner: str) -> tuple[str | None, str | None]:
    """(hop, host) of an owner: ("nova-compute", "cmp1")"""
    hop, _, host = process_of(owner).partition(".")
    return hop or None, host or None


def _thing(thing: Found) -> Iterator[Fact]:
    kind, _, id_ = thing.subject.partition(":")
    yield kind, f"{thing.name} ({id_})" if thing.name and thing.name != id_ else id_
    state: dict[str, Any] = mask(thing.state)
    plain = {word: value for word, value in state.items() if not isinstance(value, list) and word != "last_fault"}
    yield "  state", ", ".join(f"{word} {'-' if value is None else value}" for word, value in plain.items())
    for word, value in state.items():
        if isinstance(value, list):
            for item in value[:_SHOWN_MAX]:
                yield f"  {word}", item
            yield from _more(len(value), word)
    yield "  last fault", _short(state.get("last_fault"))


def _flow(flow: FlowView, found: Whereabouts) -> Iterator[Fact]:
    row, last = flow.row, flow.last
    yield "flow", f"{row.id}, {row.state} since {age(row.created_at, found.now)}"
    yield "  about", f"{row.saga} of {row.subject}, request {row.request_id or '-'}"
    if last is None:
        yield "  step", "none was begun; it waits for its turn"
    else:
        yield "  step", f"{flow.step}, attempt {last.attempt}, {age(last.created_at, found.now)} ago"
    yield "  owner", None if row.state is FlowState.PARKED else flow.owner
    yield "  next", flow.next
    yield "  deadline", flow.deadline(found.now)
    yield "  error", _short(flow.error)


def _brief(flow: FlowView) -> str:
    return f"{flow.row.id} of {flow.row.subject}, {flow.row.state}: {flow.step or 'waits for its turn'}"


def _queue(name: str, depth: QueueDepth, found: Whereabouts) -> str:
    oldest = "" if depth.oldest_s is None else f", the oldest for {span(depth.oldest_s)}"
    consumers = {None: "", 0: "; nobody consumes it: start the service"}.get(depth.consumers, f"; consumers: {depth.consumers}")
    heard = f"; its process last gave a sign of life {age(found.heard[name], found.now)} ago" if name in found.heard else ""
    return f"{name}: {depth.ready} waiting{oldest}{consumers}{heard}"


def _dead(topic: str, letter: DeadLetter) -> str:
    method = letter.request.method if letter.request else "a message"
    return f"{method} for {letter.queue or topic} lies among the dead letters of {topic} since {letter.died_at}: {_short(letter.reason)}"


def _ended(flow: FlowView, found: Whereabouts) -> str:
    row = flow.row
    why = f": {_short(flow.error)}" if flow.error and row.state is not FlowState.COMPLETED else ""
    what = f"{row.saga} refused" if row.is_refusal else f"{row.saga} of {row.subject} {row.state}"
    return f"{what} {age(row.updated_at, found.now)} ago (request {row.request_id or '-'}){why}"


def _more(number: int, what: str) -> Iterator[Fact]:
    if number > _SHOWN_MAX:
        yield "", f"and {number - _SHOWN_MAX} more {what}"


def _short(text: object) -> str | None:
    if text is None:
        return None
    masked = mask_text(str(text))
    return masked if len(masked) <= _TEXT_MAX else f"{masked[:_TEXT_MAX]}..."
