"""Publishing over the engine of `common.amqp`, with confirms that come while others publish on."""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from common.base.clock import Clock
from common.base.errors import Timeout
from common.transport.amqp_channel import AmqpChannel, Lost, NoRoute, NotTaken, Refused
from common.transport.amqp_declare import declare_exchange
from common.transport.amqp_link import AmqpLink
from common.transport.deadlines import Deadlines
from common.transport.declaring import flipped
from common.transport.errors import BusRefused, address
from common.transport.port import BusUnavailable, Exchange, Message, Unroutable
from common.transport.rabbit_settings import pause_s

DECLARATIONS_MAX = 4
"""Tries to publish to an exchange that is gone each time, before it is called a refusal."""
NACKS_MAX = 5
"""Tries to publish what the broker does not take, before it is called away: some three seconds."""
_NOT_FOUND, _PRECONDITION_FAILED = 404, 406


class _Late(Exception):
    """No confirm in time."""


class _Waiting:
    """Implements `Sent` and `Expiring` for one who waits for the confirm."""

    __slots__ = ("_deadlines", "_lane", "future", "slot")

    slot: int

    def __init__(self, lane: "_Lane", deadlines: Deadlines, timeout_s: float) -> None:
        self.future: asyncio.Future[None] = lane.loop.create_future()
        self._lane = lane
        self._deadlines = deadlines
        deadlines.add(self, timeout_s)

    def end(self, error: Exception | None) -> None:
        self._deadlines.done(self)
        if not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
        self._lane.one_ended()

    def expire(self) -> None:
        if not self.future.done():
            self.future.set_exception(_Late())


class _Telling(msgspec.Struct):
    """Implements `Sent` for one who does not wait: `on_end` is called with what came of it."""

    lane: "_Lane"
    publisher: "AmqpPublisher"
    message: Message
    on_end: Callable[[Exception | None], None]

    def end(self, error: Exception | None) -> None:
        if self.lane.waiting:
            self.lane.one_ended()
        self.on_end(None if error is None else self.publisher.told(error, self.message))


