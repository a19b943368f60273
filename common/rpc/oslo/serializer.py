"""Serializers: how a service turns its own objects into what JSON holds, and its request context into a dict."""

from collections.abc import Mapping
from typing import Any, Protocol

from common.base.context import Context


class Serializer(Protocol):
    """What a service plugs in. Methods are not `async`: they run on the event loop and must not block.

    An entity is one argument or the result; `ctxt` is the caller's context at the client, and what `deserialize_context` made at
    the server.
    """

    def serialize_entity(self, ctxt: Any, entity: Any) -> Any:
        """`entity` as it is to be sent: what JSON holds, or dataclasses, msgspec structs, datetimes, sets of it."""
        ...

    def deserialize_entity(self, ctxt: Any, entity: Any) -> Any:
        """What came, as the service wants it."""
        ...

    def serialize_context(self, ctxt: Any) -> Any:
        """The context as a mapping, a Context, or an object with `to_dict()`."""
        ...

    def deserialize_context(self, ctxt: Mapping[str, Any]) -> Any:
        """The context for the endpoint. Whoever returns a mapping gives the endpoint a Context of these keys."""
        ...


class NoOpSerializer:
    """Implements Serializer; changes nothing. A service's own one overrides what it needs."""

    def serialize_entity(self, ctxt: Any, entity: Any) -> Any:  # noqa: ARG002  # the interface is oslo.messaging's
        return entity

    def deserialize_entity(self, ctxt: Any, entity: Any) -> Any:  # noqa: ARG002
        return entity

    def serialize_context(self, ctxt: Any) -> Any:
        return ctxt

    def deserialize_context(self, ctxt: Mapping[str, Any]) -> Any:
        return ctxt


def outgoing(serializer: Serializer, ctxt: Any) -> Context:
    """The context to send for what a caller gave: a Context, a mapping, or an object with `to_dict()`. Raises TypeError else."""
    made = serializer.serialize_context(ctxt)
    if isinstance(made, Context):
        return made
    keys = made if isinstance(made, Mapping) else _keys_of(made)
    return Context.from_dict(keys, deadline=ctxt.deadline if isinstance(ctxt, Context) else None)


def incoming(serializer: Serializer, ctx: Context) -> Any:
    """The context that an endpoint is given."""
    if type(serializer) is NoOpSerializer:
        return ctx
    made = serializer.deserialize_context(ctx.to_dict())
    if isinstance(made, Mapping):
        return Context.from_dict(made, deadline=ctx.deadline, message_id=ctx.message_id)
    return made


def _keys_of(ctxt: object) -> Mapping[str, Any]:
    to_dict = getattr(ctxt, "to_dict", None)
    keys = to_dict() if callable(to_dict) else None
    if not isinstance(keys, Mapping):
        raise TypeError(f"the context is a {type(ctxt).__name__}; wanted: a mapping, a Context, or an object with to_dict()")
    return keys
