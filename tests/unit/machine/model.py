"""A world of effects in which a saga is run with planned faults and crashes, and what must hold at its end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product

from common.machine.decide import Compensated, Completed, Do, Entry, Mark, Parked, Undo
from common.machine.saga import Saga, Step

SAGA = Saga(
    "thing",
    pivot="commit",
    steps=(
        Step("reserve", undo="free", attempts=1),
        Step("look", attempts=2),
        Step("commit", undo="revert", attempts=2),
        Step("tidy", attempts=2),
    ),
)
ACTS = ("ok", "once", "lost", "refused", "never")
"""How a step goes: at once; fails once; takes effect but fails once; is refused without effect; always fails without effect."""
UNDOS = ("ok", "once", "never")
DECISIONS_MAX = 60
Decide = Callable[[Saga, Sequence[Entry]], Do | Undo | Completed | Compensated | Parked]


class Crash(Exception):
    """The process dies here."""


@dataclass
class World:
    """`foreign` is an effect of somebody else, of the same kind as a refused step's: no undo may take it away."""

    acts: dict[str, str]
    undos: dict[str, str]
    crashes: frozenset[int]
    journal: list[Entry] = field(default_factory=list)
    effects: set[str] = field(default_factory=set)
    foreign: set[str] = field(default_factory=set)
    tries: dict[str, int] = field(default_factory=dict)
    moment: int = 0

    def tick(self) -> None:
        self.moment += 1
        if self.moment in self.crashes:
            raise Crash

    def write(self, step: str, mark: Mark, *, final: bool = False) -> None:
        self.tick()
        self.journal.append(Entry(step, mark, final))
        self.tick()

    def do(self, step: Step) -> None:
        plan = self.acts[step.name]
        self.write(step.name, Mark.BEGUN)
        count = self.tries[step.name] = self.tries.get(step.name, 0) + 1
        if plan == "refused":
            self.foreign.add(step.name)
            self.write(step.name, Mark.REFUSED, final=True)
        elif plan == "never" or (plan == "once" and count == 1):
            self.write(step.name, Mark.FAILED)
        else:
            self.effects.add(step.name)
            self.tick()
            self.write(step.name, Mark.FAILED if plan == "lost" and count == 1 else Mark.DONE)

    def undo(self, step: Step) -> None:
        plan, key = self.undos[step.name], f"undo {step.name}"
        self.write(step.name, Mark.UNDOING)
        count = self.tries[key] = self.tries.get(key, 0) + 1
        if plan == "never" or (plan == "once" and count == 1):
            self.write(step.name, Mark.UNDO_FAILED)
            return
        self.effects.discard(step.name)
        self.foreign.discard(step.name)
        self.tick()
        self.write(step.name, Mark.UNDONE)


def run(decide: Decide, world: World) -> object:
    """How the saga ends; a crash only means asking again."""
    for _ in range(DECISIONS_MAX):
        decision = decide(SAGA, world.journal)
        try:
            match decision:
                case Do(step, _):
                    pivoted = any(entry == Entry("commit", Mark.DONE) for entry in world.journal)
                    assert step.name != "tidy" or pivoted, "a step was done before the one in front of it"
                    world.do(step)
                case Undo(step, _):
                    assert Entry("commit", Mark.DONE) not in world.journal, "something was taken back behind the pivot"
                    world.undo(step)
                case ending:
                    return ending
        except Crash:
            continue
    raise AssertionError(f"no end after {DECISIONS_MAX} decisions")


def check(decide: Decide) -> int:
    """Every plan with every crash, and pairs of crashes; how many runs that were. Raises AssertionError."""
    runs = 0
    steps = [step.name for step in SAGA.steps]
    undoable = [step.name for step in SAGA.steps if step.undo]
    for plan in product(ACTS, repeat=len(steps)):
        for back in product(UNDOS, repeat=len(undoable)):
            crashes: list[frozenset[int]] = [frozenset()] + ([frozenset({a}) for a in range(1, 16)] if "ok" in back else [])
            if plan.count("ok") >= 3:
                crashes += [frozenset(pair) for pair in combinations(range(1, 16), 2)]
            for crash in crashes:
                check_one(decide, dict(zip(steps, plan, strict=True)), dict(zip(undoable, back, strict=True)), crash)
                runs += 1
    return runs


def check_one(decide: Decide, acts: dict[str, str], undos: dict[str, str], crashes: frozenset[int]) -> None:
    world = World(acts, {"look": "ok", "tidy": "ok", **undos}, crashes)
    ending = run(decide, world)
    where = f"{acts} {undos} crashes {sorted(crashes)}: {ending} with {world.effects}"
    undoable = {step.name for step in SAGA.steps if step.undo}
    for step, plan in acts.items():
        # A crash between the act and its row leaves open whether a refused step acted: only then may it be undone.
        if plan == "refused" and not crashes and world.tries.get(step):
            assert step in world.foreign, f"somebody else's effect was taken back: {where}"
    match ending:
        case Completed():
            assert world.effects >= set(acts), where
            assert all(acts[name] != "never" for name in acts), where
        case Compensated():
            assert not world.effects & undoable, where
            assert Entry("commit", Mark.DONE) not in world.journal, where
            assert any(acts[name] in {"never", "refused", "once", "lost"} for name in acts), where
        case Parked(stuck):
            behind = Entry("commit", Mark.DONE) in world.journal
            assert behind or undos.get(stuck.name) == "never", where
        case _:
            raise AssertionError(where)
