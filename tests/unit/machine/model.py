"""A world of effects in which a saga is run with planned faults and crashes, and what must hold at its end."""

from collections.abc import Callable, Iterator, Sequence
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
    patience=3,
)
ACTS = ("ok", "once", "lost", "refused", "never")
"""How a step goes: at once; fails once; takes effect but fails once; is refused without effect; always fails without effect."""
UNDOS = ("ok", "once", "never")
DIES = "dies"
"""How an act or an undo goes that takes effect and its process with it, each time."""
DEATHS_MAX = 20
DECISIONS_MAX = 60
Decide = Callable[[Saga, Sequence[Entry]], Do | Undo | Completed | Compensated | Parked]


class Crash(Exception):
    """The process dies here."""


@dataclass
class World:
    """`foreign` is an effect of somebody else, of the same kind as a refused step's: no undo may take it away.

    `tries` counts acts by the step's name and undos by "undo <name>".
    """

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
            if plan == DIES:
                raise Crash
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
        if plan == DIES:
            raise Crash
        self.tick()
        self.write(step.name, Mark.UNDONE)

    def resume(self, step: Step) -> None:
        """A person has seen to it that the step and its undo work, and says so."""
        self.acts[step.name] = self.undos[step.name] = "ok"
        self.journal.append(Entry(step.name, Mark.RESUMED))


def run(decide: Decide, world: World) -> object:
    """How the saga ends; a crash only means asking again."""
    for _ in range(DECISIONS_MAX):
        decision = decide(SAGA, world.journal)
        try:
            match decision:
                case Do(step, _):
                    pivoted = any(entry == Entry("commit", Mark.DONE) for entry in world.journal)
                    assert step.name != "tidy" or pivoted, "a step was done before the one in front of it"
                    assert all(entry.mark is not Mark.UNDOING for entry in world.journal), "a compensation was given up"
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
    for plan, back in plans(len(steps), len(undoable)):
        crashes: list[frozenset[int]] = [frozenset()]
        if DIES not in plan + back:
            crashes += [frozenset({a}) for a in range(1, 16)] if "ok" in back else []
            crashes += [frozenset(pair) for pair in combinations(range(1, 16), 2)] if plan.count("ok") >= 3 else []
        for crash in crashes:
            check_one(decide, dict(zip(steps, plan, strict=True)), dict(zip(undoable, back, strict=True)), crash)
            runs += 1
    return runs


def plans(steps: int, undoable: int) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """How the steps and the undos go; one of them may kill its process, with no other crash."""
    for plan in product((*ACTS, DIES), repeat=steps):
        for back in product((*UNDOS, DIES), repeat=undoable):
            if (plan + back).count(DIES) <= 1:
                yield plan, back


def check_one(decide: Decide, acts: dict[str, str], undos: dict[str, str], crashes: frozenset[int]) -> None:
    world = World(dict(acts), {"look": "ok", "tidy": "ok", **undos}, crashes)
    ending = run(decide, world)
    where = f"{acts} {undos} crashes {sorted(crashes)}: {ending} with {world.effects}"
    for step, plan in acts.items():
        # A crash between the act and its row leaves open whether a refused step acted: only then may it be undone.
        if plan == "refused" and not crashes and world.tries.get(step):
            assert step in world.foreign, f"somebody else's effect was taken back: {where}"
    check_effects(world, ending, where)
    match ending:
        case Completed():
            assert all(plan not in {"never", DIES} for plan in acts.values()), where
        case Compensated():
            assert any(plan != "ok" for plan in acts.values()), where
        case Parked(stuck):
            check_parked(world, stuck, where)
            check_resumed(decide, world, stuck, where)
        case _:
            raise AssertionError(where)


def check_effects(world: World, ending: object, where: str) -> None:
    """Whole, or taken back."""
    undoable = {step.name for step in SAGA.steps if step.undo}
    if isinstance(ending, Completed):
        assert world.effects >= set(world.acts), where
    if isinstance(ending, Compensated):
        assert not world.effects & undoable, where
        assert Entry("commit", Mark.DONE) not in world.journal, where


def check_parked(world: World, stuck: Step, where: str) -> None:
    """Not before patience was at its end, and not behind it."""
    is_behind = Entry("commit", Mark.DONE) in world.journal
    plan = world.acts[stuck.name] if is_behind else world.undos[stuck.name]
    assert plan in ({"never", "refused", DIES} if is_behind else {"never", DIES}), where
    if not world.crashes:
        tries = world.tries[stuck.name if is_behind else f"undo {stuck.name}"]
        assert tries == {"never": SAGA.patience, "refused": 1, DIES: DEATHS_MAX}[plan], where


def check_resumed(decide: Decide, world: World, stuck: Step, where: str) -> None:
    """The way that it was on leads to its end, though perhaps not past the next step that is stuck."""
    is_behind = Entry("commit", Mark.DONE) in world.journal
    passed = {stuck.name}
    world.resume(stuck)
    while isinstance(ending := run(decide, world), Parked):
        assert ending.step.name not in passed, f"resumed, and stuck as before: {where}"
        passed.add(ending.step.name)
        world.resume(ending.step)
    assert isinstance(ending, Completed if is_behind else Compensated), f"resumed, then {ending}: {where}"
    check_effects(world, ending, where)
