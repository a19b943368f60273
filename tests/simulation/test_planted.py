"""Mistakes put into the program on purpose are caught by the case that is named for each."""

import pytest

from tests.simulation.planted import PLANTED, Planted, caught, violations

CAUGHT_MIN = 25
SEEN = [planted for planted in PLANTED if planted.caught]

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("silent")]


@pytest.mark.parametrize("planted", SEEN, ids=lambda planted: planted.name)
def test_a_planted_bug_is_caught_and_its_case_is_sound_without_it(planted: Planted) -> None:
    assert caught(planted), f"{planted.what}: {planted.caught} does not show it"
    assert not violations(planted.caught)


def test_caught_bugs_do_not_become_fewer() -> None:
    assert len(SEEN) >= CAUGHT_MIN
