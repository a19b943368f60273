"""Writing to an AMQP channel many messages at a time.

aiormq's own `basic_publish` and `basic_ack` wait for the socket after each frame, under a lock: one system call for each message
is half of what a call costs. Here frames that come up within one turn of the event loop leave together.
"""

import asyncio
from collections.abc import Sequence

import aiormq
import pamqp.frame
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common.transport.rabbit_link import Lost


class Outbox:
    """The frames of one channel on their way to its connection's writer.

    What waits here is bounded by those who wait: publishers for their confirms, consumers by their prefetch.
    """

    def __init__(self, channel: aiormq.abc.AbstractChannel) -> None:
        assert isinstance(channel, aiormq.Channel)  # whose table of confirms is public, as that of the abstract one is not
        self.channel = channel
        self._frames: list[bytes] = []
        self._handing: asyncio.Task[None] | None = None

    def publish(self, body: bytes, *, exchange: str, key: str, properties: aiormq.spec.Basic.Properties, mandatory: bool) -> (
        "asyncio.Future[object]"
    ):  # fmt: skip
        """The broker's confirm to come: a result, aiormq's PublishError for a returned message, DeliveryError for a nack.

        Raises Lost when the channel is closed.
        """
        channel = self.channel
        if channel.is_closed:
            raise Lost("the channel was closed")
        channel.delivery_tag += 1
        tag = channel.delivery_tag
        message_id = properties.message_id = f"{tag:x}"  # by which the driver knows a returned message
        confirm = channel.create_future()
        channel.confirmations[tag] = confirm
        if mandatory:
            channel.message_id_delivery_tag[message_id] = tag
            confirm.add_done_callback(lambda _: channel.message_id_delivery_tag.pop(message_id, None))
        method = aiormq.spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
        header = ContentHeader(properties=properties, body_size=len(body))
        self.send(method, header, *_chunks(body, channel.max_content_size))
        return confirm

    def send(self, *frames: pamqp.base.Frame | ContentHeader | ContentBody) -> None:
        """Frames without an answer."""
        number = self.channel.number
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._frames.extend(pamqp.frame.marshal(frame, number) for frame in frames)

    def _hand_over(self) -> None:
        """Give everything to the connection's writer, now or as soon as it has room."""
        if self._handing is not None and not self._handing.done():
            self._handing.add_done_callback(lambda _: self._hand_over())
            return
        frames, self._frames = self._frames, []
        if not frames or self.channel.is_closed:
            return
        packed = ChannelFrame(payload=b"".join(frames), should_close=False)
        try:
            self.channel.write_queue.put_nowait(packed)
        except asyncio.QueueFull:
            self._handing = asyncio.ensure_future(self.channel.write_queue.put(packed))


def _chunks(body: bytes, size: int) -> Sequence[ContentBody]:
    if len(body) <= size:
        return (ContentBody(body),) if body else ()
    return [ContentBody(body[start : start + size]) for start in range(0, len(body), size)]


class Settlements:
    """Acks and rejects of one consuming channel. Acks of one turn become one frame as far as nothing older is still unsettled."""

    def __init__(self, channel: aiormq.abc.AbstractChannel) -> None:
        self._outbox = Outbox(channel)
        self._open: dict[int, None] = {}
        self._acked: set[int] = set()

    @property
    def is_lost(self) -> bool:
        """True when the broker gives everything unsettled again."""
        return self._outbox.channel.is_closed

    def delivered(self, tag: int) -> None:
        """One more to settle; tags rise."""
        self._open[tag] = None

    def ack(self, tag: int) -> None:
        """It is on its way when the loop turns."""
        if not self._acked:
            asyncio.get_running_loop().call_soon(self._flush)
        self._acked.add(tag)

    def reject(self, tag: int, *, requeue: bool) -> None:
        """Likewise."""
        del self._open[tag]
        self._outbox.send(aiormq.spec.Basic.Reject(delivery_tag=tag, requeue=requeue))

    def _flush(self) -> None:
        acked, self._acked = self._acked, set()
        oldest = []
        for tag in self._open:
            if tag not in acked:
                break
            oldest.append(tag)
        if oldest:
            self._outbox.send(aiormq.spec.Basic.Ack(delivery_tag=oldest[-1], multiple=len(oldest) > 1))
        for tag in acked.difference(oldest):
            self._outbox.send(aiormq.spec.Basic.Ack(delivery_tag=tag))
        for tag in acked:
            del self._open[tag]
