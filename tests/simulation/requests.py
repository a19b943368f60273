"""S4 and S9 of single requests: what was accepted came to something or says why not; what was refused never happens.

A request is known by its id, which its flows, its servers' faults and its volumes' messages carry.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any

from tests.simulation.world import World

Finding = tuple[str, str]
Rows = list[dict[str, Any]]


class Answer(StrEnum):
    """What a call came to."""

    DONE = auto()
    REFUSED = auto()
    UNKNOWN = auto()


class Kind(StrEnum):
    """What was asked for; the values are the names of the flows that do it."""

    CREATE = "create_volume"
    BOOT = "boot"
    ATTACH = "attach_volume"
    DETACH = "detach_volume"
    DELETE_SERVER = "delete"
    DELETE_VOLUME = "delete_volume"
    STOP = "stop"
    START = "start"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was answered. `subject` is the id of the server or volume that it is about, or that it made; `what` for people."""

    id: str
    kind: Kind
    what: str
    answer: Answer
    subject: str


@dataclass(slots=True)
class Requests:
    """All of a history."""

    asked: list[Request] = field(default_factory=list)

    def judge(self, world: World) -> Iterator[Finding]:
        """When nobody is at work any more."""
        for request in self.asked:
            flows = world.database.rows(
                "SELECT id, saga, subject, state, arguments, error, created_at FROM flows WHERE request_id = ?", request.id
            )
            match request.answer:
                case Answer.DONE:
                    yield from _accepted(world, request, flows)
                case Answer.REFUSED:
                    yield from _refused(request, flows)


def observed(world: World, kind: Kind, subject: str) -> bool:
    """At the instant of the answer "done": the caller can see what was made, or that it is on its way out."""
    return bool(world.database.rows(_SEEN[kind], subject))


_SEEN = {
    Kind.CREATE: "SELECT id FROM volumes WHERE id = ?",
    Kind.BOOT: "SELECT id FROM instances WHERE uuid = ?",
    Kind.ATTACH: "SELECT id FROM block_device_mapping WHERE attachment_id = ?",
    Kind.DETACH: "SELECT id FROM state_history WHERE subject = ? AND event = 'begin_detaching'",
    Kind.DELETE_SERVER: "SELECT id FROM state_history WHERE subject = ? AND event = 'delete'",
    Kind.DELETE_VOLUME: "SELECT id FROM state_history WHERE subject = ? AND event = 'delete'",
    Kind.STOP: "SELECT id FROM state_history WHERE subject = ? AND event = 'stop'",
    Kind.START: "SELECT id FROM state_history WHERE subject = ? AND event = 'start'",
    Kind.REBOOT: "SELECT id FROM state_history WHERE subject = ? AND event LIKE 'reboot%'",
}
_POWER = {Kind.STOP, Kind.START, Kind.REBOOT}


def _refused(request: Request, flows: Rows) -> Iterator[Finding]:
    verb = "power" if request.kind in _POWER else request.kind.removesuffix("_volume")
    for flow in flows:
        if flow["saga"] in {request.kind, f"request_{verb}", f"request_{request.kind}"} and flow["state"] == "completed":
            yield "S9", f"{request.what} was refused, and {flow['id']} is completed"


def _accepted(world: World, request: Request, flows: Rows) -> Iterator[Finding]:
    outcome = _OUTCOMES[request.kind](world, request, flows)
    if outcome is not None:
        yield "S4", f"{request.what} was accepted, and {outcome}"


# -- outcomes: None, or what is wrong ----------------------------------------------------------------------------------


def _created(world: World, request: Request, _: Rows) -> str | None:
    found = world.database.rows("SELECT status, deleted FROM volumes WHERE id = ?", request.subject)
    if not found:
        return "there is no such volume"
    return None if found[0]["deleted"] or found[0]["status"] != "error" else _unsaid(world, request, "volume is in error")


