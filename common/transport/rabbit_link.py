"""One connection to RabbitMQ that is made again whenever it is lost."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import aio_pika
import aiormq
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, AuthenticationError, InvalidFrameError, ProbableAuthenticationError
from yarl import URL

from common.base.clock import Clock
from common.base.limits import CONNECT_TIMEOUT_S, SETTLE_TIMEOUT_S
from common.transport.errors import BusRefused
from common.transport.port import BusUnavailable, Closed
from common.transport.rabbit_settings import RabbitSettings, reason_of
from common.transport.rabbit_url import Host, RabbitUrl
from common.transport.tasks import end, keep

_LOG = logging.getLogger(__name__)
_DEFAULTS = RabbitSettings()
_CHANCE = random.SystemRandom()


class Lost(Exception):
    """The connection or the channel ended during what was tried; nobody knows whether it was done."""


@contextmanager
def watched() -> Iterator[None]:
    """Raises Lost for every way in which the driver says that a connection or channel ended.

    Answers of the broker to a request (ChannelClosed with a code) come through. Cancellation is put right in both directions:
    the driver may end a waiting call with CancelledError though nobody cancelled the caller (a connection that it found stuck),
    which is a loss too; and its `asyncio.wait_for`, before Python 3.12, forgets that the caller was cancelled when the answer
    comes in the same moment.
    """
    task = asyncio.current_task()
    cancelled_before = task.cancelling() if task else 0
    try:
        with _driver_errors():
            yield
    finally:
        if task is not None and task.cancelling() > cancelled_before:
            raise asyncio.CancelledError


@contextmanager
def _driver_errors() -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Lost("the connection was given up") from exc
    except (aiormq.ChannelClosed, aiormq.DeliveryError) as exc:
        if isinstance(exc, aiormq.ChannelClosed) and not _is_answer(exc):
            raise Lost(reason_of(exc)) from exc
        raise
    except TimeoutError:
        raise
    except CONNECTION_EXCEPTIONS as exc:
        raise Lost(reason_of(exc)) from exc


def _is_answer(exc: aiormq.ChannelClosed) -> bool:
    """True when the broker closed the channel because of what was asked: 403, 404, 405, 406."""
    return type(exc) is not aiormq.ChannelClosed


class Link:
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
        self._connection: aiormq.abc.AbstractConnection | None = None
        self._outer: aio_pika.Connection | None = None
        self._changed = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()
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
        return self._connection is not None and not self._connection.is_closed

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

    async def ready(self) -> aiormq.abc.AbstractConnection:
        """The connection, as soon as there is one; the caller sets the time limit. Raises Closed."""
        while True:
            if self._is_closed:
                raise Closed(url=self.url)
            if self._connection is not None and not self._connection.is_closed:
                return self._connection
            self._changed.clear()
            await self._changed.wait()

    async def channel(self, *, confirms: bool) -> aiormq.abc.AbstractChannel:
        """A new channel, as soon as there is a connection. Raises Lost, Closed.

        It is aio-pika's inner channel, aiormq's: the outer one passes `expiration` through float seconds, and leaves something
        of every channel in the connection's memory, of which `short_channel` needs many.
        """
        connection = await self.ready()
        channel: aiormq.abc.AbstractChannel | None = None
        try:
            with watched():
                channel = await connection.channel(publisher_confirms=confirms, on_return_raises=True)
        except asyncio.CancelledError:
            if channel is not None:
                await self.end_channel(channel)
            raise
        return channel

    @asynccontextmanager
    async def short_channel(self) -> AsyncIterator[aiormq.abc.AbstractChannel]:
        """A channel for one question, because a wrong one costs its channel."""
        channel = await self.channel(confirms=False)
        try:
            yield channel
        finally:
            await self.end_channel(channel)

    async def end_channel(self, channel: aiormq.abc.AbstractChannel) -> None:
        """End a channel that may have ended by itself; it is ended even if the caller is cancelled meanwhile.

        The driver would answer a cancelled close with a second close, for which the broker ends the whole connection.
        """
        await asyncio.shield(self.end_channel_soon(channel))

    def end_channel_soon(self, channel: aiormq.abc.AbstractChannel) -> asyncio.Task[None]:
        """The same, without waiting for it."""
        ending = asyncio.create_task(_close(channel), name=f"{self._name}: closes a channel")
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        return ending

    async def channels_ended(self) -> None:
        """Returns when no channel is being ended."""
        if self._endings:
            await asyncio.wait(set(self._endings))

    async def close(self) -> None:
        """End it, in good order as long as the broker answers."""
        self._is_closed = True
        self._changed.set()
        await end(self._keeper)
        await self._drop()
        if self._endings:
            await asyncio.wait(self._endings)

    async def _keep(self) -> None:
        while True:
            connection = self._connection
            assert connection is not None
            await _ended(connection)
            self.reason = "the connection was lost"
            _LOG.warning("lost the connection to %s; it is made again", self.url)
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
                await self._connect(host, timeout_s)
            except BusUnavailable:
                if number == len(hosts):
                    raise
            else:
                self._first = self._where.hosts.index(host)
                return

    async def _connect(self, host: Host, timeout_s: float) -> None:
        connection = aio_pika.Connection(
            self._address(host), ssl_context=self._tls, client_properties={"connection_name": self._name}
        )
        try:
            with watched():
                async with asyncio.timeout(timeout_s):
                    await connection.connect()
        except TimeoutError as exc:
            await connection.close()
            raise BusUnavailable(url=self.url, reason=f"{host.name}:{host.port} gave no answer in {timeout_s:g} s") from exc
        except Lost as exc:
            await connection.close()
            raise self._refusal(host, exc) from exc
        except BaseException:
            await connection.close()
            raise
        assert connection.transport is not None
        self._outer, self._connection = connection, connection.transport.connection
        self._changed.set()

    def _refusal(self, host: Host, exc: Lost) -> BusUnavailable:
        cause = exc.__cause__
        if isinstance(cause, AuthenticationError | ProbableAuthenticationError):
            return BusRefused(url=self.url, what=f"user {host.user}", reason=str(exc))
        if isinstance(cause, InvalidFrameError) and "Connection.OpenOk" in str(cause):
            # The driver keeps the broker's words to itself here.
            reason = f"there is none of that name, or user {host.user} may not use it"
            return BusRefused(url=self.url, what=f"virtual host {self._where.virtual_host}", reason=reason)
        return BusUnavailable(url=self.url, reason=f"{host.name}:{host.port}: {exc}")

    def _address(self, host: Host) -> URL:
        return URL.build(
            scheme="amqps" if self._tls else "amqp",
            host=host.name,
            port=host.port,
            user=host.user,
            password=host.password,
            path=f"/{self._where.virtual_host}",
            query={
                "heartbeat": str(self._settings.heartbeat_s),
                "auth": "external" if self._settings.login_method == "EXTERNAL" else "plain",
            },
        )

    async def _drop(self) -> None:
        outer, self._outer, self._connection = self._outer, None, None
        if outer is None:
            return
        with suppress(TimeoutError, Lost), watched():
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await outer.close()


async def _close(channel: aiormq.abc.AbstractChannel) -> None:
    with suppress(TimeoutError, Lost, aiormq.ChannelClosed), watched():
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await channel.close()


async def _ended(connection: aiormq.abc.AbstractConnection) -> None:
    """Returns when the connection has ended, for whatever reason."""
    await asyncio.wait([connection.closing])
