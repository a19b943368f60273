"""The article's flow on fakes: what is seen of it, and that every failure of attach-flow 1.3 leaves nothing behind."""

import asyncio
from typing import Any

import msgspec
import pytest

from cinder_lite.contract import AttachStatus, Volume, VolumeStatus
from cinder_lite.domain.volume import Event
from cinder_lite.errors import ExportFailure, InvalidVolume, TargetUnavailable, VolumeBackendAPIException, VolumeInUse
from cinder_lite.store.volumes import Volumes
from common.base.context import Context
from common.base.errors import Invalid, Timeout
from common.base.ids import new_uuid
from common.db.errors import DatabaseBusy
from common.db.journal import Journal
from common.testing.script import When
from nova_lite.brick.fake import FakeConnector
from nova_lite.contract import BlockDeviceMapping, Instance, VmState
from nova_lite.errors import (
    DevicePathInUse,
    HypervisorRefused,
    HypervisorUnavailable,
    InstanceInvalidState,
    InstanceNotFound,
    InvalidDevicePath,
    VolumeAlreadyAttached,
    VolumeBDMNotFound,
    VolumeConnectionFailed,
)
from nova_lite.flows.request_attach import RequestAttach
from nova_lite.store.block_device_mapping import BlockDeviceMappings
from tests.support.world import INITIATOR, World, running_world


async def check_nothing_is_left(world: World, server: Instance, volume: Volume) -> Instance:
    """A volume that is seen available has no mapping, export, connection or disk at that moment; the server as `show` has it."""
    found = await world.settled(volume.id)
    assert found.status is VolumeStatus.AVAILABLE
    assert found.volume_attachment == ()
    assert found.provider_location is None
    assert await world.mappings.list(server.uuid) == []
    assert world.target.served == {}
    assert world.connector.connected == set()
    assert world.hypervisor.host.machines[server.uuid] == {}
    return await world.servers.get(world.ctx, server=server.uuid)


