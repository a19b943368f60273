"""What goes wrong in a fake, and when: every fake of this project takes its faults from one of these."""

from dataclasses import dataclass, field
from enum import StrEnum


class When(StrEnum):
    """Whether a fault strikes before or after the act took effect: a refusal, or an answer that was lost."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(slots=True)
class Script:
    """Faults to come, each for one act (a method's name); each strikes once, in the order given."""

    _faults: list[tuple[str, When, BaseException]] = field(default_factory=list)

    def fail_next(self, act: str, error: BaseException, when: When = When.BEFORE, *, times: int = 1) -> None:
        """The next `times` calls of `act` that no earlier fault takes raise `error`."""
        self._faults += [(act, when, error)] * times

    def strike(self, act: str, when: When) -> None:
        """Raise what is due now, if anything is."""
        for fault in self._faults:
            if fault[:2] == (act, when):
                self._faults.remove(fault)
                raise fault[2]

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._faults.clear()
