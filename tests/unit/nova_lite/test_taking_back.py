"""What becomes of a server whose host was never told what had been begun with it."""

import pytest

from nova_lite.contract import VmState
from nova_lite.domain.instance import INSTANCE, Event, takes_back

BEGUN = [
    (was, event)
    for event in (Event.STOP, Event.START, Event.REBOOT, Event.REBOOT_HARD, Event.DELETE)
    for was in INSTANCE.sources(event)
]


@pytest.mark.parametrize(("was", "event"), BEGUN)
def test_it_is_what_it_was(was: tuple[VmState, None], event: Event) -> None:
    begun = INSTANCE.rows[was, event]
    assert INSTANCE.rows[begun, takes_back(event, was[0])] == was


def test_one_that_was_read_before_it_was_built_is_in_error() -> None:
    assert takes_back(Event.DELETE, VmState.BUILDING) is Event.DELETE_FAILED
