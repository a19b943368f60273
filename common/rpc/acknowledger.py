"""Acks deliveries behind the back of synchronous callbacks, in order, on one task of its own."""

import asyncio

import structlog

from common.base.errors import Unavailable
from common.transport.port import Delivery

_log = structlog.get_logger(__name__)


class Acknowledger:
    """`prefetch` bounds what can be waiting here: a delivery that is not acked keeps its place at the broker."""

    def __init__(self, prefetch: int) -> None:
        self._waiting: asyncio.Queue[Delivery | None] = asyncio.Queue(prefetch + 1)
        self._task: asyncio.Task[None] | None = None

    def ack(self, delivery: Delivery) -> None:
        """Ack it soon. A connection that is gone by then redelivers it, which is harmless."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="rpc-acknowledger")
        self._waiting.put_nowait(delivery)

    async def close(self) -> None:
        """Ack what is waiting, then end."""
        if self._task is not None:
            await self._waiting.put(None)
            await self._task
            self._task = None

    async def _run(self) -> None:
        while (delivery := await self._waiting.get()) is not None:
            try:
                await delivery.ack()
            except Unavailable as exc:
                _log.debug("a reply could not be acked", reason=str(exc))
