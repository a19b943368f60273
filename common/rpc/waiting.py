"""One call that waits: for its reply, for signs of life, and for the time to repeat itself."""

import asyncio
import math

from msgspec.structs import replace as changed

from common.base.clock import Clock
from common.wire.messages import Reply


class NoSignOfLife(Exception):
    """The server of a monitored call was silent for too long."""


class NotPublished(Exception):
    """The request did not reach the bus in the first try, or nobody knows whether it did: `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Late(Exception):
    """No reply in time."""


class Confirm:
    """Implements `common.transport.deadlines.Expiring`: the bus's word on a cast, to come. One task waits for `told`.

    Its errors are NotPublished and Late.
    """

    __slots__ = ("slot", "told")

    slot: int

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.told: asyncio.Future[None] = loop.create_future()

    def published(self, error: Exception | None) -> None:
        """It is there, or this is what came of it."""
        if self.told.done():
            return
        if error is None:
            self.told.set_result(None)
        else:
            self.told.set_exception(NotPublished(error))

    def expire(self) -> None:
        if not self.told.done():
            self.told.set_exception(Late())


class Waiting:
    """Implements `common.transport.deadlines.Expiring`: a reply to come.

    `take`, `fail`, `hurry`, `published` and `expire` are called from outside; one task waits in `reply` or `reply_within`, or for `answered`.
    """

    __slots__ = ("_clock", "_early", "_future", "_heard_s", "_hurried", "_partial", "slot")

    slot: int

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self._clock = clock
        self._future: asyncio.Future[Reply] = loop.create_future()
        self._partial: Reply | None = None
        self._early: Reply | None = None
        self._heard_s: float | None = None
        self._hurried: asyncio.Future[Reply] | None = None

    def take(self, reply: Reply) -> None:
        """A reply, a sign of life, or the first half of a two-part reply (oslo-wire 3.4)."""
        if not reply.ending:
            self._heard_s = self._clock.monotonic()
            if reply.result is not None or reply.failure is not None:
                self._partial = reply
            return
        if self._partial is not None and reply.result is None and reply.failure is None:
            reply = changed(self._partial, ending=True)
        if self._future.done():
            self._early = reply
        else:
            self._future.set_result(reply)

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        if not self._future.done():
            self._future.set_exception(error)
            self._future.exception()  # nobody need be waiting any more

    def published(self, error: Exception | None) -> None:
        """What came of the first try to publish the request, when nobody waits for that; a reply that is here already is enough."""
        if error is not None:
            self.fail(NotPublished(error))

    def expire(self) -> None:
        self.fail(Late())

    def again(self) -> None:
        """The request is published once more. A reply to the first one may come before that one's."""
        self._future = asyncio.get_running_loop().create_future()
        if self._early is not None:
            self._future.set_result(self._early)

    @property
    def answered(self) -> "asyncio.Future[Reply]":
        """Done once the reply is there, or it is known that none comes: NotPublished, after which `again` comes, or Late."""
        return self._future

    def hurry(self) -> None:
        """Do not wait for the time to repeat it."""
        if self._hurried is not None:
            self._hurried.cancel()

    async def reply(self, monitor_s: float | None) -> Reply:
        """The reply. Raises NoSignOfLife after `monitor_s` seconds of silence."""
        if monitor_s is None:
            return await self._future
        reply = await self.reply_within(math.inf, monitor_s)
        assert reply is not None
        return reply

    async def reply_within(self, delay_s: float, monitor_s: float | None) -> Reply | None:
        """The same; None after `delay_s` seconds without a reply or sign of life, or when told to hurry."""
        hurried = self._hurried = asyncio.get_running_loop().create_future()
        began_s = self._clock.monotonic()
        while not self._future.done() and not hurried.done():
            heard_s = began_s if self._heard_s is None else max(began_s, self._heard_s)
            left_s = heard_s + min(delay_s, monitor_s or math.inf) - self._clock.monotonic()
            if left_s <= 0:
                if monitor_s is not None and monitor_s <= delay_s:
                    raise NoSignOfLife
                return None
            timeout_s = None if left_s == math.inf else left_s
            await asyncio.wait([self._future, hurried], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return self._future.result() if self._future.done() else None
