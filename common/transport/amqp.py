"""RabbitMQ as a transport over our own engine (`common.amqp`), in the forms of oslo.messaging's rabbit driver.

`rabbit://` over aio-pika and `amqp://` over this put the same bytes on the wire; processes of both may share a bus.
"""

from collections.abc import Callable

from common.base.clock import Clock
from common.transport.amqp_consume import AmqpConsumer
from common.transport.amqp_declare import declare_alone
from common.transport.amqp_get import AmqpGetter
from common.transport.amqp_link import AmqpLink, asked
from common.transport.amqp_publish import AmqpPublisher
from common.transport.kept_transport import KeptTransport
from common.transport.port import Message, Queue, QueueDepth
from common.wire.compression import Compression


class AmqpTransport(KeptTransport[AmqpLink]):
    """Implements `common.transport.port.Transport` and `Pipelining` over our own engine."""

    make_link = AmqpLink
    make_consumer = AmqpConsumer

    def __init__(self, outgoing: AmqpLink, incoming: AmqpLink, *, clock: Clock, compression: Compression | None = None) -> None:
        super().__init__(outgoing, incoming, clock=clock, compression=compression)
        self._publisher = AmqpPublisher(outgoing, clock=clock)
        self._getter = AmqpGetter(incoming)

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        await self._publisher.publish(self._checked(message), timeout_s=timeout_s)

    def publish_soon(self, message: Message, on_end: Callable[[Exception | None], None]) -> bool:
        return self._publisher.publish_soon(self._checked(message), on_end)

    async def declare(self, queue: Queue) -> None:
        self._check_open()
        await declare_alone(self._outgoing, queue, clock=self._clock)

    async def delete_queue(self, name: str) -> None:
        self._check_open()
        await asked(self._asking, "queue.delete", what=f"the deletion of queue {name}", queue=name)

    async def depth(self, queue: str) -> QueueDepth | None:
        self._check_open()
        found = await asked(self._asking, "queue.declare", what=f"a question for queue {queue}", queue=queue, passive=True)
        if found is None:
            return None
        return QueueDepth(found.method["message_count"], consumers=found.method["consumer_count"])

    async def close(self) -> None:
        await super().close()
        self._publisher.close()
