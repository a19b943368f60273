"""What goes wrong, and where: a plan of strikes against boundaries, and the record of every boundary that was crossed.

A boundary is a place where a process meets the world: `nova-compute.cmp1|effect hypervisor.attach_volume#1` is the first time that
this process plugs a disk. A run without strikes lists the boundaries that a run with a strike can name.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum, auto


class When(StrEnum):
    """Which side of a boundary."""

    BEFORE = auto()
    AFTER = auto()


class Kind(StrEnum):
    """What meets the world there; which faults there are follows from it."""

    EFFECT = auto()
    PUBLISH = auto()
    DELIVER = auto()
    ACK = auto()
    COMMIT = auto()
    FAILPOINT = auto()


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault. Its text, `boundary|when|fault`, is the id of a case, and is read back by `parse`."""

    boundary: str
    when: When
    fault: str

    def __str__(self) -> str:
        return f"{self.boundary}|{self.when}|{self.fault}"

    @classmethod
    def parse(cls, text: str) -> "Strike":
        """Raises ValueError when the text is not of that form."""
        boundary, when, fault = text.rsplit("|", 2)
        return cls(boundary, When(when), fault)


@dataclass(frozen=True, slots=True)
class Crossing:
    """A boundary that is being crossed, and the faults that wait on its sides."""

    boundary: str
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A boundary that was crossed."""

    process: str
    kind: Kind
    name: str
    number: int

    @property
    def boundary(self) -> str:
        return f"{self.process}|{self.kind} {self.name}#{self.number}"


class Fate:
    """The strikes of one run, and what it crossed. `tell` hears of each crossing and of each fault that strikes."""

    def __init__(self, strikes: Iterable[Strike] = (), *, tell: Callable[[str], None] = lambda _: None) -> None:
        self._strikes: dict[tuple[str, When], str] = {}
        self.plan(*strikes)
        self._counts: Counter[tuple[str, Kind, str]] = Counter()
        self.tell = tell
        self.events: list[Event] = []
        self.happenings: dict[str, Callable[[], None]] = {}
        """Faults that befall the world and no process: what each does."""
        self.underway: list[tuple[tuple[str, ...], bytes]] = []
        """Messages that are late, and their queues: the bus has taken them, and nobody has them yet."""
        self._hangs: dict[object, float] = {}
        self._lasts_until = 0.0
        self.faults: set[str] = set()
        """Their kinds."""
        self.struck = 0
        """Faults that have happened."""

    def plan(self, *strikes: Strike) -> None:
        """More strikes, against boundaries that are still to come."""
        self._strikes |= {(strike.boundary, strike.when): strike.fault for strike in strikes}

    def cross(self, process: str, kind: Kind, name: str) -> Crossing:
        """The process is about to cross this boundary once more."""
        key = (process, kind, name)
        self._counts[key] += 1
        event = Event(process, kind, name, self._counts[key])
        self.events.append(event)
        boundary = event.boundary
        self.tell(boundary)
        before, after = self.faults_at(event)
        self.struck += (before is not None) + (after is not None)
        return Crossing(boundary, before, after)

    def faults_at(self, event: Event) -> tuple[str | None, str | None]:
        """What happens before and after this crossing."""
        if not self._strikes:
            return None, None
        return self._strikes.pop((event.boundary, When.BEFORE), None), self._strikes.pop((event.boundary, When.AFTER), None)

    @property
    def busy_until(self) -> float:
        """The loop's time at which every fault that has struck is over."""
        return max((self._lasts_until, *self._hangs.values()))

    def lasts(self, until: float) -> None:
        """A fault that has struck is not over before that time of the loop."""
        self._lasts_until = max(self._lasts_until, until)

    @contextmanager
    def hanging(self, now: Callable[[], float], at_most_s: float) -> Iterator[None]:
        """A fault that lasts as long as somebody waits in the block: it is over when that one has had enough, and not before others are."""
        this = object()
        self._hangs[this] = now() + at_most_s
        try:
            yield
        finally:
            del self._hangs[this]
            self.lasts(now())

    def delay_s(self, kind: Kind, usual_s: float) -> float:  # noqa: ARG002  # for those whose world is not as regular
        """How long a crossing of that kind takes."""
        return usual_s

    @property
    def only_kills(self) -> bool:
        """Something struck, and it killed processes that left their queues behind."""
        return self.faults == {"crash"}

    def strike(self, crossing: Crossing, fault: str) -> None:
        """`fault` happens there."""
        self.faults.add(fault)
        self.tell(f"!! {fault} at {crossing.boundary}")
