"""Who asks for what, and until when: the request context that travels with every message."""

from collections.abc import Mapping
from typing import Any, Self

import msgspec
from msgspec.structs import replace

from common.base.ids import RequestId, new_request_id
from common.base.limits import WORD_MAX
from common.base.trace import Trace


class Context(msgspec.Struct, frozen=True):
    """The request context; `msgspec.structs.replace` changes it. Keys on the wire are those of oslo.context's `to_dict`.

    deadline   this process's monotonic second after which nobody waits for the answer; None: no limit.
               It does not travel as such: the wire carries the time that is left.
    message_id   `_unique_id` of the message that brought the request here: the same again is the same work. It does not travel.
    fence      the right to act for a flow (common.db.fence), in the request of a step of it. It travels with calls: whoever is asked
               acts for the one who asks. A cast hands over, and has none.
    trace      the hop of a W3C trace that asks; it travels as `traceparent` and `tracestate`, oslo.messaging's keys for it.
    others     keys of a foreign peer's context that we do not read; they are passed on as they came, but for
               `auth_token` and `service_catalog`, which are dropped at the door.
    """

    request_id: RequestId = msgspec.field(default_factory=new_request_id)
    user_id: str | None = None
    project_id: str | None = None
    is_admin: bool = False
    roles: tuple[str, ...] = ()
    deadline: float | None = None
    others: Mapping[str, Any] = msgspec.field(default_factory=dict)
    message_id: str | None = None
    trace: Trace | None = None
    fence: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys that follow `_context_` on the wire."""
        return self.sent(self.trace, with_fence=True)

    def sent(self, trace: Trace | None, *, with_fence: bool) -> dict[str, Any]:
        """The same with another hop of the trace, and if need be without the fence."""
        found = dict(self.others)
        found["request_id"] = self.request_id
        found["user_id"] = found["user"] = self.user_id  # nova and cinder read `user_id`, oslo.context's own from_dict reads `user`
        found["project_id"] = found["project"] = self.project_id
        found["is_admin"] = self.is_admin
        found["roles"] = list(self.roles)
        if self.fence and with_fence:
            found["fence"] = self.fence
        if trace is not None:
            found["traceparent"] = trace.traceparent
            if trace.state:
                found["tracestate"] = trace.state
        return found

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any], *, deadline: float | None = None, message_id: str | None = None) -> Self:
        """The context that a message carries; every key is optional, as in oslo.context."""
        get = keys.get
        roles = get("roles")
        return cls(
            RequestId(_id(get("request_id")) or new_request_id()),
            _id(get("user_id")) or _id(get("user")),
            _id(get("project_id")) or _id(get("project")),
            get("is_admin") is True,  # "false" is no administrator
            tuple([str(role) for role in roles]) if roles and isinstance(roles, list | tuple) else (),
            deadline,
            {} if _NOT_OTHERS.issuperset(keys) else {key: keys[key] for key in keys.keys() - _NOT_OTHERS},
            message_id,
            Trace.parse(get("traceparent"), get("tracestate")),
            _id(get("fence")),
        )

    def until(self, deadline: float) -> Self:
        """The same request with the nearer of its deadline and `deadline`."""
        return replace(self, deadline=deadline if self.deadline is None else min(self.deadline, deadline))

    def without_deadline(self) -> Self:
        """The same request for work that goes on after its caller left."""
        return replace(self, deadline=None)

    def anew(self) -> Self:
        """The same request for another piece of work than the message that brought it."""
        return replace(self, message_id=None)

    def fenced(self, fence: str) -> Self:
        """The same request with the right to act for a flow."""
        return replace(self, fence=fence)

    def elevated(self) -> Self:
        """The same request with an administrator's rights, for what a service does in its own name."""
        return replace(self, is_admin=True)


_KNOWN = {"request_id", "user_id", "user", "project_id", "project", "is_admin", "roles", "traceparent", "tracestate", "fence"}
_NEVER_KEPT = {"auth_token", "service_catalog", "client_timeout"}
_NOT_OTHERS = _KNOWN | _NEVER_KEPT


def _id(value: Any) -> str | None:
    """None for what is no id: these words stand in every line of the log."""
    if type(value) is str and 0 < len(value) <= WORD_MAX:
        return value
    return str(value)[:WORD_MAX] if value and isinstance(value, str | int) and not isinstance(value, bool) else None
