"""Tier 3: histories from seeds, those first that failed once, and races of two clients for one volume."""

import pytest

from tests.simulation.__main__ import known_seeds
from tests.simulation.cases import run_pair
from tests.simulation.history import run_history
from tests.simulation.race import run_races

SHARES = 20
HISTORIES = 500
OF_MESSAGES = "lost,unconfirmed,twice,late,swap,cut,busy,error"
"""Every third history has only faults of messages and of the database: among all, those of processes prevail."""
PAIRS = 160
PAIR_SHARES = 8
RACES = 1_000
RACE_SHARES = 20

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("silent")]


@pytest.mark.parametrize("seed", known_seeds())
def test_what_failed_once_does_not_fail_again(seed: str) -> None:
    assert not run_history(seed).violations, f"make repro CASE='history {seed}'"


@pytest.mark.parametrize("share", range(SHARES))
def test_when_faults_stop_everything_comes_to_rest(share: int) -> None:
    for number in range(HISTORIES // SHARES):
        seed = f"ci.{share}.{number}" if number % 3 else f"{OF_MESSAGES}:ci.{share}.{number}"
        violations = run_history(seed).violations
        assert not violations, f"make repro CASE='history {seed}'\n{violations[0]}"


@pytest.mark.parametrize("share", range(PAIR_SHARES))
def test_a_second_fault_while_the_first_is_mended(share: int) -> None:
    for number in range(share, PAIRS, PAIR_SHARES):
        report = run_pair(number)
        assert not report.violations, f"make repro CASE='{report.case}'\n{report.violations[0]}"


@pytest.mark.parametrize("share", range(RACE_SHARES))
def test_of_two_attachments_at_the_same_instant_exactly_one_wins(share: int) -> None:
    assert run_races(share, rounds=RACES // RACE_SHARES) == []
