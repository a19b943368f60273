"""The engine of the sagas: every plan of faults with every crash ends whole, taken back, or with a person; and mutants are caught."""

from pathlib import Path
from typing import Any

import pytest

from common.machine import decide as engine
from common.machine.decide import Do, Entry, Mark, decide
from common.machine.saga import Saga, Step
from tests.unit.machine.model import Decide, check

SOURCE = Path(engine.__file__).read_text()

MUTANTS = {
    "done is not looked at": ("if any(entry.mark is Mark.DONE for entry in marks):", "if False:"),
    "spent steps are tried again": (
        "if _spent(step, marks):\n            return Parked(step)",
        "if False:\n            return Parked(step)",
    ),
    "one attempt too many": ("len(failures) >= step.attempts", "len(failures) > step.attempts"),
    "final failures are tried again": ("or any(entry.final for entry in failures)", ""),
    "undone in the order of doing": ("for step in reversed(saga.steps):", "for step in saga.steps:"),
    "refused steps are undone": ("return marks.count(Mark.BEGUN) == marks.count(Mark.REFUSED)", "return Mark.BEGUN not in marks"),
    "begun steps are not undone": ("or _had_no_effect(marks):", "or Mark.DONE not in marks:"),
    "undone twice": ("or Mark.UNDONE in marks or", "or"),
    "undos never give up": ("if failures >= UNDO_ATTEMPTS else", "if False else"),
    "undos give up at once": ("if failures >= UNDO_ATTEMPTS else", "if failures >= 1 else"),
    "the pivot is no pivot": (
        "mark is Mark.DONE for entry in journal):\n        return False",
        "mark is Mark.DONE for entry in ()):\n        return False",
    ),
    "never turns back": ("return any(_spent(step,", "return False and any(_spent(step,"),
    "attempts do not count": ("return Do(step, failures + 1)", "return Do(step, 1)"),
}


def test_every_plan_and_crash_ends_whole_taken_back_or_with_a_person() -> None:
    assert check(decide) > 10_000


def test_steps_are_undone_in_the_reverse_order_and_attempts_count() -> None:
    saga = Saga("s", steps=(Step("a", undo="x"), Step("b", undo="y", attempts=2), Step("c")))
    done = [Entry("a", Mark.BEGUN), Entry("a", Mark.DONE), Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED)]
    assert decide(saga, done) == Do(saga.step("b"), 2)
    failed = [*done, Entry("b", Mark.BEGUN), Entry("b", Mark.DONE), Entry("c", Mark.BEGUN), Entry("c", Mark.FAILED)]
    order = []
    while not isinstance(decision := decide(saga, failed), engine.Compensated):
        assert isinstance(decision, engine.Undo)
        order.append((decision.step.name, decision.attempt))
        mark = Mark.UNDO_FAILED if order == [("b", 1)] else Mark.UNDONE
        failed += [Entry(decision.step.name, Mark.UNDOING), Entry(decision.step.name, mark)]
    assert order == [("b", 1), ("b", 2), ("a", 1)]


def test_the_unchanged_source_passes_the_check_that_mutants_must_fail() -> None:
    check_all(compiled(SOURCE))


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_engine_is_caught(mutant: str) -> None:
    before, after = MUTANTS[mutant]
    assert SOURCE.count(before) == 1
    with pytest.raises(AssertionError):
        check_all(compiled(SOURCE.replace(before, after)))


def check_all(found: Decide) -> None:
    """The model, and what it cannot see: numbers of attempts, and that a final failure is not tried again."""
    saga = Saga("s", steps=(Step("a", undo="x"), Step("b", undo="y", attempts=3), Step("c", undo="z")))
    journal = [Entry("a", Mark.BEGUN), Entry("a", Mark.DONE), Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED)]
    assert found(saga, journal) == Do(saga.step("b"), 2)
    assert found(saga, [Entry("a", Mark.BEGUN), Entry("a", Mark.FAILED)]) == engine.Undo(saga.step("a"), 1)
    journal += [Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED, final=True)]
    assert found(saga, journal) == engine.Undo(saga.step("b"), 1)
    check(found)


def compiled(source: str) -> Decide:
    """`decide` of another source, with the decisions and marks of the real one."""
    namespace: dict[str, Any] = {"__name__": engine.__name__}
    exec(compile(source, "<engine>", "exec"), namespace)
    namespace.update(
        {name: getattr(engine, name) for name in ("Mark", "Entry", "Do", "Undo", "Completed", "Compensated", "Parked")}
    )
    found: Decide = namespace["decide"]
    return found
