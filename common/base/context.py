"""Who asks for what, and until when: the request context that travels with every message."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from common.base.ids import RequestId, new_request_id
from common.base.limits import WORD_MAX
from common.base.trace import Trace


@dataclass(frozen=True, slots=True)
class Context:
    """The request context. Keys on the wire are those of oslo.context's `to_dict`.

    deadline   this process's monotonic second after which nobody waits for the answer; None: no limit.
               It does not travel as such: the wire carries the time that is left.
    message_id   `_unique_id` of the message that brought the request here: the same again is the same work. It does not travel.
    fence      the right to act for a flow (common.db.fence), in the request of a step of it. It travels with calls: whoever is asked
               acts for the one who asks. A cast hands over, and has none.
    trace      the hop of a W3C trace that asks; it travels as `traceparent` and `tracestate`, oslo.messaging's keys for it.
    others     keys of a foreign peer's context that we do not read; they are passed on as they came, but for
               `auth_token` and `service_catalog`, which are dropped at the door.
    """

    request_id: RequestId = field(default_factory=new_request_id)
    user_id: str | None = None
    project_id: str | None = None
    is_admin: bool = False
    roles: tuple[str, ...] = ()
    deadline: float | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    trace: Trace | None = None
    fence: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys that follow `_context_` on the wire."""
        return {
            **self.others,
            "request_id": self.request_id,
            "user_id": self.user_id,
            "user": self.user_id,  # nova and cinder read `user_id`, oslo.context's own from_dict reads `user`
            "project_id": self.project_id,
            "project": self.project_id,
            "is_admin": self.is_admin,
            "roles": list(self.roles),
            **({"fence": self.fence} if self.fence else {}),
            **self.trace_keys(),
        }

    def trace_keys(self) -> dict[str, str]:
        """`traceparent` and `tracestate`, as far as there are any."""
        if self.trace is None:
            return {}
        state = {"tracestate": self.trace.state} if self.trace.state else {}
        return {"traceparent": self.trace.traceparent, **state}

    @classmethod
    def from_dict(cls, keys: Mapping[str, Any], *, deadline: float | None = None, message_id: str | None = None) -> Self:
        """The context that a message carries; every key is optional, as in oslo.context."""
        roles = keys.get("roles")
        return cls(
            request_id=RequestId(_id(keys.get("request_id")) or new_request_id()),
            user_id=_id(keys.get("user_id")) or _id(keys.get("user")),
            project_id=_id(keys.get("project_id")) or _id(keys.get("project")),
            is_admin=keys.get("is_admin") is True,  # "false" is no administrator
            roles=tuple(str(role) for role in roles) if isinstance(roles, list | tuple) else (),
            deadline=deadline,
            message_id=message_id,
            fence=_id(keys.get("fence")),
            trace=Trace.parse(keys.get("traceparent"), keys.get("tracestate")),
            others={key: value for key, value in keys.items() if key not in _NOT_OTHERS},
        )

    def until(self, deadline: float) -> Self:
        """The same request with the nearer of its deadline and `deadline`."""
        return replace(self, deadline=deadline if self.deadline is None else min(self.deadline, deadline))

    def without_deadline(self) -> Self:
        """The same request for work that goes on after its caller left."""
        return replace(self, deadline=None)

    def elevated(self) -> Self:
        """The same request with an administrator's rights, for what a service does in its own name."""
        return replace(self, is_admin=True)


_KNOWN = {"request_id", "user_id", "user", "project_id", "project", "is_admin", "roles", "traceparent", "tracestate", "fence"}
_NEVER_KEPT = {"auth_token", "service_catalog", "client_timeout"}
_NOT_OTHERS = _KNOWN | _NEVER_KEPT


def _id(value: Any) -> str | None:
    """None for what is no id: these words stand in every line of the log."""
    return str(value)[:WORD_MAX] if value and isinstance(value, str | int) and not isinstance(value, bool) else None
