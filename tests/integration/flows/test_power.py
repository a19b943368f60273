"""Stop, start and reboot on fakes: what is seen of a server, what its machine has, and what becomes of it when a part fails."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cinder_lite.contract import Volume, VolumeStatus
from common.base.errors import NotFound
from common.db.journal import FlowRow, FlowState, Journal
from common.flow.runner import Runner
from common.flow.steps import Flow
from nova_lite.contract import Instance, PowerState, RebootType, VmState
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable, InstanceInvalidState
from tests.support.world import World


@pytest.fixture
async def server(world: World) -> Instance:
    return await world.boot()


@pytest.fixture
async def volume(world: World, server: Instance) -> Volume:
    """Attached to it, as /dev/vdb."""
    made = await world.create()
    await world.attach(server, made)
    return await world.settled(made.id)


def machine(world: World, server: Instance) -> dict[str, str] | None:
    return world.hypervisor.host.machines.get(server.uuid)


async def stopped(world: World, server: Instance) -> Instance:
    await world.servers.stop(world.ctx, server=server.uuid)
    return await world.settled_server(server.uuid)


async def started(world: World, server: Instance) -> Instance:
    await world.servers.start(world.ctx, server=server.uuid)
    return await world.settled_server(server.uuid)


async def test_a_stopped_server_has_no_machine_and_keeps_its_volumes(world: World, server: Instance, volume: Volume) -> None:
    found = await stopped(world, server)
    assert (found.vm_state, found.task_state, found.power_state) == (VmState.STOPPED, None, PowerState.SHUTDOWN)
    assert found.status == "SHUTOFF"
    assert machine(world, server) is None
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE
    assert (await world.doctor.audit()).violations == ()


async def test_a_started_server_has_its_volumes_again_under_their_names(world: World, server: Instance, volume: Volume) -> None:
    await stopped(world, server)
    found = await started(world, server)
    assert (found.status, found.power_state) == ("ACTIVE", PowerState.RUNNING)
    assert machine(world, server) == {volume.id: "/dev/vdb"}
    assert found.launched_at == server.launched_at


@pytest.mark.parametrize("kind", list(RebootType))
async def test_a_rebooted_server_has_another_machine_with_the_same_volumes(
    world: World, server: Instance, volume: Volume, kind: RebootType
) -> None:
    await world.servers.reboot(world.ctx, server=server.uuid, reboot_type=kind)
    assert (await world.settled_server(server.uuid)).status == "ACTIVE"
    assert machine(world, server) == {volume.id: "/dev/vdb"}
    assert [call.method for call in world.hypervisor.calls if call.method in {"power_off", "spawn"}] == [
        "spawn",
        "power_off",
        "spawn",
    ]


async def test_asking_twice_for_what_is_being_done_does_nothing(world: World, server: Instance) -> None:
    gate = world.hypervisor.hold("power_off")
    for _ in range(2):
        await world.servers.stop(world.ctx, server=server.uuid)
    gate.set()
    assert (await world.settled_server(server.uuid)).status == "SHUTOFF"
    assert [row.saga for row in await world.ended_flows()].count("stop") == 1


async def test_the_wrong_state_is_named_with_the_wanted_one(world: World, server: Instance) -> None:
    with pytest.raises(InstanceInvalidState, match=r"vm_state active.*Cannot start .*wanted: stopped, with no task"):
        await world.servers.start(world.ctx, server=server.uuid)
    await stopped(world, server)
    with pytest.raises(InstanceInvalidState, match=r"Cannot stop .*wanted: active, with no task"):
        await world.servers.stop(world.ctx, server=server.uuid)
    with pytest.raises(InstanceInvalidState, match=r"Cannot reboot .*wanted: active, with no task"):
        await world.servers.reboot(world.ctx, server=server.uuid)
    with pytest.raises(InstanceInvalidState, match=r"Cannot attach_volume"):
        await world.attach(server, await world.create("another"))


async def test_a_stopped_server_can_be_rebooted_hard(world: World, server: Instance) -> None:
    await stopped(world, server)
    await world.servers.reboot(world.ctx, server=server.uuid, reboot_type=RebootType.HARD)
    assert (await world.settled_server(server.uuid)).status == "ACTIVE"


async def test_a_volume_leaves_a_stopped_server_and_is_not_plugged_again(world: World, server: Instance, volume: Volume) -> None:
    await stopped(world, server)
    await world.detach(server, volume)
    assert (await world.settled(volume.id)).status is VolumeStatus.AVAILABLE
    await started(world, server)
    assert machine(world, server) == {}


async def test_a_disk_whose_detachment_is_only_asked_for_is_there_after_a_reboot(
    world: World, server: Instance, volume: Volume
) -> None:
    (held,) = volume.volume_attachment
    await world.volumes.begin_detaching(world.ctx, volume_id=volume.id, attachment_id=held.id)
    await world.servers.reboot(world.ctx, server=server.uuid, reboot_type=RebootType.HARD)
    assert (await world.settled_server(server.uuid)).status == "ACTIVE"
    await world.volumes.roll_detaching(world.ctx, volume_id=volume.id, attachment_id=held.id)
    assert machine(world, server) == {volume.id: "/dev/vdb"}


async def test_a_disk_whose_detachment_has_begun_is_not_plugged_again_by_a_reboot(
    world: World, server: Instance, volume: Volume
) -> None:
    (held,) = volume.volume_attachment
    await world.volumes.begin_detaching(world.ctx, volume_id=volume.id, attachment_id=held.id)
    begun = FlowRow(id="parked", saga="detach_volume", subject=f"volume:{volume.id}", owner="", state=FlowState.PARKED)
    await Journal(world.database, world.clock).open(begun)
    await world.servers.reboot(world.ctx, server=server.uuid, reboot_type=RebootType.HARD)
    assert (await world.settled_server(server.uuid)).status == "ACTIVE"
    assert machine(world, server) == {}


async def test_a_server_that_cannot_be_stopped_is_active_and_says_why(
    world: World, server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hypervisor.script.fail_next("power_off", HypervisorRefused(name="vm", command="power_off", reason="scripted"))
    found = await stopped(world, server)
    assert found.status == "ACTIVE"
    assert found.fault is not None
    assert "could not stop: The machine vm refused power_off: scripted" in found.fault.message
    assert machine(world, server) == {}


async def test_a_start_whose_volume_is_refused_leaves_no_machine_and_can_be_tried_again(
    world: World, server: Instance, volume: Volume
) -> None:
    await stopped(world, server)
    for _ in range(2):
        world.hypervisor.script.fail_next("attach_volume", HypervisorRefused(name="vm", command="attach_volume", reason="scripted"))
    found = await started(world, server)
    assert found.status == "SHUTOFF"
    assert found.fault is not None
    assert "could not start" in found.fault.message
    assert machine(world, server) is None
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE
    world.hypervisor.script.clear()
    assert (await started(world, server)).status == "ACTIVE"
    assert machine(world, server) == {volume.id: "/dev/vdb"}


async def test_a_reboot_that_fails_is_an_error_which_a_hard_reboot_mends(world: World, server: Instance, volume: Volume) -> None:
    world.hypervisor.script.fail_next("spawn", HypervisorRefused(name="vm", command="spawn", reason="scripted"))
    await world.servers.reboot(world.ctx, server=server.uuid)
    found = await world.settled_server(server.uuid)
    assert found.status == "ERROR"
    assert found.fault is not None
    assert "could not reboot" in found.fault.message
    await world.servers.reboot(world.ctx, server=server.uuid, reboot_type=RebootType.HARD)
    assert (await world.settled_server(server.uuid)).status == "ACTIVE"
    assert machine(world, server) == {volume.id: "/dev/vdb"}


async def test_an_answer_that_was_lost_is_asked_for_again(world: World, server: Instance, volume: Volume) -> None:
    world.hypervisor.script.fail_next("power_off", HypervisorUnavailable(name="vm", reason="scripted"))
    assert (await stopped(world, server)).status == "SHUTOFF"
    world.hypervisor.script.fail_next("spawn", HypervisorUnavailable(name="vm", reason="scripted"))
    assert (await started(world, server)).status == "ACTIVE"
    assert machine(world, server) == {volume.id: "/dev/vdb"}


async def test_a_stopped_server_is_deleted_and_its_volume_comes_free(world: World, server: Instance, volume: Volume) -> None:
    await stopped(world, server)
    await world.servers.delete(world.ctx, server=server.uuid)
    assert await world.server_is_gone(server.uuid)
    assert (await world.settled(volume.id)).status is VolumeStatus.AVAILABLE


async def test_a_volume_that_is_to_go_with_its_server_goes_and_the_other_stays(
    world: World, server: Instance, volume: Volume
) -> None:
    kept = await world.create("kept")
    await world.attach(server, kept)
    await world.settled(kept.id)
    await world.servers.set_delete_on_termination(world.ctx, server=server.uuid, volume=volume.id, delete_on_termination=True)
    rows = await world.servers.volume_attachments(world.ctx, server=server.uuid)
    assert {row.volume_id: row.delete_on_termination for row in rows} == {volume.id: True, kept.id: False}
    await world.servers.delete(world.ctx, server=server.uuid)
    assert await world.server_is_gone(server.uuid)
    await until(lambda: is_gone(world, volume.id))
    assert (await world.settled(kept.id)).status is VolumeStatus.AVAILABLE


async def is_gone(world: World, volume_id: str) -> bool:
    try:
        await world.volumes.get(world.ctx, volume_id=volume_id)
    except NotFound:
        return True
    return False


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.05)


@pytest.fixture
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.app.reconciling.RECONCILE_INTERVAL_S", 0.5)
    monkeypatch.setattr("common.app.reconciling.RECONCILE_RECHECK_S", 0.2)
    monkeypatch.setattr("common.base.settling.RECONCILE_GRACE_S", 0.5)


@pytest.mark.usefixtures("_fast")
async def test_a_stopped_server_is_no_dead_one_and_a_machine_that_runs_all_the_same_is_ended(
    world: World, server: Instance, volume: Volume
) -> None:
    await stopped(world, server)
    world.hypervisor.host.machines[server.uuid] = {}

    async def is_off() -> bool:
        return machine(world, server) is None

    await until(is_off)
    found = await world.servers.get(world.ctx, server=server.uuid)
    assert (found.status, found.fault) == ("SHUTOFF", None)
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE


@pytest.mark.usefixtures("_fast")
@pytest.mark.parametrize("saga", ["stop", "start", "reboot"])
async def test_an_order_that_was_lost_is_given_again_by_the_hosts_own_round(
    world: World, server: Instance, saga: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if saga == "start":
        await stopped(world, server)
    begin, lost = Runner.start, list[str]()

    async def start(self: Runner, flow: Flow[Any, Any]) -> bool:
        if flow.saga.name == saga and not lost:
            lost.append(flow.id)
            return True
        return await begin(self, flow)

    monkeypatch.setattr(Runner, "start", start)
    ask = {"stop": world.servers.stop, "start": world.servers.start, "reboot": world.servers.reboot}[saga]
    await ask(world.ctx, server=server.uuid)
    found = await world.settled_server(server.uuid)
    assert found.status == ("SHUTOFF" if saga == "stop" else "ACTIVE")
    assert len(lost) == 1
