"""How many retries a process may add to a load that is already too much, as data."""

from dataclasses import dataclass


@dataclass(slots=True)
class RetryBudget:
    """Every request earns `ratio` of a retry, every retry costs a whole one; no more than `reserve` are saved up.

    So of n requests at most `reserve + ratio * n` are repeated: a few at any time, and of many no more than that share.
    """

    ratio: float = 0.1
    reserve: float = 10.0
    _left: float = -1.0

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1 or self.reserve < 0:
            raise ValueError(f"ratio is {self.ratio:g} and reserve {self.reserve:g}; wanted: 0 to 1, and 0 or more")
        self._left = self.reserve

    def earn(self) -> None:
        """A request was made."""
        self._left = min(self.reserve, self._left + self.ratio)

    def spend(self) -> bool:
        """True when one retry may be made; it is paid for."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
