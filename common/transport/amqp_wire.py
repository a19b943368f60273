"""One TCP connection with its AMQP connection: where the engine of `common.amqp` meets asyncio.

Bytes that come up within one turn of the event loop leave in one write, and a publish that comes alone leaves at once; what comes in
is handled where it arrives, without a task or a queue in between.
"""

import asyncio
from collections import deque
from typing import Any, cast

from common.amqp.channel import Channel
from common.amqp.connection import Connection
from common.amqp.events import (
    Blocked,
    ChannelClosed,
    Confirmed,
    ConnectionClosed,
    ConsumerCancelled,
    Delivered,
    Event,
    FlowChanged,
    Opened,
    Replied,
    Returned,
    Unblocked,
)
from common.amqp.states import ConnectionState
from common.transport.amqp_channel import AmqpChannel, Lost

WRITE_BYTES_HIGH = 1024 * 1024
"""Bytes on their way to the socket from which on publishers wait."""
WRITE_AT_ONCE_BYTES = 256 * 1024
"""So much is not kept until the loop turns."""
ALONE_S = 0.0001
"""A publish is alone when nothing left so long before it, and nothing leaves with it: a call or cast that waits for the one before is."""
ACKS_WAIT_S = 0.002
"""So long acks wait for others, as long as the consumer may hold twice as many messages as it does: each write costs both sides."""


class Wire(asyncio.Protocol):
    """Implements `asyncio.Protocol` for one `Connection`. `closed` ends with the connection, whatever ended it."""

    def __init__(self, core: Connection, *, loop: asyncio.AbstractEventLoop) -> None:
        self.core = core
        self.opened: asyncio.Future[Opened] = loop.create_future()
        self.closed: asyncio.Future[ConnectionClosed] = loop.create_future()
        self.has_room = False
        """True when a publish need not wait."""
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._channels: dict[int, AmqpChannel] = {}
        self._is_woken = False
        self._published = 0
        """Publishes since the last write."""
        self._comes_alone = False
        """True when the last publish did; a turn of the loop to wait for others would be for nothing then."""
        self._wrote_s = loop.time()
        self._is_paused = False
        self._later: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    # -- asyncio's side -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not by isinstance: uvloop's transports are asyncio's by their methods alone.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES_HIGH)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._take(self.core.receive_data(data, self._loop.time()))
        if self.core.pending_bytes:
            self.wake()

    def eof_received(self) -> None:
        self._take(self.core.receive_eof())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._is_paused = True
        self._take(self.core.receive_eof())
        for timer in (self._timer, self._later):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        self._is_paused = True
        self._look_for_room()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._flush()
        self._look_for_room()

    # -- our side -----------------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """True when nothing more comes or goes."""
        return self.closed.done()

    def open_channel(self) -> AmqpChannel:
        """A channel; wait for its `opened`. Raises Lost when the connection is gone, amqp's Busy when there are too many."""
        if self.core.state is not ConnectionState.OPEN:
            raise Lost("the connection was closed")
        opened: asyncio.Future[Replied] = self._loop.create_future()
        core: Channel = self.core.open_channel(opened)
        channel = self._channels[core.number] = AmqpChannel(core, self, opened=opened)
        self.wake()
        return channel

    def published(self) -> None:
        """There is a publish to send: it leaves at once, or when the loop turns while there are many."""
        self._published += 1
        if self._comes_alone and self._loop.time() - self._wrote_s > ALONE_S:
            self._flush()
        else:
            self.wake()

    def wake(self) -> None:
        """There is something to send: it leaves when the loop turns."""
        if self.core.pending_bytes > WRITE_AT_ONCE_BYTES:
            self._flush()
        elif not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._flush_when_woken)

    def wake_later(self) -> None:
        """There is something to send that can wait a moment for others."""
        if not self._is_woken and self._later is None:
            self._later = self._loop.call_later(ACKS_WAIT_S, self._flush_later)

    async def room(self) -> None:
        """Returns when a publish may go out, or the connection has ended. Who came first goes first."""
        while not self.has_room and not self.is_closed:
            waiting: asyncio.Future[None] = self._loop.create_future()
            self._waiting.append(waiting)
            try:
                await waiting
            except asyncio.CancelledError:
                if waiting.done() and not waiting.cancelled():
                    self._let_one_in()
                raise

    def close(self) -> None:
        """Begin to end it; `closed` follows when the broker has answered."""
        self.core.close()
        self.wake()
        self._look_for_room()

    def abort(self) -> None:
        """End it now, whether the broker answers or not."""
        self._take(self.core.receive_eof())
        if self._transport is not None:
            self._transport.abort()

    # -- in between ---------------------------------------------------------------------------------------------------

    def _flush_when_woken(self) -> None:
        self._is_woken = False
        self._comes_alone = self._published == 1 and self._loop.time() - self._wrote_s > ALONE_S
        self._flush()

    def _flush_later(self) -> None:
        self._later = None
        self._flush()

    def _flush(self) -> None:
        if self._is_paused or self._transport is None:
            return
        now_s = self._loop.time()
        if data := self.core.data_to_send(now_s):
            self._transport.write(data)
            self._wrote_s = now_s
            self._published = 0

    def _take(self, events: list[Event]) -> None:
        channels = self._channels
        for event in events:
            kind = type(event)
            if kind is Delivered:
                channels[event.channel].on_delivery(event)  # type: ignore[union-attr, arg-type]  # kind says so; isinstance is slower
            elif kind is Confirmed:
                channels[event.channel].confirmed(event)  # type: ignore[union-attr, arg-type]
            else:
                self._take_rare(event)

    def _take_rare(self, event: Event) -> None:
        match event:
            case Replied() | Returned() | ConsumerCancelled() | FlowChanged():
                self._channels[event.channel].take(event)
            case ChannelClosed():
                self._channels.pop(event.channel).ended(event)
            case Blocked() | Unblocked():
                self._look_for_room()
            case Opened():
                self._opened(event)
            case ConnectionClosed():
                self._closed(event)
            case Delivered() | Confirmed():
                raise AssertionError(event)

    def _opened(self, event: Opened) -> None:
        self._set(self.opened, event)
        self._look_for_room()
        self._watch()

    def _closed(self, event: ConnectionClosed) -> None:
        self.has_room = False
        self._set(self.closed, event)
        if not self.opened.done():
            self.opened.cancel()
        while self._waiting:
            self._let_one_in()
        if self._transport is not None:
            if not self._is_paused and (data := self.core.data_to_send(self._loop.time())):
                self._transport.write(data)  # our last word
            self._transport.close()

    def _look_for_room(self) -> None:
        self.has_room = not (self._is_paused or self.core.is_blocked) and self.core.state is ConnectionState.OPEN
        while self.has_room and self._waiting:
            self._let_one_in()

    def _let_one_in(self) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    def _watch(self) -> None:
        """Heartbeats, both ways."""
        self._timer = None
        self._take(self.core.tick(self._loop.time()))
        if self.is_closed:
            self.abort()
            return
        self._flush()
        if (next_s := self.core.next_tick_s) is not None:
            self._timer = self._loop.call_at(next_s, self._watch)

    @staticmethod
    def _set(future: "asyncio.Future[Any]", event: Event) -> None:
        if not future.done():
            future.set_result(event)
