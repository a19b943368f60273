"""Time as a port: nothing else in the project asks the system for the time or sleeps."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """1. `monotonic` never goes back. 2. `utcnow` is naive UTC, as OpenStack's rows have it.
    3. `sleep` returns after at least that many seconds of `monotonic`, or raises the caller's cancellation.
    """

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        ...

    def utcnow(self) -> datetime:
        """The time of day, UTC, without a time zone."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait `delay_s` seconds; 0 or less lets others run once."""
        ...