def _booted(world: World, request: Request, _: Rows) -> str | None:
    found = world.database.rows("SELECT vm_state, deleted FROM instances WHERE uuid = ?", request.subject)
    if not found:
        return "there is no such server"
    return None if found[0]["deleted"] or found[0]["vm_state"] != "error" else _unsaid(world, request, "server is in error")


def _attached(world: World, request: Request, flows: Rows) -> str | None:
    """By its own flow; by none, when others ended the attachment before that had begun."""
    mine = [flow for flow in flows if flow["saga"] == request.kind]
    if any(flow["state"] == "compensated" for flow in mine):
        return _unsaid(world, request, "the attachment was taken back", by=request.id)
    if mine and all(flow["state"] == "completed" for flow in mine):
        return None
    if world.database.rows("SELECT id FROM volume_attachment WHERE id = ? AND NOT deleted", request.subject):
        return f"attachment {request.subject} lives, and its flows are {[flow['state'] for flow in mine]}"
    return None


def _detached(world: World, request: Request, flows: Rows) -> str | None:
    if not world.database.rows("SELECT id FROM volume_attachment WHERE id = ? AND NOT deleted", request.subject):
        return None
    turned_back = any(flow["saga"] == request.kind and flow["state"] == "compensated" for flow in flows)
    if not turned_back:
        return f"attachment {request.subject} lives; flows of the request: {[(flow['saga'], flow['state']) for flow in flows]}"
    return _unsaid(world, request, "the detachment was taken back", by=request.id)


def _server_deleted(world: World, request: Request, _: Rows) -> str | None:
    found = world.database.rows("SELECT vm_state, deleted FROM instances WHERE uuid = ?", request.subject)
    if not found or found[0]["deleted"]:
        return None
    return _unsaid(world, request, f"the server is {found[0]['vm_state']}")


def _volume_deleted(world: World, request: Request, _: Rows) -> str | None:
    found = world.database.rows("SELECT status, deleted FROM volumes WHERE id = ?", request.subject)
    if not found or found[0]["deleted"]:
        return None
    return _unsaid(world, request, f"the volume is {found[0]['status']}")


def _powered(world: World, request: Request, flows: Rows) -> str | None:
    """By its flow; by that of another request which was at it already; or the host was asked again from the row.

    Each try to give it a disk back is a flow of the same request, taken back when it fails; what comes of them is the power flow's to say.
    """
    for flow in flows:
        if flow["saga"] != "restore_disk" and flow["state"] == "compensated" and not _was_done_by_another(world, flow):
            return _unsaid(world, request, f"the {request.kind} was taken back")
    return None


def _was_done_by_another(world: World, flow: Any) -> bool:
    """It came too late, and the same work had been begun from the row before, and has ended."""
    others = "SELECT id FROM flows WHERE saga = ? AND subject = ? AND id <> ? AND created_at <= ? AND state = 'completed'"
    came_late = (flow["error"] or "").startswith("The order came too late")
    return came_late and bool(world.database.rows(others, flow["saga"], flow["subject"], flow["id"], flow["created_at"]))


_OUTCOMES: dict[Kind, Callable[[World, Request, Rows], str | None]] = {
    Kind.CREATE: _created,
    Kind.BOOT: _booted,
    Kind.ATTACH: _attached,
    Kind.DETACH: _detached,
    Kind.DELETE_SERVER: _server_deleted,
    Kind.DELETE_VOLUME: _volume_deleted,
    Kind.STOP: _powered,
    Kind.START: _powered,
    Kind.REBOOT: _powered,
}


def _unsaid(world: World, request: Request, what: str, *, by: str | None = None) -> str | None:
    """None when somebody said why, of that subject or (`by`) in the name of that request."""
    key = by or request.subject
    column = "request_id" if by else "instance_uuid"
    said = world.database.rows(f"SELECT id FROM instance_faults WHERE {column} = ?", key)  # one of two words
    column = "request_id" if by else "resource_uuid"
    said += world.database.rows(f"SELECT id FROM messages WHERE {column} = ?", key)
    return None if said else f"{what}, and nobody says why"
