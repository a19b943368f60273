"""How often and how long to try again, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` tries in all; before the n-th retry a wait of first_delay_s * factor**(n-1), at most delay_s_max."""

    attempts: int = 1
    first_delay_s: float = 0.1
    factor: float = 2.0
    delay_s_max: float = 5.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after the given number of failures, >= 1."""
        try:
            return min(self.first_delay_s * self.factor ** (failures - 1), self.delay_s_max)
        except OverflowError:  # hours of failures
            return self.delay_s_max


ONCE = Retry()
