"""Runs a case: a stage of the article, a seed and a plan of strikes give violations and a trace; and the list of all single-fault cases."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from random import Random

from common.testing.entropy import seeded
from common.testing.fate import Event, Kind, Strike, When
from common.testing.loop import DeadLock, RanTooLong, VirtualLoop, run
from tests.simulation.scenario import SINGLE, STAGES, Client, staged
from tests.simulation.world import CLIENT, Past, World

_BACKGROUND = {"services", "leases", "update_service_capabilities", "publish_service_capabilities"}
"""Heartbeats and reports: they come by the clock, and a fault in one is met by the next."""
VIRTUAL_S_MAX = 3600.0


@dataclass(frozen=True, slots=True)
class Case:
    """Its text is its id: `attach: boundary|when|fault + boundary|when|fault`."""

    stage: str
    strikes: tuple[Strike, ...] = ()

    def __str__(self) -> str:
        return f"{self.stage}: {' + '.join(map(str, self.strikes))}"

    @classmethod
    def parse(cls, text: str) -> "Case":
        """Raises ValueError when the text is not of that form."""
        stage, _, strikes = text.partition(": ")
        return cls(stage, tuple(Strike.parse(each) for each in strikes.split(" + ") if each))


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a case. `is_struck`: every strike of its plan found its boundary."""

    case: Case
    violations: tuple[tuple[str, str], ...]
    trace: tuple[str, ...] = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    past: Past | None = field(default=None, repr=False)
    is_struck: bool = True
    took_s: float = 0.0
    outcome: str = ""


def run_case(case: Case, *, seed: int | str = 0, tell: Callable[[str], None] | None = None) -> Report:
    """The same arguments give the same report, but for the time it took."""
    past = before(case.stage, seed)
    begun = time.perf_counter()
    loop = VirtualLoop(begin_s=past.time_s if past else 0.0, virtual_s_max=VIRTUAL_S_MAX)
    with seeded(f"{case.stage} {seed}") as chance:
        world = World(loop, chance, strikes=case.strikes, tell=tell, past=past)
        first = 0

        async def main() -> None:
            nonlocal first
            try:
                await world.up()
                first = len(world.fate.events)
                await world.with_client(lambda process, rpc: staged(Client(world, process, rpc), STAGES[case.stage]))
            finally:
                world.over()

        try:
            run(loop, main())
            left = None if case.strikes else world.past()
        except (DeadLock, RanTooLong) as exc:
            world.violated("L4", f"{type(exc).__name__}: {exc}")
            left = None
        finally:
            world.close()
    return Report(
        case=case,
        violations=tuple(world.violations),
        trace=tuple(world.trace),
        events=tuple(world.fate.events[first:]),
        past=left,
        is_struck=world.fate.struck == len(case.strikes),
        took_s=time.perf_counter() - begun,
        outcome=world.outcome,
    )


@cache
def flawless(stage: str, seed: int | str) -> Report:
    """The stage without a fault. Raises AssertionError when that violates something: nothing else would mean anything then."""
    report = run_case(Case(stage), seed=seed)
    assert not report.violations, report.violations
    return report


def before(stage: str, seed: int | str) -> Past | None:
    """What the stage before it left; None for the first."""
    names = list(STAGES)
    number = names.index(stage)
    return flawless(names[number - 1], seed).past if number else None


def single_faults(stages: Iterable[str], kinds: frozenset[str] | None = None, *, seed: int | str = 0) -> Iterator[Case]:
    """Every single fault at every boundary that these stages cross without one; `kinds` None: of all kinds."""
    for stage in stages:
        for strike in _strikes(flawless(stage, seed).events, kinds):
            yield Case(stage, (strike,))


def _strikes(events: Iterable[Event], kinds: frozenset[str] | None) -> Iterator[Strike]:
    for event in events:
        if event.name in _BACKGROUND:
            continue
        for when, fault in faults_of(event):
            if kinds is None or fault in kinds:
                yield Strike(event.boundary, when, fault)


def run_pair(number: int, *, seed: int | str = 0) -> Report:
    """A case of two faults, the second where the world goes once the first has struck. Kinds of faults are paired in turn."""
    chance = Random(f"pair {seed} {number}")
    first_kind, second_kind = _PAIRS[number % len(_PAIRS)]
    stage = chance.choice(SINGLE)
    firsts = list(single_faults((stage,), frozenset({first_kind}), seed=seed))
    if not firsts:
        return flawless(stage, seed)
    first = run_case(chance.choice(firsts), seed=seed)
    strike = first.case.strikes[0]
    later = first.events[next(n for n, event in enumerate(first.events) if event.boundary == strike.boundary) + 1 :]
    seconds = list(_strikes(later, frozenset({second_kind})))
    if first.violations or not seconds:
        return first
    return run_case(Case(stage, (strike, chance.choice(seconds))), seed=seed)


FAULTS: dict[Kind, tuple[tuple[When, str], ...]] = {
    Kind.EFFECT: tuple((when, fault) for fault in ("raise", "hang") for when in When),
    Kind.PUBLISH: (
        (When.BEFORE, "cut"),
        (When.AFTER, "cut"),
        (When.BEFORE, "lost"),
        (When.AFTER, "unconfirmed"),
        (When.AFTER, "twice"),
        (When.BEFORE, "late"),
        (When.BEFORE, "swap"),
    ),
    Kind.DELIVER: ((When.BEFORE, "cut"),),
    Kind.ACK: ((When.BEFORE, "cut"),),
    Kind.COMMIT: ((When.BEFORE, "busy"), (When.BEFORE, "error"), (When.AFTER, "error")),
    Kind.FAILPOINT: (),
}
"""What can go wrong at a boundary of each kind, besides what can befall its process."""
OF_PROCESSES = ("crash", "gone", "pause", "forward", "backward")
OF_THE_WORLD = ("target", "machine", "clings")
"""What befalls the target daemon (it restarts and keeps nothing), the machines (they die), their guests (they keep a disk once)."""
_KINDS = sorted({fault for found in FAULTS.values() for _, fault in found} | {*OF_PROCESSES, *OF_THE_WORLD})
_PAIRS = [(first, second) for first in _KINDS for second in _KINDS]
_WHERE_THE_WORLD_IS_STRUCK = {Kind.EFFECT, Kind.COMMIT, Kind.DELIVER}
_ONE_SIDED = {Kind.DELIVER, Kind.FAILPOINT}


def faults_of(event: Event) -> list[tuple[When, str]]:
    """All that can go wrong at this boundary, and on which side of it."""
    return list(_faults(event))


def _faults(event: Event) -> Iterator[tuple[When, str]]:
    if event.kind in _WHERE_THE_WORLD_IS_STRUCK:
        yield from ((When.BEFORE, fault) for fault in OF_THE_WORLD)
    if event.process != CLIENT:
        for fault in OF_PROCESSES:
            # A wall clock is as wrong on the one side as on the other.
            sides = (When.BEFORE,) if event.kind in _ONE_SIDED or fault in {"forward", "backward"} else tuple(When)
            yield from ((when, fault) for when in sides)
    yield from FAULTS[event.kind]
