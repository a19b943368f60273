"""Writing to an AMQP channel many messages at a time.

aiormq's own `basic_publish` and `basic_ack` wait for the socket after each frame, under a lock: one system call for each message
is half of what a call costs. Here frames that come up within one turn of the event loop leave together.
"""

import asyncio

import aiormq
import pamqp.base
import pamqp.frame
from aiormq.abc import ChannelFrame

from common.transport.port import Message
from common.transport.rabbit_frames import FRAME_OVERHEAD, publish_frames
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

    def publish(self, message: Message) -> "asyncio.Future[object]":
        """The broker's confirm to come: a result, aiormq's PublishError for a returned message, DeliveryError for a nack.

        Raises Lost when the channel is closed.
        """
        channel = self.channel
        if channel.is_closed:
            raise Lost("the channel was closed")
        tag = channel.delivery_tag + 1
        message_id = f"{tag:x}"  # by which the driver knows a returned message
        frames = publish_frames(
            channel.number,
            exchange=message.exchange.name if message.exchange else "",
            key=message.key,
            mandatory=message.mandatory,
            body=message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=message.headers,
            expiration_ms=message.expiration_ms,
            message_id=message_id,
            frame_max=channel.max_content_size + FRAME_OVERHEAD,
        )
        channel.delivery_tag = tag
        confirm = channel.create_future()
        channel.confirmations[tag] = confirm
        if message.mandatory:
            channel.message_id_delivery_tag[message_id] = tag
            confirm.add_done_callback(lambda _: channel.message_id_delivery_tag.pop(message_id, None))
        self._send(frames)
        return confirm

    def send(self, frame: pamqp.base.Frame) -> None:
        """A frame without an answer."""
        self._send(pamqp.frame.marshal(frame, self.channel.number))

    def _send(self, frames: bytes) -> None:
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._frames.append(frames)

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
