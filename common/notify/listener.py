"""A listener that runs the endpoints for each notification by itself.

    async with Listener(transport, [Target("notifications")], [Usage()], clock=clock):
        await stopped()

Up to `prefetch` notifications are worked on at once, and so may overtake each other; with a prefetch of 1 they keep their order.
A delivery is settled when the endpoints are through with it: a process that dies before leaves it to the next listener.
"""

import asyncio
from collections.abc import Sequence

from common.base.clock import Clock
from common.base.limits import DRAIN_TIMEOUT_S
from common.host.lean import structlog
from common.notify.intake import Intake
from common.notify.once import Held
from common.notify.options import NotificationOptions
from common.notify.topology import Target
from common.transport.port import Transport


class Listener(Intake):
    """Listens to `targets`. Raises TypeError for endpoints that are none.

    pool            listeners of one pool share its copies; None: all listeners share the default queues
    allow_requeue   what an endpoint fails at, or asks back, goes back to the queue; else it is logged, counted and acked
    """

    def __init__(
        self, transport: Transport, targets: Sequence[Target], endpoints: Sequence[object], *, clock: Clock,
        pool: str | None = None, allow_requeue: bool = False, options: NotificationOptions | None = None,
        grace_s: float = DRAIN_TIMEOUT_S,
    ) -> None:  # fmt: skip
        super().__init__(
            transport, targets, endpoints, clock=clock, pool=pool, allow_requeue=allow_requeue, options=options, grace_s=grace_s
        )
        self._room = asyncio.Semaphore(self._options.prefetch)

    def hurry(self) -> None:
        """Nothing waits here to be more."""

    def take(self, held: Held) -> None:
        self.spawn(self._handle(held))

    async def _handle(self, held: Held) -> None:
        try:
            # A prefetch is each queue's own; this bounds what runs of all of them.
            async with self._room:
                with structlog.contextvars.bound_contextvars(request_id=held.message.received.ctx.request_id):
                    verdict = await self._dispatcher.one(held.message)
            await self.finish(verdict, [held])
        except asyncio.CancelledError:
            await asyncio.shield(self.settle([held], is_done=False))
            raise