async def test_an_attached_volume_is_a_disk_an_export_a_mapping_and_an_attachment(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    mapping = await world.attach(server, volume)
    found = await world.settled(volume.id)
    assert (found.status, found.attach_status) == (VolumeStatus.IN_USE, AttachStatus.ATTACHED)
    [attachment] = found.volume_attachment
    assert (attachment.id, attachment.instance_uuid, attachment.mountpoint) == (mapping.attachment_id, server.uuid, "/dev/vdb")
    assert attachment.attach_status is AttachStatus.ATTACHED
    assert world.hypervisor.host.machines[server.uuid] == {volume.id: "/dev/vdb"}
    [export] = world.target.served.values()
    assert export.acl == {INITIATOR}
    assert export.chap is not None


async def test_a_detached_volume_leaves_nothing_behind(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    await world.detach(server, volume)
    found = await check_nothing_is_left(world, server, volume)
    assert found.fault is None


async def test_the_attachment_s_id_is_the_same_in_every_message(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    mapping = await world.attach(server, volume)
    await world.settled(volume.id)
    rows = {row.saga: row for row in await world.ended_flows()}
    for saga in ("request_attach", "attach_volume", "initialize_connection"):
        assert rows[saga].arguments["attachment_id"] == mapping.attachment_id


async def test_two_volumes_get_two_names_and_a_freed_name_is_used_again(world: World) -> None:
    server = await world.boot()
    one, two = await world.create("one"), await world.create("two")
    assert (await world.attach(server, one)).device_name == "/dev/vdb"
    assert (await world.attach(server, two)).device_name == "/dev/vdc"
    await world.settled(one.id)
    await world.detach(server, one)
    await world.settled(one.id)
    await world.ended_flows()
    assert (await world.attach(server, one)).device_name == "/dev/vdb"
    await world.settled(one.id)
    await world.settled(two.id)


async def test_the_requested_name_is_taken_under_the_machine_s_own_prefix(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    assert (await world.attach(server, volume, "/dev/sdq")).device_name == "/dev/vdq"
    await world.settled(volume.id)


async def test_a_second_attach_of_the_same_volume_is_refused_and_names_the_server_that_has_it(world: World) -> None:
    one, two, volume = await world.boot("one"), await world.boot("two"), await world.create()
    await world.attach(one, volume)
    for server in (one, two):
        with pytest.raises(VolumeAlreadyAttached) as refused:
            await world.attach(server, volume)
        assert refused.value.code == 409
        assert "(one)" in str(refused.value)
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE
    assert len(await world.mappings.list(two.uuid)) == 0


async def test_of_ten_attaches_of_one_volume_at_once_one_wins(world: World) -> None:
    servers, volume = [await world.boot(f"s{number}") for number in range(5)], await world.create()
    tried = await asyncio.gather(*(world.attach(server, volume) for server in servers * 2), return_exceptions=True)
    won = [answer for answer in tried if not isinstance(answer, BaseException)]
    assert len(won) == 1, tried
    assert all(isinstance(answer, Invalid) for answer in tried if answer is not won[0])
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE
    await world.ended_flows()
    assert [disks for disks in world.hypervisor.host.machines.values() if disks] == [{volume.id: "/dev/vdb"}]
    assert len(await world.mappings.by_volume(volume.id)) == 1


async def test_volumes_attached_at_once_get_different_names(world: World) -> None:
    server, volumes = await world.boot(), [await world.create(f"v{number}") for number in range(8)]
    mappings = await asyncio.gather(*(world.attach(server, volume) for volume in volumes))
    assert sorted(mapping.device_name or "" for mapping in mappings) == [f"/dev/vd{letter}" for letter in "bcdefghi"]
    assert [(await world.settled(volume.id)).status for volume in volumes] == [VolumeStatus.IN_USE] * 8


@pytest.mark.parametrize(
    ("device", "error"), [("vdb", InvalidDevicePath), ("/dev/", InvalidDevicePath), ("/dev/vda", DevicePathInUse)]
)
async def test_a_bad_device_name_is_refused_and_nothing_changes(world: World, device: str, error: type[Exception]) -> None:
    server, volume = await world.boot(), await world.create()
    with pytest.raises(error):
        await world.attach(server, volume, device)
    await check_nothing_is_left(world, server, volume)


async def test_unknown_servers_and_volumes_are_named(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    with pytest.raises(InstanceNotFound, match="Instance nobody could not be found"):
        await world.servers.attach_volume(world.ctx, server="nobody", volume=volume.id)
    with pytest.raises(Exception, match="Volume nothing could not be found"):
        await world.servers.attach_volume(world.ctx, server=server.uuid, volume="nothing")
    with pytest.raises(VolumeBDMNotFound, match="is not attached to it"):
        await world.detach(server, volume)


async def test_an_attached_volume_cannot_be_deleted(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    with pytest.raises(VolumeInUse, match="is attached to server"):
        await world.volumes.delete(world.ctx, volume_id=volume.id)
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE


async def test_a_building_server_takes_no_volume(world: World) -> None:
    volume = await world.create()
    gate = world.hypervisor.hold("spawn")
    server = await world.servers.create(world.ctx, name="slow", flavor="m1.tiny")
    with pytest.raises(InstanceInvalidState, match="building"):
        await world.attach(server, volume)
    gate.set()
    assert (await world.settled_server(server.uuid)).vm_state is VmState.ACTIVE


async def test_a_host_without_initiator_is_refused_by_name_and_compensated(tmp_path) -> None:
    async with running_world(tmp_path, connector=FakeConnector(host="cmp1", initiator=None)) as world:
        server, volume = await world.boot(), await world.create()
        await world.attach(server, volume)
        found = await check_nothing_is_left(world, server, volume)
        assert found.fault is not None
        assert "Connector doesn't have required information: initiator" in found.fault.message


ATTACH_FAULTS = {
    "export refused": lambda world: world.target.script.fail_next(
        "create_export", ExportFailure(volume_id="v", reason="no room for targets")
    ),
    "export made, answer lost": lambda world: world.target.script.fail_next(
        "create_export", Timeout(what="tgtadm", timeout_s=1), When.AFTER, times=4
    ),
    "target daemon away": lambda world: world.target.script.fail_next(
        "create_export", TargetUnavailable(name="tgtd", reason="it is down"), times=4
    ),
    "initiator not let in": lambda world: world.target.script.fail_next(
        "initialize_connection", ExportFailure(volume_id="v", reason="acl")
    ),
    "initiator let in, answer lost": lambda world: world.target.script.fail_next(
        "initialize_connection", Timeout(what="tgtadm", timeout_s=1), When.AFTER, times=4
    ),
    "host cannot connect": lambda world: world.connector.script.fail_next(
        "connect_volume", VolumeConnectionFailed(volume_id="v", reason="x")
    ),
    "host connected, answer lost": lambda world: world.connector.script.fail_next(
        "connect_volume", VolumeConnectionFailed(volume_id="v", reason="x"), When.AFTER
    ),
    "machine refuses": lambda world: world.hypervisor.script.fail_next(
        "attach_volume", HypervisorRefused(name="m", command="blockdev-add", reason="513")
    ),
    "machine took it, answer lost": lambda world: world.hypervisor.script.fail_next(
        "attach_volume", HypervisorUnavailable(name="m", reason="socket"), When.AFTER
    ),
    "unforeseen": lambda world: world.hypervisor.script.fail_next("attach_volume", ZeroDivisionError("a bug"), When.AFTER),
}


@pytest.mark.parametrize("fault", ATTACH_FAULTS)
async def test_a_failed_attach_leaves_nothing_and_says_why(world: World, fault: str) -> None:
    server, volume = await world.boot(), await world.create()
    ATTACH_FAULTS[fault](world)
    await world.attach(server, volume)
    found = await check_nothing_is_left(world, server, volume)
    assert found.fault is not None
    assert found.fault.message.startswith(f"Attaching volume {volume.id} failed: ")
    world.target.script.clear()
    await world.attach(server, volume)
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE


async def test_an_undo_that_fails_is_tried_again(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    world.hypervisor.script.fail_next("attach_volume", HypervisorRefused(name="m", command="device_add", reason="full"), When.AFTER)
    world.hypervisor.keep_next_disk()
    await world.attach(server, volume)
    await check_nothing_is_left(world, server, volume)


async def test_an_attach_is_taken_back_when_its_volume_was_freed_and_deleted_meanwhile(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    gate = world.hypervisor.hold("attach_volume")
    world.hypervisor.script.fail_next("attach_volume", HypervisorRefused(name="m", command="device_add", reason="full"), When.AFTER)
    mapping = await world.attach(server, volume)
    await world.volumes.detach(world.ctx, volume_id=volume.id, attachment_id=mapping.attachment_id or "")
    await world.volumes.delete(world.ctx, volume_id=volume.id)
    assert await world.volume_is_gone(volume.id)
    gate.set()
    flows = await world.ended_flows()
    assert [flow.state for flow in flows if flow.saga == "attach_volume"] == ["compensated"]
    assert await world.mappings.list(server.uuid) == []
    assert world.connector.connected == set()
    assert world.hypervisor.host.machines[server.uuid] == {}


async def test_a_guest_that_keeps_its_disk_makes_the_volume_in_use_again(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    world.hypervisor.keep_next_disk()
    await world.detach(server, volume)
    found = await world.settled(volume.id)
    assert found.status is VolumeStatus.IN_USE
    assert found.volume_attachment[0].attach_status is AttachStatus.ATTACHED
    assert world.hypervisor.host.machines[server.uuid] == {volume.id: "/dev/vdb"}
    await world.ended_flows()
    assert "has not let go" in str((await world.servers.get(world.ctx, server=server.uuid)).fault)
    await world.detach(server, volume)
    await check_nothing_is_left(world, server, volume)


async def test_behind_the_guest_a_detach_goes_only_forward(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    world.connector.script.fail_next("disconnect_volume", Timeout(what="iscsiadm", timeout_s=1))
    world.target.script.fail_next("terminate_connection", Timeout(what="tgtadm", timeout_s=1))
    world.target.script.fail_next("remove_export", TargetUnavailable(name="tgtd", reason="it is down"))
    await world.detach(server, volume)
    await check_nothing_is_left(world, server, volume)


async def test_two_detaches_at_once_are_one(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    gate = world.hypervisor.hold("detach_volume")
    await world.detach(server, volume)
    with pytest.raises(InvalidVolume, match="detaching"):
        await world.detach(server, volume)
    gate.set()
    await check_nothing_is_left(world, server, volume)


async def test_deleting_a_server_frees_its_volumes(world: World) -> None:
    server = await world.boot()
    volumes = [await world.create(f"v{number}") for number in range(3)]
    for volume in volumes:
        await world.attach(server, volume)
    for volume in volumes:
        await world.settled(volume.id)
    await world.servers.delete(world.ctx, server=server.uuid)
    assert await world.server_is_gone(server.uuid)
    for volume in volumes:
        assert (await world.settled(volume.id)).status is VolumeStatus.AVAILABLE
    assert world.target.served == {}
    assert world.hypervisor.host.machines == {}


async def test_deleting_a_server_while_a_volume_is_being_attached_frees_it_too(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    gate = world.hypervisor.hold("attach_volume")
    await world.attach(server, volume)
    await world.servers.delete(world.ctx, server=server.uuid)
    gate.set()
    assert await world.server_is_gone(server.uuid)
    assert (await world.settled(volume.id)).status is VolumeStatus.AVAILABLE
    assert world.target.served == {}


async def test_a_volume_larger_than_any_backend_fails_with_the_reason_of_each(world: World) -> None:
    found = await world.create("big", size=5000)
    assert found.status is VolumeStatus.ERROR
    assert "No valid backend was found. cmp1@vault: 5000 GiB wanted" in found.messages[0].user_message


async def test_whoever_sees_that_a_volume_was_not_placed_finds_the_reason_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance: Any = Volumes.advance
    seen: asyncio.Future[Volume] = asyncio.get_running_loop().create_future()

    async def watched(self: Volumes, volume_id: str, event: Event, **values: Any) -> Volume:
        advanced: Volume = await advance(self, volume_id, event, **values)
        seen.set_result(await self.find(volume_id))
        return advanced

    monkeypatch.setattr(Volumes, "advance", watched)
    await world.create("big", size=5000)
    found = await seen
    assert found.status is VolumeStatus.ERROR
    assert "5000 GiB wanted" in found.messages[0].user_message


async def test_a_failed_create_leaves_nothing_and_says_why(world: World) -> None:
    world.driver.script.fail_next("create_volume", VolumeBackendAPIException(data="disk on fire"))
    found = await world.create()
    assert found.status is VolumeStatus.ERROR
    assert "disk on fire" in found.messages[0].user_message
    assert world.driver.sizes == {}
    await world.volumes.delete(world.ctx, volume_id=found.id)
    await world.ended_flows()


async def test_a_failed_boot_says_why_and_the_server_can_be_deleted(world: World) -> None:
    world.hypervisor.script.fail_next("spawn", HypervisorUnavailable(name="m", reason="no memory"))
    server = await world.boot()
    assert server.vm_state is VmState.ERROR
    await world.ended_flows()
    assert "no memory" in str((await world.servers.get(world.ctx, server=server.uuid)).fault)
    await world.servers.delete(world.ctx, server=server.uuid)
    assert await world.server_is_gone(server.uuid)


async def test_the_journal_has_a_row_before_and_after_every_step_and_no_secret(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    [export] = world.target.served.values()
    assert export.chap is not None
    rows = await world.ended_flows()
    journal = Journal(world.database, world.clock)
    for row in rows:
        entries = await journal.entries(row.id)
        marks = [(entry.step, str(entry.mark)) for entry in entries]
        assert marks[::2] == [(step, "begun") for step, _ in marks[::2]]
        assert marks[1::2] == [(step, "done") for step, _ in marks[::2]]
        text = repr([(entry.output, entry.error) for entry in entries]) + repr(row.arguments)
        assert export.chap.password not in text
    assert {row.saga for row in rows} >= {"request_boot", "boot", "create_volume", "request_attach", "attach_volume"}


async def test_an_attachment_whose_mapping_is_gone_is_not_ordered_with_anothers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, volume = await world.boot(), await world.create()
    reserve, mappings = RequestAttach.reserve_volume, world.mappings

    async def reserved(self: RequestAttach, ctx: Context) -> None:
        """As when the server is deleted behind it, and another request of the same disk comes too late as well."""
        await reserve(self, ctx)
        mine = await mappings.by_attachment(self.arguments.attachment_id)
        assert mine is not None
        await mappings.destroy(mine.uuid)
        await mappings.insert(msgspec.structs.replace(mine, uuid=new_uuid(), attachment_id=new_uuid()))

    monkeypatch.setattr(RequestAttach, "reserve_volume", reserved)
    with pytest.raises(VolumeBDMNotFound):
        await world.attach(server, volume)
    assert [row.saga for row in await world.ended_flows() if row.saga == "attach_volume"] == []
    found = await world.settled(volume.id)
    assert (found.status, found.volume_attachment) == (VolumeStatus.AVAILABLE, ())
    assert len(await mappings.list(server.uuid)) == 1


async def test_a_bug_in_a_step_does_not_end_the_service(world: World) -> None:
    world.hypervisor.script.fail_next("spawn", ZeroDivisionError("a bug"))
    server = await world.boot("first")
    assert server.vm_state is VmState.ERROR
    assert (await world.boot("second")).vm_state is VmState.ACTIVE


async def test_the_answer_to_an_attach_does_not_depend_on_how_soon_it_fails(world: World) -> None:
    """The compute host may have taken everything back before nova-api answers."""
    server, volume = await world.boot(), await world.create()
    for _ in range(5):
        world.connector.script.fail_next("connect_volume", VolumeConnectionFailed(volume_id="v", reason="x"))
        assert (await world.attach(server, volume)).device_name == "/dev/vdb"
        await check_nothing_is_left(world, server, volume)


async def test_an_export_that_failed_half_made_is_taken_back(world: World) -> None:
    """ExportFailure leaves open whether something was made; it must not count as refused."""
    server, volume = await world.boot(), await world.create()
    world.target.script.fail_next("create_export", ExportFailure(volume_id="v", reason="half made"), When.AFTER)
    with pytest.raises(ExportFailure):
        await world.backend.initialize_connection(world.ctx, volume=volume, connector={"initiator": INITIATOR, "host": "cmp1"})
    assert world.target.served == {}
    await check_nothing_is_left(world, server, volume)


async def test_a_database_that_is_busy_for_a_moment_does_not_end_a_deletion(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    server, asked = await world.boot(), 0
    listed = BlockDeviceMappings.list

    async def busy_once(self: BlockDeviceMappings, instance_uuid: str) -> list[BlockDeviceMapping]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise DatabaseBusy(url="sqlite://", reason="database is locked")
        return await listed(self, instance_uuid)

    monkeypatch.setattr(BlockDeviceMappings, "list", busy_once)
    await world.servers.delete(world.ctx, server=server.uuid)
    assert await world.server_is_gone(server.uuid)
    assert asked > 1
    assert world.hypervisor.host.machines == {}
