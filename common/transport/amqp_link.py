"""The connection of `amqp://`: the engine of `common.amqp`, kept."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from common.amqp.channel import Busy
from common.amqp.connection import ACCESS_REFUSED, Connection
from common.amqp.events import Replied
from common.amqp.limits import Limits
from common.amqp.login import Login
from common.amqp.states import ConnectionState
from common.base.limits import CONNECT_TIMEOUT_S, GOODBYE_TIMEOUT_S, MESSAGE_BYTES_MAX, UNCONFIRMED_MAX
from common.transport.amqp_channel import AmqpChannel, Lost, Refused
from common.transport.amqp_wire import Wire
from common.transport.errors import BusRefused
from common.transport.kept_link import KeptLink
from common.transport.port import BusUnavailable
from common.transport.rabbit_settings import RabbitSettings, reason_of
from common.transport.rabbit_url import Host

NOT_ALLOWED = 530
_LIMITS = Limits(body_bytes=MESSAGE_BYTES_MAX + 1, unconfirmed=UNCONFIRMED_MAX)
"""A body that was cut at this size is too large for whoever reads it, as it was before."""

_LOG = logging.getLogger(__name__)
_DEFAULTS = RabbitSettings()
_CHANCE = random.SystemRandom()


class AmqpLink(KeptLink[Wire]):
    """A connection of our own engine's."""

    @property
    def has_room(self) -> bool:
        """True when a publish need not wait for the socket or the broker."""
        return self._connection is not None and self._connection.has_room

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

    async def _connect(self, host: Host, timeout_s: float) -> Wire:
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
        return wire

    def _is_over(self, connection: Wire) -> bool:
        return connection.is_closed

    async def _ended(self, connection: Wire) -> str:
        return (await asyncio.shield(connection.closed)).reply_text

    async def _end(self, connection: Wire) -> None:
        if connection.core.state is not ConnectionState.CLOSED:
            connection.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_TIMEOUT_S):
                    await asyncio.shield(connection.closed)
        connection.abort()

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
