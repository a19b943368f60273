"""Tier 1, first half: one fault at every boundary of creating a volume, booting a server, and attaching the one to the other."""

import pytest

from tests.simulation.judged import SHARES, cases_of, violations_of
from tests.simulation.scenario import SINGLE

STAGES = ("create", "boot", "attach")
CASES_MIN = 5_000
"""Of both halves."""


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("share", range(SHARES))
def test_one_fault_leaves_everything_as_it_must_be(share: int) -> None:
    failed = violations_of(share, *STAGES)
    assert not failed, "\n".join(failed)


@pytest.mark.usefixtures("silent")
def test_the_cases_do_not_become_fewer() -> None:
    assert len(cases_of(*SINGLE)) >= CASES_MIN
