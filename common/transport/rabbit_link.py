"""The connection of `rabbit://`: aio-pika's, kept."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import NamedTuple

import aio_pika
import aiormq
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, AuthenticationError, InvalidFrameError, ProbableAuthenticationError
from yarl import URL

from common.base.clock import Clock
from common.base.limits import SETTLE_TIMEOUT_S
from common.transport.errors import BusRefused
from common.transport.kept_link import KeptLink
from common.transport.port import BusUnavailable
from common.transport.rabbit_settings import RabbitSettings, reason_of
from common.transport.rabbit_url import Host, RabbitUrl

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


class Connected(NamedTuple):
    """aio-pika's connection, and aiormq's in it, whose channels are used."""

    outer: aio_pika.Connection
    inner: aiormq.abc.AbstractConnection


class Link(KeptLink[Connected]):
    """A connection of aio-pika's."""

    def __init__(
        self, where: RabbitUrl, *, clock: Clock, connection_name: str, settings: RabbitSettings = _DEFAULTS,
        chance: random.Random = _CHANCE,
    ) -> None:  # fmt: skip
        super().__init__(where, clock=clock, connection_name=connection_name, settings=settings, chance=chance)
        self._endings: set[asyncio.Task[None]] = set()

    async def channel(self, *, confirms: bool) -> aiormq.abc.AbstractChannel:
        """A new channel, as soon as there is a connection. Raises Lost, Closed.

        It is aio-pika's inner channel, aiormq's: the outer one passes `expiration` through float seconds, and leaves something
        of every channel in the connection's memory, of which `short_channel` needs many.
        """
        connection = (await self.ready()).inner
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
        await super().close()
        await self.channels_ended()

    async def _connect(self, host: Host, timeout_s: float) -> Connected:
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
        return Connected(connection, connection.transport.connection)

    def _is_over(self, connection: Connected) -> bool:
        return connection.inner.is_closed

    async def _ended(self, connection: Connected) -> str:
        await asyncio.wait([connection.inner.closing])
        return ""

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

    async def _end(self, connection: Connected) -> None:
        with suppress(TimeoutError, Lost), watched():
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                await connection.outer.close()


async def _close(channel: aiormq.abc.AbstractChannel) -> None:
    with suppress(TimeoutError, Lost, aiormq.ChannelClosed), watched():
        async with asyncio.timeout(SETTLE_TIMEOUT_S):
            await channel.close()
