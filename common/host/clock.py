"""The system's clock: the only place that sleeps or asks for the time."""

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `common.base.clock.Clock`."""

    monotonic = staticmethod(time.monotonic)
    """What asyncio's loops go by too; uvloop's is behind by the turn that it is in, so that whoever it wakes is never early for us."""

    def utcnow(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(delay_s, 0))
