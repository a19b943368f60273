"""The engine of the sagas: every plan of faults with every crash ends whole, taken back, or with a person; and mutants are caught."""

from pathlib import Path
from typing import Any

import pytest

from common.machine import decide as engine
from common.machine.decide import CRASHES_MAX, Do, Entry, Mark, Parked, Undo, calm_s, decide
from common.machine.saga import Saga, Step
from tests.unit.machine.model import Decide, check

SOURCE = Path(engine.__file__).read_text()

MUTANTS = {
    "done is not looked at": ("if any(entry.mark is Mark.DONE for entry in marks):", "if False:"),
    "spent steps are tried again": (
        "if _spent_behind(saga, step, recent) if is_behind_pivot else _spent(step.attempts, recent):",
        "if False:",
    ),
    "one attempt too many": ("len(failures) >= attempts", "len(failures) > attempts"),
    "final failures are tried again": ("or any(entry.final for entry in failures)", ""),
    "behind the pivot no more patience than before it": ("_spent_behind(saga, step, recent) if is_behind_pivot else", ""),
    "a step's own attempts are cut to the saga's patience": ("max(step.attempts, saga.patience)", "saga.patience"),
    "behind the pivot one failure too many": ("failures >= max(step", "failures > max(step"),
    "behind the pivot the first final failure is the last": ("max(1, saga.patience // 10)", "1"),
    "behind the pivot final failures are like any other": ("or finals >= max(1, saga.patience // 10)", ""),
    "behind the pivot no final failure is met": ("max(1, saga.patience // 10)", "saga.patience // 10"),
    "in front of the pivot an act may kill its process for ever": (
        "for entry in failures) or crashes >= CRASHES_MAX",
        "for entry in failures)",
    ),
    "behind the pivot an act may kill its process for ever": (
        "saga.patience // 10) or crashes >= CRASHES_MAX",
        "saga.patience // 10)",
    ),
    "in front of the pivot an act that ended counts as a crash": (
        "- sum(entry.mark in _ENDS for entry in marks)\n    return",
        "\n    return",
    ),
    "behind the pivot an act that ended counts as a crash": (
        "- sum(entry.mark in _ENDS for entry in marks)\n    failures",
        "\n    failures",
    ),
    "one crash too many": ("CRASHES_MAX = 20", "CRASHES_MAX = 21"),
    "one crash is the last": ("CRASHES_MAX = 20", "CRASHES_MAX = 1"),
    "undone in the order of doing": ("for step in reversed(saga.steps):", "for step in saga.steps:"),
    "refused steps are undone": ("return marks.count(Mark.BEGUN) == marks.count(Mark.REFUSED)", "return Mark.BEGUN not in marks"),
    "begun steps are not undone": ("or _had_no_effect(marks):", "or all(entry.mark is not Mark.DONE for entry in marks):"),
    "undone twice": ("any(entry.mark is Mark.UNDONE for entry in marks) or", ""),
    "undos never give up": ("failures >= saga.patience or", ""),
    "undos give up at once": ("failures >= saga.patience or", "failures >= 1 or"),
    "an undo may kill its process for ever": ("or crashes >= CRASHES_MAX else", "else"),
    "an undo that ended counts as a crash": ("- sum(mark in _UNDO_ENDS for mark in recent)", ""),
    "the pivot is no pivot": (
        "    if _pivoted(saga, journal):\n        return False",
        "    if False:\n        return False",
    ),
    "never turns back": ("return any(_spent(step.attempts,", "return False and any(_spent(step.attempts,"),
    "attempts do not count": ("return Do(step, sum(entry.mark in _FAILURES for entry in recent) + 1)", "return Do(step, 1)"),
    "attempts of an undo do not count": ("else Undo(step, failures + 1)", "else Undo(step, 1)"),
    "resuming changes nothing": ("return entries[last + 1 :]", "return entries"),
    "resuming forgives only what failed first": ("last = max(", "last = min("),
    "resuming forgets that the step had an effect": ("_had_no_effect(marks):", "_had_no_effect(_since_resumed(marks)):"),
    "resuming ends a compensation": (
        "[entry for entry in journal if entry.step == step.name]) for step",
        "_since_resumed([entry for entry in journal if entry.step == step.name])) for step",
    ),
}


def test_steps_are_undone_in_the_reverse_order_and_attempts_count() -> None:
    saga = Saga("s", steps=(Step("a", undo="x"), Step("b", undo="y", attempts=2), Step("c")))
    done = [Entry("a", Mark.BEGUN), Entry("a", Mark.DONE), Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED)]
    assert decide(saga, done) == Do(saga.step("b"), 2)
    failed = [*done, Entry("b", Mark.BEGUN), Entry("b", Mark.DONE), Entry("c", Mark.BEGUN), Entry("c", Mark.FAILED)]
    order = []
    while not isinstance(decision := decide(saga, failed), engine.Compensated):
        assert isinstance(decision, Undo)
        order.append((decision.step.name, decision.attempt))
        mark = Mark.UNDO_FAILED if order == [("b", 1)] else Mark.UNDONE
        failed += [Entry(decision.step.name, Mark.UNDOING), Entry(decision.step.name, mark)]
    assert order == [("b", 1), ("b", 2), ("a", 1)]


