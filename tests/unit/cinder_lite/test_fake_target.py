"""The fake target fails as it is told, before or after the effect."""

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.errors import ExportFailure
from cinder_lite.ports.target import Export
from cinder_lite.targets.fake import FakeTarget
from cinder_lite.targets.iscsi_names import new_chap
from common.testing.script import When

EXPORT = Export(Volume(id="1", size=1, status=VolumeStatus.AVAILABLE), "/fake/volume-1", new_chap())
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:cmp1"}


async def act_on(target: FakeTarget, act: str) -> None:
    match act:
        case "create_export":
            await target.create_export(EXPORT)
        case "remove_export":
            await target.remove_export(EXPORT)
        case "initialize_connection":
            await target.initialize_connection(EXPORT, CONNECTOR)
        case "terminate_connection":
            await target.terminate_connection(EXPORT, CONNECTOR)
        case _:
            raise AssertionError(act)


ACTS = ("create_export", "initialize_connection", "terminate_connection", "remove_export")


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("act", ACTS)
async def test_a_scripted_fault_strikes_once_before_or_after_the_effect(act: str, when: When) -> None:
    target = FakeTarget()
    for earlier in ACTS[: ACTS.index(act)]:
        await act_on(target, earlier)
    before = seen(target)
    target.script.fail_next(act, ExportFailure(volume_id="1", reason="told so"), when)
    with pytest.raises(ExportFailure, match="told so"):
        await act_on(target, act)
    assert (seen(target) == before) is (when is When.BEFORE)
    await act_on(target, act)
    assert seen(target) != before


async def test_credentials_are_asked_for_only_where_they_are_needed() -> None:
    asking, trusting = FakeTarget(), FakeTarget(needs_chap=False)
    for target in (asking, trusting):
        await target.create_export(EXPORT)
        await target.initialize_connection(EXPORT, CONNECTOR)
    iqn, initiator = asking.export_name(EXPORT.volume), CONNECTOR["initiator"]
    assert (asking.login(iqn, initiator, None), asking.login(iqn, initiator, new_chap())) == (False, False)
    assert trusting.login(iqn, initiator, None)


def seen(target: FakeTarget) -> dict[str, tuple[str, frozenset[str]]]:
    return {iqn: (there.path, frozenset(there.acl)) for iqn, there in target.served.items()}
