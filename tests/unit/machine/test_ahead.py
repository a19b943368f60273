"""What lies ahead of a flow: its whole way when nothing has happened yet, what is left of it later."""

from common.machine.ahead import ahead
from common.machine.decide import Compensated, Completed, Do, Entry, Mark, Undo
from common.machine.saga import Saga, Step

SAGA = Saga(
    "s",
    pivot="b",
    patience=1,
    steps=(Step("a", undo="not_a"), Step("check"), Step("b", undo="not_b"), Step("c")),
)


def names(*entries: Entry) -> tuple[list[str], type]:
    found = ahead(SAGA, entries)
    return [act.step.name if isinstance(act, Do) else str(act.step.undo) for act in found.acts], type(found.end)


def done(step: str) -> tuple[Entry, Entry]:
    return Entry(step, Mark.BEGUN), Entry(step, Mark.DONE)


def test_before_the_first_row_all_of_it_is_ahead() -> None:
    assert names() == (["a", "check", "b", "c"], Completed)


def test_a_step_in_progress_is_still_ahead() -> None:
    assert names(*done("a"), Entry("check", Mark.BEGUN)) == (["check", "b", "c"], Completed)


def test_once_it_has_turned_back_the_undos_are_ahead() -> None:
    failed = (Entry("b", Mark.BEGUN), Entry("b", Mark.FAILED, final=True))
    assert names(*done("a"), *done("check"), *failed) == (["not_b", "not_a"], Compensated)
    refused = (Entry("b", Mark.BEGUN), Entry("b", Mark.REFUSED, final=True))
    assert names(*done("a"), *done("check"), *refused) == (["not_a"], Compensated)


def test_a_parked_flow_is_looked_at_as_if_it_were_resumed() -> None:
    parked = (*done("a"), *done("check"), *done("b"), Entry("c", Mark.BEGUN), Entry("c", Mark.FAILED, final=True))
    assert names(*parked) == (["c"], Completed)
    failed = (Entry("check", Mark.BEGUN), Entry("check", Mark.FAILED))
    undo_failed = (Entry("a", Mark.UNDOING), Entry("a", Mark.UNDO_FAILED))
    assert names(*done("a"), *failed, *undo_failed) == (["not_a"], Compensated)
    assert isinstance(ahead(SAGA, [*done("a"), *failed, *undo_failed]).acts[0], Undo)


def test_nothing_is_ahead_of_what_has_ended() -> None:
    every = [entry for step in ("a", "check", "b", "c") for entry in done(step)]
    assert names(*every) == ([], Completed)
