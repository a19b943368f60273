"""A listener that gathers notifications and hands them to the endpoints together."""

import asyncio
from collections.abc import Iterator, Sequence

from common.base.clock import Clock
from common.base.limits import DRAIN_TIMEOUT_S, NOTIFICATION_BATCH_TIMEOUT_S
from common.notify.intake import Intake
from common.notify.once import Held
from common.notify.options import NotificationOptions
from common.notify.topology import Target
from common.transport.port import Transport
from common.wire.notification import Priority


class BatchListener(Intake):
    """As Listener, but an endpoint's method gets a list of `Received`, all of one priority; its result holds for all of them.

    batch_size        notifications that make a batch full; no more than `prefetch`, since the bus gives no more
    batch_timeout_s   how long a batch that is not full waits for more
    Batches run one after the other; the next one is gathered meanwhile.
    """

    def __init__(
        self, transport: Transport, targets: Sequence[Target], endpoints: Sequence[object], *, clock: Clock, batch_size: int,
        batch_timeout_s: float = NOTIFICATION_BATCH_TIMEOUT_S, pool: str | None = None, allow_requeue: bool = False,
        options: NotificationOptions | None = None, grace_s: float = DRAIN_TIMEOUT_S,
    ) -> None:  # fmt: skip
        super().__init__(
            transport, targets, endpoints, clock=clock, pool=pool, allow_requeue=allow_requeue, options=options, grace_s=grace_s
        )
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; wanted: 1 or more")
        self._batch_size = min(batch_size, self._options.prefetch)
        self._batch_timeout_s = batch_timeout_s
        self._batch: list[Held] = []
        self._timer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    def take(self, held: Held) -> None:
        self._batch.append(held)
        if len(self._batch) >= self._batch_size:
            self.hurry()
        elif self._timer is None:
            self._timer = self.spawn(self._wait())

    def hurry(self) -> None:
        """The batch is handled as it is."""
        timer, self._timer = self._timer, None
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()
        batch, self._batch = self._batch, []
        if batch:
            self.spawn(self._handle(batch))

    async def _wait(self) -> None:
        await self._clock.sleep(self._batch_timeout_s)
        self.hurry()

    async def _handle(self, batch: Sequence[Held]) -> None:
        try:
            async with self._turn:
                for group in _by_priority(batch):
                    verdict = await self._dispatcher.group([held.message for held in group])
                    await self.finish(verdict, group)
        except asyncio.CancelledError:
            # What was settled before has no deliveries left.
            await asyncio.shield(self.settle(batch, is_done=False))
            raise


def _by_priority(batch: Sequence[Held]) -> Iterator[list[Held]]:
    for priority in Priority:
        group = [held for held in batch if held.message.priority is priority]
        if group:
            yield group
