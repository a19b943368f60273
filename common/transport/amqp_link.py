"""One connection to an AMQP broker that is made again whenever it is lost; over the engine of `common.amqp`."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from common.amqp.channel import Busy
from common.amqp.connection import ACCESS_REFUSED, Connection
from common.amqp.events import Replied
from common.amqp.limits import Limits
from common.amqp.login import Login
from common.amqp.states import ConnectionState
from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S, GOODBYE_TIMEOUT_S, MESSAGE_BYTES_MAX, UNCONFIRMED_MAX
from common.transport.amqp_channel import AmqpChannel, Lost, Refused
from common.transport.amqp_wire import Wire
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable, Closed
from common.transport.rabbit_settings import RabbitSettings, reason_of
from common.transport.rabbit_url import Host, RabbitUrl
from common.transport.tasks import end, keep

NOT_ALLOWED = 530
_LIMITS = Limits(body_bytes=MESSAGE_BYTES_MAX + 1, unconfirmed=UNCONFIRMED_MAX)
"""A body that was cut at this size is too large for whoever reads it, as it was before."""

_LOG = logging.getLogger(__name__)
_DEFAULTS = RabbitSettings()
_CHANCE = random.SystemRandom()


class AmqpLink:
    """Keeps one connection. `open` comes first; after `close` everything raises Closed.

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
        self._wire: Wire | None = None
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
        return self._wire is not None and not self._wire.is_closed

    @property
    def has_room(self) -> bool:
        """True when a publish need not wait for the socket or the broker."""
        return self._wire is not None and self._wire.has_room

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

    async def ready(self) -> Wire:
        """The connection, as soon as there is one; the caller sets the time limit. Raises Closed."""
        while True:
            if self._is_closed:
                raise Closed(url=self.url)
            if self._wire is not None and not self._wire.is_closed:
                return self._wire
            self._changed.clear()
            await self._changed.wait()

    async def room(self) -> None:
        """Returns when a publish may go out. Raises Closed."""
        while not self.has_room:
            wire = await self.ready()
            await wire.room()

    async def channel(self, *, confirms: bool) -> AmqpChannel:
        """A new channel, as soon as there is a connection. Raises Lost, Closed."""
        wire = await self.ready()
        try:
            channel = wire.open_channel()
        except Busy as exc:
            raise Lost(str(exc)) from exc
        try:
            if confirms:
                await channel.ask("confirm.select")
            else:
                await channel.opened
        except BaseException:
            channel.close_soon()
            raise
        return channel

    @asynccontextmanager
    async def short_channel(self) -> AsyncIterator[AmqpChannel]:
        """A channel for one question, because a wrong one costs its channel."""
        channel = await self.channel(confirms=False)
        try:
            yield channel
        finally:
            channel.close_soon()

    async def close(self) -> None:
        """End it, in good order as long as the broker answers."""
        self._is_closed = True
        self._changed.set()
        await end(self._keeper)
        await self._drop()

    async def _keep(self) -> None:
        while True:
            assert self._wire is not None
            closed = await asyncio.shield(self._wire.closed)
            self.reason = "the connection was lost"
            _LOG.warning("lost the connection to %s (%s); it is made again", self.url, closed.reply_text)
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
                pause = self._settings.retry.pause_s(failures)
                await self._clock.sleep(pause)
            else:
                return

    async def _connect_somewhere(self, timeout_s: float) -> None:
        """Try each host once, `timeout_s` each. Raises the last one's BusUnavailable."""
        hosts: Sequence[Host] = self._settings.order(self._where.hosts, self._first, self._chance)
        for number, host in enumerate(hosts, start=1):
            try:
                await self._connect(host, timeout_s)
            except BusUnavailable:
                if number == len(hosts):
                    raise
            else:
                self._first = self._where.hosts.index(host)
                return

    async def _connect(self, host: Host, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        wire = Wire(self._core(host, loop.time()), loop=loop)
        is_open = False
        try:
            async with asyncio.timeout(timeout_s):
                name = host.name if self._tls else None
                await loop.create_connection(lambda: wire, host.name, host.port, ssl=self._tls, server_hostname=name)
                ends: list[asyncio.Future[Any]] = [wire.opened, wire.closed]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            is_open = not wire.is_closed
        except TimeoutError as exc:
            raise BusUnavailable(url=self.url, reason=f"{host.name}:{host.port} gave no answer in {timeout_s:g} s") from exc
        except OSError as exc:
            raise BusUnavailable(url=self.url, reason=f"{host.name}:{host.port}: {reason_of(exc)}") from exc
        finally:
            if not is_open:
                wire.abort()
        if wire.is_closed:
            raise self._refusal(host, wire)
        self._wire = wire
        self._changed.set()

    def _core(self, host: Host, now_s: float) -> Connection:
        return Connection(
            Login(host.user, host.password, self._settings.login_method),
            virtual_host=self._where.virtual_host,
            now_s=now_s,
            heartbeat_s=self._settings.heartbeat_s,
            limits=_LIMITS,
            properties={"connection_name": self._name, "product": "nova-cinder-lite", "platform": "Python"},
        )

    def _refusal(self, host: Host, wire: Wire) -> BusUnavailable:
        closed = wire.closed.result()
        if closed.reply_code == ACCESS_REFUSED:
            return BusRefused(url=self.url, what=f"user {host.user}", reason=closed.reply_text)
        if closed.reply_code == NOT_ALLOWED:
            return BusRefused(url=self.url, what=f"virtual host {self._where.virtual_host}", reason=closed.reply_text)
        return BusUnavailable(url=self.url, reason=f"{host.name}:{host.port}: {closed.reply_text}")

    async def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if wire.core.state is not ConnectionState.CLOSED:
            wire.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_TIMEOUT_S):
                    await asyncio.shield(wire.closed)
        wire.abort()


async def asked(link: AmqpLink, name: str, *, what: str, **arguments: object) -> Replied | None:
    """The answer to one question on a channel of its own; None when the thing is not there (404).

    Raises BusRefused naming `what`, BusUnavailable, Closed.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S), link.short_channel() as channel:
            return await channel.ask(name, **arguments)
    except Refused as exc:
        if exc.code == 404:
            return None
        raise BusRefused(url=link.url, what=what, reason=str(exc)) from exc
    except (Lost, TimeoutError) as exc:
        raise BusUnavailable(url=link.url, reason=str(exc) or f"no answer to {what}") from exc
