"""Tier 1, second half: one fault at every boundary of detaching, of deleting a server with a volume, and of deleting a volume."""

import pytest

from tests.simulation.judged import SHARES, violations_of

STAGES = ("detach", "delete_server", "delete_volume")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("share", range(SHARES))
def test_one_fault_leaves_everything_as_it_must_be(share: int) -> None:
    failed = violations_of(share, *STAGES)
    assert not failed, "\n".join(failed)
