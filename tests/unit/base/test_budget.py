"""The retry budget."""

import pytest
from hypothesis import given, strategies as st

from common.base.budget import RetryBudget


@given(st.lists(st.booleans(), max_size=300), st.floats(0, 1), st.floats(0, 20))
def test_no_more_than_the_reserve_and_the_share_of_requests_is_repeated(wants: list[bool], ratio: float, reserve: float) -> None:
    budget = RetryBudget(ratio, reserve)
    spent = 0
    for earned, wants_retry in enumerate(wants, 1):
        budget.earn()
        spent += wants_retry and budget.spend()
        assert spent <= reserve + ratio * earned + 1e-6


def test_a_tenth_of_a_long_run_of_failures_is_repeated() -> None:
    budget = RetryBudget(ratio=0.1, reserve=10)
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert 105 <= spent <= 110


def test_quiet_times_save_up_no_more_than_the_reserve() -> None:
    budget = RetryBudget(ratio=0.1, reserve=3)
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(5)] == [True, True, True, False, False]


@pytest.mark.parametrize(("ratio", "reserve"), [(-0.1, 1), (1.1, 1), (0.1, -1)])
def test_shares_that_are_none_are_refused(ratio: float, reserve: float) -> None:
    with pytest.raises(ValueError, match="wanted"):
        RetryBudget(ratio, reserve)