class AmqpPublisher:
    """Publishes over one link.

    Exchanges that delete themselves have a channel of their own, used by one message at a time: when such an exchange is gone,
    the broker closes the channel, and no other message shall lose its confirm by that.
    """

    def __init__(self, link: AmqpLink, *, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        loop = asyncio.get_running_loop()
        self._deadlines = Deadlines(loop)
        self._steady = _Lane(link, loop)
        self._fleeting = _Lane(link, loop)
        self._turn = asyncio.Lock()

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        """Returns with the broker's confirm.

        A message whose confirm was lost with the connection is sent again: its queue may then hold it twice.
        Raises Unroutable, BusUnavailable (its field `is_sent`: the broker may have the message all the same), Timeout, Closed.
        """
        exchange = message.exchange
        if (exchange is None or not exchange.auto_delete) and self._steady.is_ready_for(exchange):
            waiting = _Waiting(self._steady, self._deadlines, timeout_s)
            began_s = self._steady.loop.time()
            try:
                self._steady.send(message, waiting)
                await waiting.future
            except _Late:
                raise self._late(message, timeout_s, is_sent=True) from None
            except NoRoute as exc:
                raise Unroutable(address=address(message)) from exc
            except (Lost, NotTaken, Refused) as exc:
                left_s = timeout_s - (self._steady.loop.time() - began_s)
                await self._publish_slowly(message, timeout_s, left_s, exc)
            finally:
                self._deadlines.done(waiting)
            return
        await self._publish_slowly(message, timeout_s, timeout_s, None)

    def publish_soon(self, message: Message, on_end: Callable[[Exception | None], None]) -> bool:
        """Send it, if that needs no waiting, and call `on_end` with what came of it: None, Unroutable, BusUnavailable, BusRefused.

        False: it was not sent, and `on_end` is not called.
        """
        exchange = message.exchange
        lane = self._steady
        channel = lane.channel
        if (
            channel is None
            or not channel.has_room
            or lane.waiting
            or (exchange is not None and (exchange.auto_delete or exchange not in lane.declared))
        ):
            return False
        channel.publish(message, _Telling(lane, self, message, on_end))
        return True

    def told(self, error: Exception, message: Message) -> Exception:
        """What a caller is told of it."""
        match error:
            case NoRoute():
                return Unroutable(address=address(message))
            case Refused():
                return self._refused(message, error)
            case _:
                return BusUnavailable(url=self._link.url, reason=str(error), is_sent=not isinstance(error, NotTaken))

    def close(self) -> None:
        """No deadline rings any more."""
        self._deadlines.close()

    async def _publish_slowly(self, message: Message, timeout_s: float, left_s: float, error: Exception | None) -> None:
        """With whatever must come first: a connection, a channel, an exchange, room. `error` is what a first try came to."""
        lane = self._fleeting if message.exchange is not None and message.exchange.auto_delete else self._steady
        sending = _Sending(message, is_begun=error is not None)
        try:
            async with asyncio.timeout(left_s):
                if lane is self._fleeting:
                    async with self._turn:
                        await self._publish(lane, sending, error)
                else:
                    await self._publish(lane, sending, error)
        except TimeoutError as exc:
            raise self._late(message, timeout_s, is_sent=sending.is_begun) from exc

    def _late(self, message: Message, timeout_s: float, *, is_sent: bool) -> Exception:
        if not self._link.is_up:
            return BusUnavailable(url=self._link.url, reason=self._link.reason, is_sent=is_sent)
        return Timeout(what=f"the message bus's confirm of a message to {address(message)}", timeout_s=timeout_s)

    async def _publish(self, lane: "_Lane", sending: "_Sending", error: Exception | None) -> None:
        message = sending.message
        failures = missing = nacks = 0
        while True:
            try:
                if error is not None:
                    raise error
                await lane.publish(sending)
            except Lost:
                failures += 1
                await self._clock.sleep(pause_s(failures))
            except NoRoute as exc:
                raise Unroutable(address=address(message)) from exc
            except NotTaken as exc:
                nacks += 1
                if nacks == NACKS_MAX:
                    reason = f"it did not take a message to {address(message)}"
                    raise BusUnavailable(url=self._link.url, reason=reason) from exc
                await self._clock.sleep(pause_s(nacks))
            except Refused as exc:
                missing += exc.code == _NOT_FOUND
                if exc.code != _NOT_FOUND or missing == DECLARATIONS_MAX:
                    raise self._refused(message, exc) from exc
            else:
                return
            error = None

    def _refused(self, message: Message, exc: Exception) -> BusRefused:
        return BusRefused(url=self._link.url, what=f"a message to {address(message)}", reason=str(exc))


class _Sending:
    """Implements `Sent` for the slow way: a message, and whether it was ever given to a connection."""

    __slots__ = ("future", "is_begun", "lane", "message")

    def __init__(self, message: Message, *, is_begun: bool) -> None:
        self.message = message
        self.is_begun = is_begun
        self.lane: _Lane | None = None
        self.future: asyncio.Future[None] | None = None

    def end(self, error: Exception | None) -> None:
        assert self.future is not None
        assert self.lane is not None
        if not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
        self.lane.one_ended()


class _Lane:
    """One channel with confirms, opened again after a loss, and the exchanges that were declared since it was opened."""

    def __init__(self, link: AmqpLink, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._link = link
        self.channel: AmqpChannel | None = None
        self.declared: set[Exchange | None] = set()
        self._lock = asyncio.Lock()
        self.waiting: deque[asyncio.Future[None]] = deque()

    def is_ready_for(self, exchange: Exchange | None) -> bool:
        """True when a message to it can leave at once."""
        channel = self.channel
        return channel is not None and (exchange is None or exchange in self.declared) and channel.has_room and not self.waiting

    def send(self, message: Message, sent: "_Waiting | _Telling | _Sending") -> None:
        """Give it to the channel. Raises Lost, ValueError."""
        assert self.channel is not None
        self.channel.publish(message, sent)

    async def publish(self, sending: _Sending) -> None:
        """Returns with the confirm. Raises what `Sent.end` is told, Closed."""
        await self._link.room()
        exchange = sending.message.exchange
        if self.channel is None or self.channel.is_closed or exchange not in self.declared:
            await self._open(exchange)
        while self.channel is not None and self.channel.core.unconfirmed.is_full:
            await self._turn()
        sending.lane = self
        sending.future = self.loop.create_future()
        self.send(sending.message, sending)
        sending.is_begun = True
        await sending.future

    def one_ended(self) -> None:
        """There is room for one more."""
        while self.waiting:
            waiting = self.waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)
                return

    async def _turn(self) -> None:
        waiting: asyncio.Future[None] = self.loop.create_future()
        self.waiting.append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self.one_ended()
            raise

    async def _open(self, exchange: Exchange | None) -> None:
        async with self._lock:
            if self.channel is None or self.channel.is_closed:
                self.channel = await self._link.channel(confirms=True)
                self.declared = {None}
            if exchange not in self.declared:
                assert exchange is not None
                await self._declare(exchange)
                self.declared.add(exchange)

    async def _declare(self, exchange: Exchange) -> None:
        """On a channel of its own: a refusal shall not close the one where others wait for confirms."""
        try:
            async with self._link.short_channel() as channel:
                await declare_exchange(channel, exchange)
        except Refused as exc:
            if exc.code != _PRECONDITION_FAILED:
                raise
            other = flipped((exchange,), str(exc))
            if other is None:
                raise
            async with self._link.short_channel() as channel:
                await declare_exchange(channel, *other)
