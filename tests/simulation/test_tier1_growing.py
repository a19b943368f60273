"""Tier 1, a sample: one fault at a boundary of extending a volume under its server, and of taking and deleting a snapshot."""

import pytest

from tests.simulation.judged import SHARES, cases_of, violations_of
from tests.simulation.scenario import ADDED

CASES_MIN = 1_500


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("share", range(0, SHARES, 5))
def test_one_fault_leaves_everything_as_it_must_be(share: int) -> None:
    failed = violations_of(share, *ADDED)
    assert not failed, "\n".join(failed)


@pytest.mark.usefixtures("silent")
def test_the_cases_do_not_become_fewer() -> None:
    assert len(cases_of(*ADDED)) >= CASES_MIN