def test_every_plan_and_crash_ends_whole_taken_back_or_with_a_person() -> None:
    """By the source as it is, read as its mutants are."""
    assert check_all(compiled(SOURCE)) > 10_000


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_engine_is_caught(mutant: str) -> None:
    before, after = MUTANTS[mutant]
    assert SOURCE.count(before) == 1
    with pytest.raises(AssertionError):
        check_all(compiled(SOURCE.replace(before, after)))


def check_all(found: Decide) -> int:
    """The model, and what it cannot see: numbers of attempts, and what counts as one. Returns how many plans were tried."""
    saga = Saga("s", steps=(Step("a", undo="x"), Step("b", undo="y", attempts=3), Step("c", undo="z")))
    journal = [Entry("a", Mark.BEGUN), Entry("a", Mark.DONE), Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED)]
    assert found(saga, journal) == Do(saga.step("b"), 2)
    assert found(saga, [Entry("a", Mark.BEGUN), Entry("a", Mark.FAILED)]) == Undo(saga.step("a"), 1)
    journal += [Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED, final=True)]
    assert found(saga, journal) == Undo(saga.step("b"), 1)
    assert found(saga, [*journal, Entry("b", Mark.UNDOING), Entry("b", Mark.UNDO_FAILED)]) == Undo(saga.step("b"), 2)
    check_patience(found)
    return check(found)


MANY = CRASHES_MAX + 10


def check_patience(found: Decide) -> None:
    """Failures are counted by patience, crashes by CRASHES_MAX, and neither by the other; both anew after each `resumed`."""
    patient, hasty = (Saga("s", pivot="a", steps=(Step("a"), Step("b", attempts=8)), patience=patience) for patience in (MANY, 2))
    journal = [Entry("a", Mark.BEGUN), Entry("a", Mark.DONE)]
    failure = [Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED)]
    for failures in range(MANY):
        assert found(patient, journal + failure * failures) == Do(patient.step("b"), failures + 1)
        assert found(hasty, journal + failure * failures) == (
            Do(hasty.step("b"), failures + 1) if failures < 8 else Parked(hasty.step("b"))
        )
    final = [Entry("b", Mark.BEGUN), Entry("b", Mark.REFUSED, final=True)]
    stubborn = Saga("s", pivot="a", steps=(Step("a"), Step("b")), patience=30)
    assert found(stubborn, journal + failure + final * 2) == Do(stubborn.step("b"), 4)
    assert found(stubborn, journal + failure + final * 3) == Parked(stubborn.step("b"))
    front = Saga("s", steps=(Step("a", attempts=MANY),))
    assert found(front, [Entry("a", Mark.BEGUN), Entry("a", Mark.FAILED)] * (MANY - 1)) == Do(front.step("a"), MANY)
    journal += failure * MANY
    for _ in range(2):
        assert found(patient, journal) == Parked(patient.step("b"))
        journal.append(Entry("b", Mark.RESUMED))
        assert found(patient, journal) == Do(patient.step("b"), 1)
        journal += failure * MANY
    back = Saga("s", steps=(Step("a", undo="x"),), patience=MANY)
    journal = [Entry("a", Mark.BEGUN), Entry("a", Mark.FAILED)]
    for failures in range(MANY):
        assert found(back, journal) == Undo(back.step("a"), failures + 1)
        journal += [Entry("a", Mark.UNDOING), Entry("a", Mark.UNDO_FAILED)]
    assert found(back, journal) == Parked(back.step("a"))


def compiled(source: str) -> Decide:
    """`decide` of another source, with the decisions and marks of the real one."""
    namespace: dict[str, Any] = {"__name__": engine.__name__}
    exec(compile(source, "<engine>", "exec"), namespace)
    namespace.update(
        {name: getattr(engine, name) for name in ("Mark", "Entry", "Do", "Undo", "Completed", "Compensated", "Parked")}
    )
    found: Decide = namespace["decide"]
    return found


def test_who_comes_after_several_that_died_in_a_step_waits_longer_each_time_before_it_tries() -> None:
    step = Step("a", undo="x")
    begun, undoing = Entry("a", Mark.BEGUN), Entry("a", Mark.UNDOING)
    assert [calm_s([begun] * deaths, step) for deaths in (0, 1, 2, 3, 4, 10)] == [0, 0, 1, 2, 4, 30]
    assert calm_s([begun, Entry("a", Mark.FAILED), *[undoing] * 3], step) == 2
    assert calm_s([Entry("b", Mark.BEGUN)] * 9, step) == 0
    assert calm_s([*[begun] * 9, Entry("a", Mark.RESUMED)], step) == 0
