"""`lite dlq`: the messages that no server could do anything with."""

import getpass
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import structlog
import typer

from common.app.cli import print_json, print_properties, print_table, span
from common.app.commands import AsJson, ConfigFiles, Debug, agreed, on_transport, tell
from common.app.exits import Exit
from common.app.masking import mask, mask_text
from common.app.whole import Whole, read_whole
from common.base.clock import Clock
from common.base.errors import Ambiguous
from common.base.limits import DEAD_LETTERS_MAX, LIST_ROWS_MAX
from common.rpc.dead_letters import DeadLetter, DeadLetters, NoSuchDeadLetter, Taken
from common.transport.port import Transport

app = typer.Typer(help="Dead letters: messages that no server could serve, with the reason.", no_args_is_help=True)

Topic = Annotated[str | None, typer.Argument(metavar="[TOPIC]", help="Default: every topic of the installed services.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")]
IdOrTopic = Annotated[str | None, typer.Argument(metavar="ID", help="Its id, or the beginning of it; with --all the topic.")]
Limit = Annotated[int, typer.Option(min=1, max=DEAD_LETTERS_MAX, help="The oldest so many of each topic.")]
All = Annotated[bool, typer.Option("--all", help="All of TOPIC, or of every topic of the installed services.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before all are taken.")]

