"""The system's clock: the only place that sleeps or asks for the time."""

import asyncio
import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `common.base.clock.Clock`."""

    def monotonic(self) -> float:
        """The running loop's time when there is one, so that asyncio's timeouts and ours agree."""
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return time.monotonic()

    def utcnow(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(max(delay_s, 0))
