"""Status tables: the rules they are checked against, and every (state, event) pair of ours."""

from typing import Any

import pytest

from cinder_lite.contract import AttachStatus, VolumeStatus
from cinder_lite.domain.attachment import ATTACHMENT
from cinder_lite.domain.snapshot import SNAPSHOT
from cinder_lite.domain.volume import VOLUME, attach_status_of
from common.machine.table import Machine, NotInTable
from nova_lite.domain.instance import INSTANCE

BROKEN = {
    "several targets": ({("a", "go"): "b", ("b", "go"): "c", ("c", "end"): "z"}, "go"),
    "leaves the end": ({("a", "go"): "z", ("z", "back"): "a"}, "back"),
    "not reachable": ({("a", "go"): "z", ("x", "end"): "z"}, "x"),
    "no end is reachable": ({("a", "go"): "b", ("a", "end"): "z"}, "b"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_table_that_breaks_a_rule_cannot_be_made(rule: str) -> None:
    rows, named = BROKEN[rule]
    with pytest.raises(ValueError, match=named) as refused:
        Machine("thing", start="a", rows=rows, ends=frozenset({"z"}))
    assert rule in str(refused.value)


VOLUME_ROWS = """
creating created available
creating create_failed error
available reserve attaching
available delete deleting
attaching unreserve available
attaching attached in-use
attaching detached available
in-use begin_detaching detaching
in-use detached available
detaching roll_detaching in-use
detaching detached available
deleting delete_busy available
deleting delete_failed error_deleting
deleting destroyed deleted
error delete deleting
error_deleting delete deleting
error_extending delete deleting
available extend extending
in-use extend extending
extending extended available
extending extended_in_use in-use
extending extend_failed error_extending
extending roll_extending in-use
extending reset_available available
error_extending reset_available available
extending reset_error error
error_extending reset_error error
error reset_available available
error_deleting reset_available available
attaching reset_available available
in-use reset_available available
detaching reset_available available
available reset_error error
error_deleting reset_error error
attaching reset_error error
in-use reset_error error
detaching reset_error error
error reset_in_use in-use
"""
SNAPSHOT_ROWS = """
creating created available
creating create_failed error
available delete deleting
error delete deleting
error_deleting delete deleting
deleting delete_busy available
deleting delete_failed error_deleting
deleting destroyed deleted
"""

ATTACHMENT_ROWS = """
reserved connect attaching
reserved detached detached
attaching connect attaching
attaching attached attached
attaching detached detached
attached attached attached
attached begin_detaching detaching
attached detached detached
detaching roll_detaching attached
detaching detached detached
"""
INSTANCE_ROWS = """
building/scheduling spawn building/spawning
building/scheduling build_failed error
building/spawning spawn building/spawning
building/spawning spawned active
building/spawning build_failed error
active machine_lost error
active stop active/powering-off
active/powering-off stopped stopped
active/powering-off stop_failed active
stopped start stopped/powering-on
stopped/powering-on started active
stopped/powering-on start_failed stopped
active reboot active/rebooting
active reboot_hard active/rebooting_hard
stopped reboot_hard active/rebooting_hard
error reboot_hard active/rebooting_hard
active/rebooting rebooted active
active/rebooting_hard rebooted active
active/rebooting reboot_failed error
active/rebooting_hard reboot_failed error
active/rebooting reboot_taken_back active
active/rebooting_hard reboot_taken_back active
active/rebooting_hard reboot_of_stopped_taken_back stopped
active delete active/deleting
stopped delete active/deleting
error delete active/deleting
active/deleting delete_failed error
active/deleting delete_taken_back active
active/deleting delete_of_stopped_taken_back stopped
active/deleting destroyed deleted
"""


def shown(state: object) -> str:
    return "/".join(str(part) for part in state if part) if isinstance(state, tuple) else str(state)


@pytest.mark.parametrize(
    ("machine", "golden"),
    [(VOLUME, VOLUME_ROWS), (SNAPSHOT, SNAPSHOT_ROWS), (ATTACHMENT, ATTACHMENT_ROWS), (INSTANCE, INSTANCE_ROWS)],
    ids=lambda it: getattr(it, "name", ""),
)
def test_every_pair_of_state_and_event_does_what_the_table_says(machine, golden: str) -> None:
    rows = {(state, event): target for state, event, target in (line.split() for line in golden.strip().splitlines())}
    assert len(rows) == len(machine.rows)
    for state in machine.states:
        for event in machine.events:
            wanted = rows.get((shown(state), str(event)))
            assert machine.allows(state, event) is (wanted is not None)
            if wanted is None:
                with pytest.raises(NotInTable):
                    machine.after(state, event)
            else:
                assert shown(machine.after(state, event)) == wanted
                assert state in machine.sources(event)


def test_a_volume_s_attach_status_follows_from_its_status() -> None:
    attached = {status for status in VolumeStatus if attach_status_of(status) is AttachStatus.ATTACHED}
    assert attached == {VolumeStatus.IN_USE, VolumeStatus.DETACHING}
    assert attach_status_of(VolumeStatus.EXTENDING) is None


@pytest.mark.parametrize("machine", [VOLUME, SNAPSHOT, ATTACHMENT, INSTANCE], ids=lambda it: it.name)
def test_an_event_leads_to_one_target_from_all_its_sources_and_another_is_in_no_table(machine: Machine[Any, Any]) -> None:
    for event in machine.events:
        assert {machine.after(state, event) for state in machine.sources(event)} == {machine.target(event)}
    with pytest.raises(NotInTable, match=f"{machine.name}: no row has the event melt"):
        machine.target("melt")