_ID_MIN = 8
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter and the topic that it lies in."""

    topic: str
    letter: DeadLetter

    @property
    def method(self) -> str | None:
        """None when the message cannot be read."""
        return self.letter.request.method if self.letter.request else None

    @property
    def request_id(self) -> str | None:
        """None when the message has none."""
        found = self.letter.request.context.get("request_id") if self.letter.request else None
        return None if found is None else str(found)


@app.command("list")
def list_(
    topic: Topic = None, limit: Limit = LIST_ROWS_MAX, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """List them, the oldest first."""
    whole = read_whole(config_file, debug=debug)
    topics = [topic] if topic else whole.topics

    async def work(transport: Transport, clock: Clock) -> tuple[list[Found], datetime]:
        return await find_all(transport, topics, limit=limit), clock.utcnow()

    found, now = on_transport(whole.common, work)
    if json:
        print_json([_summary(each) for each in found])
        return
    ids = short_ids([each.letter.id for each in found])
    columns = ("Id", "Topic", "Queue", "Method", "Reason", "Error", "Attempts", "Age", "Request Id", "Server")
    rows = [(short, each.topic, *_cells(each, now)) for short, each in zip(ids, found, strict=True)]
    print_table(columns, rows)


@app.command()
def show(id_: Id, topic: Topic = None, json: AsJson = False, config_file: ConfigFiles = None, debug: Debug = False) -> None:
    """Show one with its arguments; secrets in them are masked."""
    whole = read_whole(config_file, debug=debug)

    async def work(transport: Transport, clock: Clock) -> Found:
        return await find_one(transport, [topic] if topic else whole.topics, id_)

    found = on_transport(whole.common, work)
    if json:
        print_json(_details(found))
    else:
        print_properties(_details(found))


@app.command()
def requeue(
    id_: IdOrTopic = None, topic: Topic = None, all_: All = False, yes: Yes = False, config_file: ConfigFiles = None,
    debug: Debug = False,
) -> int:  # fmt: skip
    """Send one to the queue that it came from, as new: what failed there before no longer counts."""
    return _take(_REQUEUE, id_, topic, is_all=all_, yes=yes, whole=read_whole(config_file, debug=debug))


@app.command()
def drop(
    id_: IdOrTopic = None, topic: Topic = None, all_: All = False, yes: Yes = False, config_file: ConfigFiles = None,
    debug: Debug = False,
) -> int:  # fmt: skip
    """Remove one for good."""
    return _take(_DROP, id_, topic, is_all=all_, yes=yes, whole=read_whole(config_file, debug=debug))


@dataclass(frozen=True, slots=True)
class _Verb:
    """What is done to dead letters, and how it is called."""

    name: str
    past: str
    one: Callable[[DeadLetters, str], Awaitable[DeadLetter]]
    many: Callable[[DeadLetters, set[str]], Awaitable[list[Taken]]]


_REQUEUE = _Verb("requeue", "requeued", DeadLetters.requeue, DeadLetters.requeue_all)
_DROP = _Verb("drop", "dropped", DeadLetters.drop, DeadLetters.drop_all)


def _take(verb: _Verb, id_: str | None, topic: str | None, *, is_all: bool, yes: bool, whole: Whole) -> int:
    if is_all:
        if topic is not None:
            raise typer.BadParameter("with --all there is no ID: name the topic alone")
        return _take_all(verb, [id_] if id_ else whole.topics, yes=yes, whole=whole)
    if id_ is None:
        raise typer.BadParameter("which one? Name its ID, or say --all")

    options = whole.common.bus.rpc

    async def work(transport: Transport, clock: Clock) -> None:
        found = await find_one(transport, [topic] if topic else whole.topics, id_)
        audit(verb.past, Found(found.topic, await verb.one(DeadLetters(transport, found.topic, options), found.letter.id)))

    on_transport(whole.common, work)
    return Exit.OK


def _take_all(verb: _Verb, topics: Sequence[str], *, yes: bool, whole: Whole) -> int:
    async def look(transport: Transport, clock: Clock) -> list[Found]:
        return await find_all(transport, topics, limit=DEAD_LETTERS_MAX)

    found = on_transport(whole.common, look)
    if not found:
        tell("There are no dead letters.")
        return Exit.OK
    places = sorted({each.topic for each in found})
    if not yes and not agreed(f"{verb.name} dead letters of {', '.join(places)}: {len(found)}?"):
        tell("Nothing was changed.")
        return Exit.REFUSED

    options = whole.common.bus.rpc

    async def work(transport: Transport, clock: Clock) -> int:
        failed = 0
        for topic in places:
            ids = {each.letter.id for each in found if each.topic == topic}
            for taken in await verb.many(DeadLetters(transport, topic, options), ids):
                if taken.error is None:
                    audit(verb.past, Found(topic, taken.letter))
                else:
                    failed += 1
                    tell(f"error: {taken.letter.id} stays: {taken.error}")
        return failed

    return Exit.REFUSED if on_transport(whole.common, work) else Exit.OK


def audit(what: str, found: Found) -> None:
    """A line on stderr: who did what to which message. A warning, so that no level hides it."""
    _log.warning(
        f"dead letter {what}", user=getpass.getuser(), id=found.letter.id, topic=found.topic, queue=found.letter.queue,
        method=found.method, of_request=found.request_id, error=found.letter.error,
    )  # fmt: skip


async def find_all(transport: Transport, topics: Sequence[str], *, limit: int) -> list[Found]:
    """The oldest `limit` dead letters of each topic."""
    return [Found(topic, letter) for topic in topics for letter in await DeadLetters(transport, topic).all(limit)]


async def find_one(transport: Transport, topics: Sequence[str], name: str) -> Found:
    """The only one of these topics with that id or beginning of an id. Raises NoSuchDeadLetter, Ambiguous."""
    found = []
    for topic in topics:
        try:
            found.append(Found(topic, await DeadLetters(transport, topic).find(name)))
        except NoSuchDeadLetter as exc:
            if exc.fields["name"] != name:  # some begin so
                raise
    if len(found) > 1:
        candidates = ", ".join(f"{each.letter.id} of {each.topic}" for each in found)
        raise Ambiguous(kind="dead letter", name=name, candidates=candidates)
    if not found:
        raise NoSuchDeadLetter(name=name, queue=f"the queues of {', '.join(topics)}")
    return found[0]


def short_ids(ids: Sequence[str]) -> list[str]:
    """Each as short as `show` needs it, but no shorter than eight characters; an id that is there twice stays whole."""
    ordered = sorted(ids)
    needed = {}
    for place, name in enumerate(ordered):
        neighbours = ordered[max(place - 1, 0) : place] + ordered[place + 1 : place + 2]
        shared = max((_shared(name, other) for other in neighbours), default=0)
        needed[name] = max(_ID_MIN, shared + 1)
    return [name[: needed[name]] for name in ids]


def _shared(one: str, other: str) -> int:
    return next(
        (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )


def _cells(found: Found, now: datetime) -> tuple[object, ...]:
    letter = found.letter
    return (
        letter.queue or None, found.method, mask_text(letter.reason), letter.error or None, letter.attempts,
        age(letter.died_at, now), found.request_id, letter.server or None,
    )  # fmt: skip


def age(died_at: str, now: datetime) -> str | None:
    """How long ago, in its largest unit; None for what is no time."""
    try:
        seconds = (now - datetime.fromisoformat(died_at).replace(tzinfo=None)).total_seconds()
    except ValueError:
        return None
    return span(seconds)


def _summary(found: Found) -> dict[str, object]:
    letter = found.letter
    return {
        "id": letter.id, "topic": found.topic, "queue": letter.queue, "method": found.method, "reason": mask_text(letter.reason),
        "error": letter.error, "attempts": letter.attempts, "died_at": letter.died_at, "request_id": found.request_id,
        "server": letter.server,
    }  # fmt: skip


def _details(found: Found) -> dict[str, object]:
    letter, request = found.letter, found.letter.request
    if request is None:
        return {**_summary(found), "bytes": len(letter.body), "body": mask_text(letter.body[:_BODY_SHOWN].decode(errors="replace"))}
    return {
        **_summary(found),
        "kind": "call" if request.is_call else "cast",
        "namespace": request.namespace,
        "version": request.version,
        "arguments": mask(request.args),
        "context": mask(request.context),
        "reply_to": request.reply_q,
        "bytes": len(letter.body),
    }


_BODY_SHOWN = 2000
"""Bytes of a message that cannot be read."""
