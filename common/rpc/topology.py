"""Which exchanges and queues a route means, declared exactly as an oslo.messaging peer with the same options does (oslo-wire 2)."""

from common.base.limits import REPLY_QUEUE_EXPIRES_MS
from common.rpc.contract import Route
from common.rpc.options import RpcOptions
from common.transport.port import Binding, Exchange, Queue
from common.wire.address import cancel_exchange, fanout_exchange, fanout_queue, reply_queue, routing_key

_EXPIRES = {"x-expires": REPLY_QUEUE_EXPIRES_MS}


def topic_exchange(options: RpcOptions, exchange: str | None) -> Exchange:
    """The control exchange; `exchange` None: the one of the options."""
    return Exchange(exchange or options.control_exchange, "topic", durable=options.durable, auto_delete=options.auto_delete)


def destination(options: RpcOptions, route: Route) -> tuple[Exchange, str]:
    """Exchange and routing key of a request."""
    if route.fanout:
        return Exchange(fanout_exchange(route.topic), "fanout", auto_delete=True), ""
    return topic_exchange(options, route.exchange), routing_key(route.topic, route.server)


def server_queues(options: RpcOptions, *, exchange: str | None, topic: str, server: str) -> tuple[Queue, Queue, Queue]:
    """The queues of one server, in oslo's order: any server of the topic, this one, fanout."""
    control = topic_exchange(options, exchange)

    def bound(key: str) -> Queue:
        return Queue(key, (Binding(control, key),), durable=options.durable, auto_delete=options.auto_delete)

    fanout = Exchange(fanout_exchange(topic), "fanout", auto_delete=True)
    return (
        bound(routing_key(topic, None)),
        bound(routing_key(topic, server)),
        Queue(fanout_queue(topic), (Binding(fanout, topic), Binding(cancellations(topic))), arguments=_EXPIRES),
    )


def cancellations(topic: str) -> Exchange:
    """The exchange of callers that leave."""
    return Exchange(cancel_exchange(topic), "fanout", auto_delete=True)


def new_reply_queue() -> Queue:
    """A client's own queue for replies: not exclusive, so that it outlives a broken connection."""
    return Queue(reply_queue(), arguments=_EXPIRES)
