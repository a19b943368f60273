"""Which exchanges and queues a route means, declared exactly as an oslo.messaging peer with the same options does (oslo-wire 2)."""

from collections.abc import Mapping
from typing import Any

from common.rpc.contract import Route
from common.rpc.options import RpcOptions
from common.transport.port import Binding, Exchange, Queue
from common.wire.address import (
    cancel_exchange,
    cancel_queue,
    fanout_exchange,
    fanout_queue,
    fanout_stream,
    reply_queue,
    routing_key,
)

_DEFAULTS = RpcOptions()


def topic_exchange(options: RpcOptions, exchange: str | None) -> Exchange:
    """The control exchange; `exchange` None: the one of the options."""
    return Exchange(exchange or options.control_exchange, "topic", durable=_is_durable(options), auto_delete=options.auto_delete)


def everywhere(options: RpcOptions, topic: str) -> Exchange:
    """The exchange that reaches every server of a topic; it goes with the last of them."""
    return Exchange(fanout_exchange(topic), "fanout", durable=options.transient_quorum_queue, auto_delete=True)


def destination(options: RpcOptions, route: Route) -> tuple[Exchange, str]:
    """Exchange and routing key of a request."""
    if route.fanout:
        return everywhere(options, route.topic), ""
    return topic_exchange(options, route.exchange), routing_key(route.topic, route.server)


def cancellations(topic: str) -> Exchange:
    """The exchange of callers that leave."""
    return Exchange(cancel_exchange(topic), "fanout", auto_delete=True)


def server_queues(options: RpcOptions, *, exchange: str | None, topic: str, server: str) -> tuple[Queue, ...]:
    """The queues of one server, in oslo's order: any server of the topic, this one, fanout. The last one is nobody else's.

    Callers that leave are heard of through the fanout queue. A stream is read by peers who would not know what that is, so
    there a fourth queue hears of them.
    """
    return (
        topic_queue(options, exchange=exchange, key=routing_key(topic, None)),
        topic_queue(options, exchange=exchange, key=routing_key(topic, server)),
        *_heard_by_all(options, topic, options.own_name()),
    )


def _heard_by_all(options: RpcOptions, topic: str, own: str) -> tuple[Queue, ...]:
    if options.stream_fanout:
        return stream(options, topic), own_cancel_queue(options, topic, own)
    return (own_fanout_queue(options, topic, own),)


def new_reply_queue(options: RpcOptions = _DEFAULTS) -> Queue:
    """A client's own queue for replies: not exclusive, so that it outlives a broken connection."""
    return own_reply_queue(options, options.own_name())


def topic_queue(options: RpcOptions, *, exchange: str | None, key: str) -> Queue:
    """A queue on the control exchange, which bears the name of its key."""
    return Queue(
        key,
        (Binding(topic_exchange(options, exchange), key),),
        durable=_is_durable(options),
        auto_delete=options.auto_delete,
        arguments=_arguments(options, is_quorum=options.quorum_queue, ttl_s=0),
        consume_arguments=_consume_arguments(options),
    )


def own_fanout_queue(options: RpcOptions, topic: str, own: str) -> Queue:
    """The fanout queue of the server that has the name `own` to itself."""
    return _transient(options, fanout_queue(topic, own), Binding(everywhere(options, topic), topic), Binding(cancellations(topic)))


def own_cancel_queue(options: RpcOptions, topic: str, own: str) -> Queue:
    """The queue for callers that leave of the server that has the name `own` to itself."""
    return _transient(options, cancel_queue(topic, own), Binding(cancellations(topic)))


def own_reply_queue(options: RpcOptions, own: str) -> Queue:
    """The reply queue of the client that has the name `own` to itself."""
    return _transient(options, reply_queue(own))


def stream(options: RpcOptions, topic: str) -> Queue:
    """The stream of a topic's fanouts: every reader gets every message, from the newest on."""
    age = {"x-max-age": f"{options.transient_queues_ttl_s}s"} if options.transient_queues_ttl_s else {}
    return Queue(
        fanout_stream(topic),
        (Binding(everywhere(options, topic), topic),),
        durable=True,
        arguments={"x-queue-type": "stream", **age},
        consume_arguments={"x-stream-offset": "last"},
    )


def _transient(options: RpcOptions, name: str, *bindings: Binding) -> Queue:
    """A queue of one process: durable only because quorum queues must be; the broker drops it when nobody came for its ttl."""
    is_quorum = options.transient_quorum_queue
    return Queue(
        name,
        bindings,
        durable=is_quorum,
        arguments=_arguments(options, is_quorum=is_quorum, ttl_s=options.transient_queues_ttl_s),
        consume_arguments=_consume_arguments(options),
    )


def _is_durable(options: RpcOptions) -> bool:
    return options.durable or options.quorum_queue


def _arguments(options: RpcOptions, *, is_quorum: bool, ttl_s: int) -> Mapping[str, Any]:
    """Source: oslo_messaging/_drivers/impl_rabbit.py, _get_queue_arguments."""
    found: dict[str, Any] = {"x-ha-policy": "all"} if options.ha_queues else {}
    if is_quorum:
        limits = {
            "x-delivery-limit": options.quorum_delivery_limit,
            "x-max-in-memory-length": options.quorum_max_memory_length,
            "x-max-in-memory-bytes": options.quorum_max_memory_bytes,
        }
        found |= {"x-queue-type": "quorum"} | {name: limit for name, limit in limits.items() if limit}
    if ttl_s:
        found["x-expires"] = ttl_s * 1000
    return found


def _consume_arguments(options: RpcOptions) -> Mapping[str, Any]:
    return {"x-cancel-on-ha-failover": True} if options.cancel_on_failover else {}
