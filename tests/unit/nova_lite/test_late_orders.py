"""Orders to a compute host that come again when their work is over."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.base.context import Context
from common.host.locks import KeyedLocks
from nova_lite.contract import Instance, VmState
from nova_lite.errors import VolumeBDMNotFound
from nova_lite.flows.parts import ComputeParts
from nova_lite.service.compute import ComputeManager

SERVER = Instance(uuid="s1", display_name="s", vm_state=VmState.ACTIVE)


class Mappings:
    """Of one server; `attachment_id` None: the volume has no mapping any more."""

    def __init__(self, attachment_id: str | None) -> None:
        self.attachment_id = attachment_id

    async def get(self, instance_uuid: str, volume_id: str) -> Any:
        if self.attachment_id is None:
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=instance_uuid)
        return SimpleNamespace(attachment_id=self.attachment_id)


class Runner:
    """Notes which flows were begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    async def start(self, flow: Any) -> None:
        self.begun.append(flow.id)


def manager(attachment_id: str | None, runner: Runner) -> ComputeManager:
    parts = SimpleNamespace(mappings=Mappings(attachment_id), runner=runner)
    return ComputeManager(cast(ComputeParts, parts), KeyedLocks(), disks_max=9)


@pytest.mark.parametrize("there", [None, "a2"])
async def test_a_detachment_of_an_attachment_that_is_over_is_done(there: str | None) -> None:
    runner = Runner()
    await manager(there, runner).detach_volume(Context(), instance=SERVER, volume_id="v", attachment_id="a1")
    assert runner.begun == []


async def test_a_detachment_by_the_volume_alone_is_refused_when_there_is_no_mapping() -> None:
    with pytest.raises(VolumeBDMNotFound):
        await manager(None, Runner()).detach_volume(Context(), instance=SERVER, volume_id="v")
