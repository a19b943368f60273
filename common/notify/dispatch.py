r"""From a notification to the endpoints that want it (oslo_messaging/notify/dispatcher.py).

An endpoint is any object with async methods named as priorities, and if it likes a `filter_rule`:

    class Usage:
        filter_rule = NotificationFilter(event_type="compute\\\\.instance\\\\.")

        async def info(self, ctx, publisher_id, event_type, payload, metadata): ...

In a batch the method is `async def info(self, messages)`, and gets a list of `Received`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

from common.base.context import Context
from common.host.lean import structlog
from common.wire.notification import Notification, Priority

_log = structlog.get_logger(__name__)
_EVENTS_SHOWN_MAX = 10


class NotificationResult(StrEnum):
    """What an endpoint returns; None is HANDLED."""

    HANDLED = "handled"
    REQUEUE = "requeue"
    """Give it to me, or to another listener of the queue, again. Only a listener with `allow_requeue` does."""


class Filter(Protocol):
    """What an endpoint's `filter_rule` is: a NotificationFilter, or anything that can be asked like it."""

    def match(
        self, context: Mapping[str, Any], publisher_id: str | None, event_type: str, metadata: Mapping[str, Any], payload: Any
    ) -> bool: ...


@dataclass(frozen=True, slots=True)
class Received:
    """A notification as endpoints get it. `metadata`: message_id and timestamp."""

    ctx: Context
    publisher_id: str | None
    event_type: str
    payload: Any
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A notification with what decides where it goes. `context`: as it travelled, for filters."""

    priority: Priority
    context: Mapping[str, Any]
    unique_id: str | None
    received: Received

    @classmethod
    def of(cls, notification: Notification) -> Self:
        """The notification as endpoints get it."""
        ctx = Context.from_dict(notification.context, message_id=notification.unique_id)
        metadata = {"message_id": notification.message_id, "timestamp": notification.timestamp}
        received = Received(ctx, notification.publisher_id, notification.event_type, notification.payload, metadata)
        return cls(notification.priority, notification.context, notification.unique_id, received)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the endpoints made of it. `failed`: some endpoint raised; `asked_back`: some endpoint did, or returned REQUEUE."""

    failed: bool = False
    asked_back: bool = False


@dataclass(frozen=True, slots=True)
class _Callback:
    name: str
    screen: Filter | None
    method: Callable[..., Awaitable[Any]]

    def wants(self, message: Message) -> bool:
        found = message.received
        return self.screen is None or self.screen.match(
            message.context, found.publisher_id, found.event_type, found.metadata, found.payload
        )


class Dispatcher:
    """The endpoints of one listener. Raises TypeError for a method that is not async, and when there is none at all."""

    def __init__(self, endpoints: Sequence[object], *, allow_requeue: bool) -> None:
        self._allow_requeue = allow_requeue
        self._callbacks = {priority: found for priority in Priority if (found := _callbacks(endpoints, priority))}
        if not self._callbacks:
            raise TypeError(f"no endpoint has a method for any priority; wanted: async methods of {', '.join(Priority)}")

    @property
    def priorities(self) -> tuple[Priority, ...]:
        """Those that some endpoint has a method for."""
        return tuple(self._callbacks)

    async def one(self, message: Message) -> Verdict:
        """Run the endpoints that want it, in their order."""
        found = message.received

        async def run(callback: _Callback) -> Any:
            if not callback.wants(message):
                return None
            return await callback.method(found.ctx, found.publisher_id, found.event_type, found.payload, found.metadata)

        return await self._run(message.priority, run, [message])

    async def group(self, messages: Sequence[Message]) -> Verdict:
        """Run the endpoints, each with a list of those messages, all of one priority, that it wants. The verdict holds for all."""

        async def run(callback: _Callback) -> Any:
            wanted = [message.received for message in messages if callback.wants(message)]
            return await callback.method(wanted) if wanted else None

        return await self._run(messages[0].priority, run, messages)

    async def _run(self, priority: Priority, run: Callable[[_Callback], Awaitable[Any]], messages: Sequence[Message]) -> Verdict:
        failed = asked_back = False
        for callback in self._callbacks.get(priority, ()):
            try:
                is_back = await run(callback) == NotificationResult.REQUEUE
            except Exception:
                events = sorted({message.received.event_type for message in messages})[:_EVENTS_SHOWN_MAX]
                _log.exception("notification endpoint failed", endpoint=callback.name, event_types=events, messages=len(messages))
                failed = is_back = True
            asked_back = asked_back or is_back
            if asked_back and self._allow_requeue:
                # The others see it when it comes again. Where it does not, they shall not lose it for one that failed.
                break
        return Verdict(failed=failed, asked_back=asked_back)


def _callbacks(endpoints: Sequence[object], priority: Priority) -> tuple[_Callback, ...]:
    found = []
    for endpoint in endpoints:
        method = getattr(endpoint, priority, None)
        if method is None:
            continue
        name = f"{type(endpoint).__name__}.{priority}"
        if not inspect.iscoroutinefunction(method):
            raise TypeError(f"{name} is not async")
        found.append(_Callback(name, getattr(endpoint, "filter_rule", None), method))
    return tuple(found)
