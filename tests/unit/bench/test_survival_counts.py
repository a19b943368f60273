"""The counts of the survival bench: a harness that cannot see a lost or doubled call proves nothing."""

from tests.bench.survival.counts import Outage, count, read_executions
from tests.bench.survival.job import HUNG, OK, WRONG, Outcome

OUTAGE = Outage(began_s=2.0, returned_s=3.0)


def outcome(number: int, ended_s: float, kind: str = OK) -> Outcome:
    return Outcome(number, began_s=1.0, ended_s=ended_s, kind=kind)


def once(*numbers: int) -> str:
    return "".join(f"begin {number} 7 1.0\nend {number} 7 1.5\n" for number in numbers)


def test_a_run_in_which_all_went_well_counts_nothing_else() -> None:
    found = count(2, [outcome(0, 1.5), outcome(1, 3.25)], read_executions(once(0, 1)), outage=OUTAGE)
    assert (found.correct, found.wrong, found.failed, found.hung) == (2, 0, 0, 0)
    assert (found.executed_twice, found.finished_twice, found.reply_lost) == (0, 0, 0)
    assert (found.away_s, found.first_success_s, found.longest_gap_s, found.took_s) == (1.0, 0.25, 1.75, 2.25)


def test_a_number_begun_by_two_servers_is_executed_twice_and_finished_once() -> None:
    found = count(1, [outcome(0, 2.0)], read_executions("begin 0 7 1.0\nbegin 0 8 1.5\nend 0 8 2.0\n"), outage=OUTAGE)
    assert (found.executed_twice, found.finished_twice) == (1, 0)


def test_a_number_done_twice_is_finished_twice() -> None:
    assert count(1, [outcome(0, 2.0)], read_executions(once(0, 0)), outage=OUTAGE).finished_twice == 1


def test_work_that_was_done_for_a_caller_without_a_result_is_a_lost_reply() -> None:
    found = count(2, [outcome(0, 2.0, "Timeout"), outcome(1, 2.0, WRONG)], read_executions(once(0, 1)), outage=OUTAGE)
    assert (found.reply_lost, found.wrong, dict(found.errors)) == (2, 1, {"Timeout": 1})


def test_a_call_that_was_never_told_of_is_hung_as_one_that_waited_out_its_timeout() -> None:
    found = count(3, [outcome(0, 2.0), outcome(1, 60.0, HUNG)], read_executions(once(0)), outage=OUTAGE)
    assert (found.hung, found.failed) == (2, 0)


def test_no_success_after_the_return_is_none() -> None:
    assert count(1, [outcome(0, 2.5)], [], outage=OUTAGE).first_success_s is None
