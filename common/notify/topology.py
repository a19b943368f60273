"""Exchanges and queues of notifications, declared exactly as an oslo.messaging peer with the same options does (oslo-wire 2.2)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.notify.options import NotificationOptions
from common.transport.port import Binding, Exchange, Queue
from common.wire.notification import Priority, routing_key


@dataclass(frozen=True, slots=True)
class Target:
    """What a listener listens to. `exchange` None: the control exchange of the options."""

    topic: str = "notifications"
    exchange: str | None = None


def default_queue(options: NotificationOptions, target: Target, priority: Priority) -> Queue:
    """The queue of everybody who listens to `target` without a pool."""
    key = routing_key(target.topic, priority)
    return _queue(options, key, (Binding(_exchange(options, target.exchange), key),))


def listener_queues(
    options: NotificationOptions, targets: Sequence[Target], priorities: Iterable[Priority], pool: str | None
) -> tuple[Queue, ...]:
    """The queues that a listener consumes: the default ones, or the one of its pool, which has copies of all that those get."""
    bindings: dict[str, list[Binding]] = {}
    for queue in (default_queue(options, target, priority) for priority in priorities for target in dict.fromkeys(targets)):
        # Two exchanges of one topic share the queue, whose name has no exchange in it.
        bindings.setdefault(queue.name if pool is None else pool, []).extend(queue.bindings)
    return tuple(_queue(options, name, tuple(bound)) for name, bound in bindings.items())


def _exchange(options: NotificationOptions, name: str | None) -> Exchange:
    return Exchange(name or options.control_exchange, "topic", durable=options.durable, auto_delete=options.auto_delete)


def _queue(options: NotificationOptions, name: str, bindings: tuple[Binding, ...]) -> Queue:
    return Queue(name, bindings, durable=options.durable, auto_delete=options.auto_delete, arguments=dict(options.queue_arguments))
