"""One connection to RabbitMQ that is made again whenever it is lost: what both engines share."""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S
from common.transport.port import BusUnavailable, Closed
from common.transport.rabbit_settings import RabbitSettings
from common.transport.rabbit_url import Host, RabbitUrl
from common.transport.tasks import end, keep

C = TypeVar("C")

_LOG = logging.getLogger(__name__)
_DEFAULTS = RabbitSettings()
_CHANCE = random.SystemRandom()


class KeptLink(ABC, Generic[C]):
    """Keeps one connection of kind C. `open` comes first; after `close` everything raises Closed.

    Several hosts are tried in the order of `where`, beginning after the one that was lost, or by chance (`settings.failover`).
    """

    def __init__(
        self, where: RabbitUrl, *, clock: Clock, connection_name: str, settings: RabbitSettings = _DEFAULTS,
        chance: random.Random = _CHANCE,
    ) -> None:  # fmt: skip
        self._where = where
        self._clock = clock
        self._name = connection_name
        self._settings = settings
        self._chance = chance
        tls = where.tls or settings.tls
        self._tls = tls.context() if tls else None
        self._first = 0
        self._connection: C | None = None
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False
        self.reason = "not connected yet"
        """Why there is no connection at the moment."""

    @property
    def url(self) -> str:
        """Without a password."""
        return self._where.shown

    @property
    def is_up(self) -> bool:
        """False while it is being made again."""
        return self._connection is not None and not self._is_over(self._connection)

    async def open(self, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        """Make the first connection. Raises BusUnavailable within `timeout_s`, for a refusal BusRefused."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._connect_somewhere(timeout_s / len(self._where.hosts))
        except TimeoutError as exc:
            raise BusUnavailable(url=self.url, reason=f"no answer within {timeout_s:g} s") from exc
        self._keeper = keep(self._keep(), name=f"{self._name}: keeps the connection")

    def delay_before_again_s(self) -> float:
        """Seconds to wait before something that the broker ended is begun again."""
        return self._settings.delay_before_again_s(self._chance)

    async def ready(self) -> C:
        """The connection, as soon as there is one; the caller sets the time limit. Raises Closed."""
        while True:
            if self._is_closed:
                raise Closed(url=self.url)
            if self._connection is not None and not self._is_over(self._connection):
                return self._connection
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """End it, in good order as long as the broker answers."""
        self._is_closed = True
        self._changed.set()
        await end(self._keeper)
        await self._drop()

    @abstractmethod
    async def _connect(self, host: Host, timeout_s: float) -> C:
        """A connection that is open. Raises BusUnavailable within `timeout_s`, for a refusal BusRefused; nothing is left then."""

    @abstractmethod
    def _is_over(self, connection: C) -> bool: ...

    @abstractmethod
    async def _ended(self, connection: C) -> str:
        """Returns when it has ended, for whatever reason: that, as far as it is known."""

    @abstractmethod
    async def _end(self, connection: C) -> None:
        """End it, within a limit of time; it may have ended by itself."""

    async def _keep(self) -> None:
        while True:
            assert self._connection is not None
            why = await self._ended(self._connection)
            self.reason = "the connection was lost"
            _LOG.warning("lost the connection to %s%s; it is made again", self.url, f" ({why})" if why else "")
            await self._drop()
            self._first += 1
            await self._clock.sleep(self.delay_before_again_s())
            await self._connect_again()
            _LOG.info("connected again to %s", self.url)

    async def _connect_again(self) -> None:
        failures = 0
        while True:
            try:
                await self._connect_somewhere(CONNECT_TIMEOUT_S / 2)
            except BusUnavailable as exc:
                failures += 1
                _LOG.debug("attempt %d: %s", failures, exc)
                self.reason = str(exc.fields["reason"])
                await self._clock.sleep(self._settings.retry.pause_s(failures))
            else:
                return

    async def _connect_somewhere(self, timeout_s: float) -> None:
        """Try each host once, `timeout_s` each. Raises the last one's BusUnavailable."""
        hosts = self._settings.order(self._where.hosts, self._first, self._chance)
        for number, host in enumerate(hosts, start=1):
            try:
                self._connection = await self._connect(host, timeout_s)
            except BusUnavailable:
                if number == len(hosts):
                    raise
            else:
                self._changed.set()
                self._first = self._where.hosts.index(host)
                return

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._end(connection)
