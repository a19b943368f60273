"""Volumes that grow: what is seen of it, attached or not, and what every failure leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from cinder_lite.contract import AttachStatus, ServerEventsAPI, ServerExternalEvent, Volume, VolumeStatus
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.errors import (
    ExportFailure,
    InvalidInput,
    InvalidVolume,
    TargetUnavailable,
    VolumeBackendAPIException,
    VolumeInUse,
    VolumeNotFound,
)
from cinder_lite.store.tables import volumes
from common.testing.script import When
from nova_lite.contract import Instance
from nova_lite.errors import HypervisorRefused, VolumeBDMNotFound
from nova_lite.virt.fake import Call
from tests.support.world import BACKEND, World, running_world

GIB = 1024**3


class HeldDriver(FakeDriver):
    """Extends nothing before the gate is open."""

    def __init__(self) -> None:
        super().__init__(volume_backend_name=BACKEND)
        self.gate = asyncio.Event()

    async def extend_volume(self, volume: Volume, new_size: int) -> None:
        await self.gate.wait()
        await super().extend_volume(volume, new_size)


async def attached(world: World) -> tuple[Instance, Volume]:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    return server, await world.settled(volume.id)


async def extended(world: World, volume: Volume, new_size: int) -> Volume:
    await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=new_size)
    found = await world.settled(volume.id)
    await world.ended_flows()
    return found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.05)


async def test_an_available_volume_grows_and_is_available(world: World) -> None:
    volume = await world.create()
    found = await extended(world, volume, 3)
    assert (found.status, found.size, found.attach_status) == (VolumeStatus.AVAILABLE, 3, AttachStatus.DETACHED)
    assert world.driver.sizes == {volume.name: 3}
    assert found.messages == ()


async def test_an_attached_volume_grows_under_its_guest(world: World) -> None:
    server, volume = await attached(world)
    found = await extended(world, volume, 2)
    assert (found.status, found.size, found.attach_status) == (VolumeStatus.IN_USE, 2, AttachStatus.ATTACHED)
    [export] = world.target.served.values()
    assert export.size == 2 * GIB

    async def is_shown() -> bool:
        return world.hypervisor.host.shown == {volume.id: 2 * GIB}

    await until(is_shown)
    await world.ended_flows()
    [mapping] = await world.mappings.list(server.uuid)
    assert mapping.volume_size == 2
    assert (await world.doctor.audit()).violations == ()


async def test_the_guest_is_told_only_when_storage_target_and_row_have_the_size(world: World) -> None:
    server, volume = await attached(world)
    gate = world.hypervisor.hold("extend_volume")
    await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=2)
    found = await world.settled(volume.id)
    assert (found.status, found.size) == (VolumeStatus.IN_USE, 2)
    assert [act for act in world.target.acts if "extend" in act] == [f"extend_target {volume.name}"]
    gate.set()

    async def is_asked() -> bool:
        return Call("extend_volume", server.uuid, volume.id) in world.hypervisor.calls

    await until(is_asked)
    await world.ended_flows()


@pytest.mark.parametrize("size", [0, -1, 1, 1 << 21])
async def test_a_size_that_is_not_larger_or_not_a_size_is_refused(world: World, size: int) -> None:
    volume = await world.create()
    with pytest.raises(InvalidInput, match=str(size)):
        await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=size)
    assert (await world.settled(volume.id)).size == 1


async def test_a_volume_that_is_not_there_or_in_another_state_is_refused(world: World) -> None:
    with pytest.raises(VolumeNotFound):
        await world.volumes.extend(world.ctx, volume_id="absent", new_size=2)
    volume = await world.create()
    await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="error")
    with pytest.raises(InvalidVolume, match="must be available or in-use to extend, but the status is error"):
        await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=2)


async def test_the_same_request_again_is_one_extension_and_another_size_meanwhile_is_refused(tmp_path: Path) -> None:
    driver = HeldDriver()
    async with running_world(tmp_path, driver=driver) as world:
        volume, ctx = await world.create(), world.ctx
        await world.volumes.extend(ctx, volume_id=volume.id, new_size=2)
        await world.volumes.extend(ctx, volume_id=volume.id, new_size=2)
        with pytest.raises(InvalidVolume, match="the status is extending"):
            await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=3)
        driver.gate.set()
        assert (await world.settled(volume.id)).size == 2
        await world.ended_flows()
        await world.volumes.extend(ctx, volume_id=volume.id, new_size=2)
        with pytest.raises(InvalidInput):
            await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=2)
        assert len([row for row in await world.flows() if row.saga == "extend_volume"]) == 1


async def test_a_backend_that_refuses_leaves_an_available_volume_as_it_was_and_says_why(world: World) -> None:
    volume = await world.create()
    found = await extended(world, volume, 200)
    assert (found.status, found.size) == (VolumeStatus.ERROR_EXTENDING, 1)
    assert "199 GiB wanted" in found.messages[0].user_message
    assert world.driver.sizes == {volume.name: 1}
    await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="available")
    assert (await extended(world, volume, 2)).size == 2


async def test_a_backend_that_refuses_leaves_an_attached_volume_in_use(world: World) -> None:
    server, volume = await attached(world)
    world.driver.script.fail_next("extend_volume", VolumeBackendAPIException(data="full"), times=3)
    found = await extended(world, volume, 2)
    assert (found.status, found.size, found.attach_status) == (VolumeStatus.IN_USE, 1, AttachStatus.ATTACHED)
    assert "full" in found.messages[0].user_message
    await world.detach(server, volume)
    assert (await world.settled(volume.id)).status is VolumeStatus.AVAILABLE


async def test_a_target_that_is_away_for_a_moment_is_asked_again(world: World) -> None:
    _, volume = await attached(world)
    world.target.script.fail_next("extend_target", TargetUnavailable(name="tgtd", reason="restarting"))
    found = await extended(world, volume, 2)
    assert (found.status, found.size, found.messages) == (VolumeStatus.IN_USE, 2, ())


async def test_a_target_that_cannot_serve_it_yet_is_told_of_and_the_volume_keeps_its_size(world: World) -> None:
    _, volume = await attached(world)
    world.target.script.fail_next("extend_target", ExportFailure(volume_id=volume.id, reason="in use"))
    found = await extended(world, volume, 2)
    assert (found.status, found.size, found.messages[0].event_id) == (VolumeStatus.IN_USE, 2, "VOLUME_EXTEND_NOT_SERVED")
    assert world.hypervisor.host.shown == {}


async def test_a_machine_that_refuses_costs_a_fault_of_its_server_and_nothing_else(world: World) -> None:
    server, volume = await attached(world)
    world.hypervisor.script.fail_next("extend_volume", VolumeBDMNotFound(volume_id="v", instance_uuid="s"))
    assert (await extended(world, volume, 2)).status is VolumeStatus.IN_USE

    async def is_told() -> bool:
        return (await world.servers.get(world.ctx, server=server.uuid)).fault is not None

    await until(is_told)
    fault = (await world.servers.get(world.ctx, server=server.uuid)).fault
    assert fault is not None
    assert f"Showing the new size of volume {volume.id} failed" in fault.message


async def test_a_machine_whose_target_is_away_for_a_moment_is_asked_again(world: World) -> None:
    _, volume = await attached(world)
    world.hypervisor.script.fail_next("extend_volume", HypervisorRefused(name="vm", command="block_resize", reason="no session"))
    await extended(world, volume, 2)

    async def is_shown() -> bool:
        return world.hypervisor.host.shown == {volume.id: 2 * GIB}

    await until(is_shown)


@pytest.mark.parametrize("when", list(When))
async def test_a_driver_whose_answer_is_lost_is_asked_again_or_taken_at_its_word(world: World, when: When) -> None:
    volume = await world.create()
    world.driver.script.fail_next("extend_volume", TargetUnavailable(name="storage", reason="no answer"), when)
    found = await extended(world, volume, 2)
    assert (found.status, found.size) == (VolumeStatus.AVAILABLE, 2)


async def test_a_lost_order_is_given_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.base.settling.RECONCILE_GRACE_S", -1.0)
    volume = await world.create()
    async with world.database.begin() as conn:
        await conn.execute(update(volumes).values(status="extending", extend_new_size=4))
    assert [line for line in await world.doctor.mend() if "extend_volume: it is extending" in line]
    found = await world.settled(volume.id)
    assert (found.status, found.size) == (VolumeStatus.AVAILABLE, 4)


async def test_an_order_that_comes_late_changes_nothing(world: World) -> None:
    volume = await world.create()
    await world.backend.extend_volume(world.ctx, volume=volume, new_size=5)

    async def is_over() -> bool:
        return [row.state for row in await world.flows() if row.saga == "extend_volume"] == ["compensated"]

    await until(is_over)
    found = await world.settled(volume.id)
    assert (found.status, found.size, world.driver.sizes[volume.name]) == (VolumeStatus.AVAILABLE, 1, 1)


async def test_a_server_that_is_deleted_meanwhile_waits_for_its_volume(tmp_path: Path) -> None:
    driver = HeldDriver()
    async with running_world(tmp_path, driver=driver) as world:
        server, volume = await attached(world)
        await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=2)
        await world.servers.delete(world.ctx, server=server.uuid)

        async def is_destroyed() -> bool:
            return world.hypervisor.host.machines == {}

        await until(is_destroyed)
        assert (await world.volumes.get(world.ctx, volume_id=volume.id)).status is VolumeStatus.EXTENDING
        driver.gate.set()
        assert await world.server_is_gone(server.uuid)
        await world.ended_flows()
        found = await world.settled(volume.id)
        assert (found.status, found.size, found.volume_attachment) == (VolumeStatus.AVAILABLE, 2, ())
        assert world.target.served == {}


async def test_a_detachment_and_a_deletion_meanwhile_are_refused(tmp_path: Path) -> None:
    driver = HeldDriver()
    async with running_world(tmp_path, driver=driver) as world:
        server, volume = await attached(world)
        await world.volumes.extend(world.ctx, volume_id=volume.id, new_size=2)
        with pytest.raises(InvalidVolume, match="the status is extending"):
            await world.detach(server, volume)
        with pytest.raises(VolumeInUse):
            await world.volumes.delete(world.ctx, volume_id=volume.id)
        driver.gate.set()
        assert (await world.settled(volume.id)).size == 2


async def test_events_of_what_is_gone_or_unknown_are_passed_over(world: World) -> None:
    server, volume = await attached(world)
    events = ServerEventsAPI.over(world.rpc)
    told = [
        ServerExternalEvent(name="volume-extended", server_uuid="00000000-0000-4000-8000-000000000009", tag=volume.id),
        ServerExternalEvent(name="volume-extended", server_uuid=server.uuid, tag="00000000-0000-4000-8000-000000000008"),
        ServerExternalEvent(name="power-update", server_uuid=server.uuid, tag="POWER_OFF"),
        ServerExternalEvent(name="volume-extended", server_uuid=server.uuid, tag=volume.id),
    ]
    await events.external_instance_event(world.ctx, events=told)

    async def is_shown() -> bool:
        return world.hypervisor.host.shown == {volume.id: GIB}

    await until(is_shown)
    assert [row.saga for row in await world.ended_flows()].count("extend_disk") == 1
