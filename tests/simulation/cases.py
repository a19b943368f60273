"""Runs a case: a seed, a plan of strikes and a scenario give violations and a trace; and the list of all single-fault cases."""

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field

from common.testing.entropy import seeded
from common.testing.fate import Event, Kind, Strike, When
from common.testing.loop import DeadLock, RanTooLong, VirtualLoop, run
from tests.simulation.scenario import Client, article
from tests.simulation.world import CLIENT, World

Scenario = Callable[[Client], Awaitable[None]]

_CRASHABLE = {Kind.EFFECT, Kind.PUBLISH, Kind.DELIVER, Kind.ACK, Kind.COMMIT, Kind.FAILPOINT}
_BACKGROUND = {"services", "update_service_capabilities", "publish_service_capabilities"}
"""Heartbeats and reports: they come by the clock, and a fault in one is met by the next."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a case. `is_struck`: every strike of its plan found its boundary."""

    case: str
    violations: tuple[tuple[str, str], ...]
    trace: tuple[str, ...] = field(repr=False)
    events: tuple[Event, ...] = field(repr=False)
    is_struck: bool = True
    took_s: float = 0.0


def run_case(
    strikes: Iterable[Strike] = (), *, seed: int | str = 0, scenario: Scenario = article, tell: Callable[[str], None] | None = None,
    virtual_s_max: float = 3600.0,
) -> Report:  # fmt: skip
    """The same arguments give the same report, but for the time it took."""
    plan = tuple(strikes)
    begun = time.perf_counter()
    loop = VirtualLoop(virtual_s_max=virtual_s_max)
    with seeded(seed) as chance:
        world = World(loop, chance, strikes=plan, tell=tell)
        first = 0
        try:

            async def main() -> None:
                nonlocal first
                try:
                    await world.up()
                    first = len(world.fate.events)
                    await world.with_client(lambda process, rpc: scenario(Client(world, process, rpc)))
                finally:
                    world.over()

            run(loop, main())
        except (DeadLock, RanTooLong) as exc:
            world.violated("L4", f"{type(exc).__name__}: {exc}")
        finally:
            world.close()
    return Report(
        case=" + ".join(map(str, plan)) or "no fault",
        violations=tuple(world.violations),
        trace=tuple(world.trace),
        events=tuple(world.fate.events[first:]),
        is_struck=world.fate.struck == len(plan),
        took_s=time.perf_counter() - begun,
    )


def single_faults(events: Iterable[Event], kinds: frozenset[str] | None = None) -> Iterator[Strike]:
    """Every single fault at every boundary that a run without faults crossed; `kinds` None: of all kinds."""
    for event in events:
        if event.name in _BACKGROUND:
            continue
        for when, fault in _faults(event):
            if kinds is None or fault in kinds:
                yield Strike(event.boundary, when, fault)


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
OF_PROCESSES = ("crash", "pause", "forward", "backward")
_ONE_SIDED = {Kind.DELIVER, Kind.FAILPOINT}


def _faults(event: Event) -> Iterator[tuple[When, str]]:
    if event.process != CLIENT:
        for fault in OF_PROCESSES:
            # A wall clock is as wrong on the one side as on the other.
            sides = (When.BEFORE,) if event.kind in _ONE_SIDED or fault in {"forward", "backward"} else tuple(When)
            yield from ((when, fault) for when in sides)
    yield from FAULTS[event.kind]
