"""Orders whose work somebody else has done meanwhile: what the order was about is whoever's uses it by now, and stays as it is."""

from collections.abc import Collection

import pytest

from cinder_lite.contract import VolumeStatus
from common.app.following import follow
from common.db.journal import FlowRow
from common.flow.steps import TooLate
from nova_lite.contract import RebootType
from tests.support.world import World


async def refusal(world: World, saga: str, *, known: Collection[str] = ()) -> str:
    """Why the flow of that saga was refused."""

    async def look() -> list[FlowRow]:
        return [row for row in await world.flows() if row.saga == saga and row.id not in known]

    (found,) = await follow(
        look,
        is_final=lambda rows: any(row.state != "running" for row in rows),
        shown=str,
        tell=lambda _: None,
        clock=world.clock,
        what=f"a flow of {saga}",
        timeout_s=30,
    )
    assert found.state == "compensated"
    assert found.error is not None
    return found.error


@pytest.mark.parametrize("is_attached", [False, True])
async def test_a_volume_that_is_not_deleting_keeps_its_bytes_its_export_and_its_status(world: World, is_attached: bool) -> None:
    server, volume = await world.boot(), await world.create()
    if is_attached:
        await world.attach(server, volume)
    before = await world.settled(volume.id)
    exports = dict(world.target.served)
    await world.backend.delete_volume(world.ctx, volume=volume)
    wanted = TooLate(kind="volume", name=volume.id, found=before.status, expected=VolumeStatus.DELETING)
    assert await refusal(world, "delete_volume") == str(wanted)
    assert await world.settled(volume.id) == before
    assert before.messages == ()
    assert volume.name in world.driver.sizes
    assert world.target.served == exports


async def test_a_snapshot_that_is_not_deleting_stays(world: World) -> None:
    volume = await world.create()
    made = await world.volumes.create_snapshot(world.ctx, volume_id=volume.id, name="kept")
    before = await world.settled_snapshot(made.id)
    await world.backend.delete_snapshot(world.ctx, snapshot=before)
    assert "is available by now; wanted: deleting" in await refusal(world, "delete_snapshot")
    assert await world.settled_snapshot(made.id) == before
    assert before.name in world.driver.snapshots


async def test_what_is_deleted_already_stays_deleted(world: World) -> None:
    volume = await world.create()
    await world.volumes.delete(world.ctx, volume_id=volume.id)
    assert await world.volume_is_gone(volume.id)
    done = {row.id for row in await world.ended_flows()}
    await world.backend.delete_volume(world.ctx, volume=volume)
    assert "is deleted by now" in await refusal(world, "delete_volume", known=done)


@pytest.mark.parametrize(
    ("saga", "wanted"),
    [("stop", "powering-off"), ("start", "powering-on"), ("reboot", "rebooting or rebooting_hard"), ("delete", "deleting")],
)
async def test_a_machine_of_which_nothing_is_asked_any_more_runs_on(world: World, saga: str, wanted: str) -> None:
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    before, compute = await world.settled_server(server.uuid), world.compute
    calls = len(world.hypervisor.calls)
    match saga:
        case "stop":
            await compute.stop_instance(world.ctx, instance=server)
        case "start":
            await compute.start_instance(world.ctx, instance=server)
        case "reboot":
            await compute.reboot_instance(world.ctx, instance=server, reboot_type=RebootType.HARD)
        case _:
            await compute.terminate_instance(world.ctx, instance=server)
    assert await refusal(world, saga) == f"The order came too late: server {server.uuid} is active by now; wanted: {wanted}."
    assert await world.settled_server(server.uuid) == before
    assert before.fault is None
    assert [call.method for call in world.hypervisor.calls[calls:] if call.method in {"power_off", "spawn", "destroy"}] == []
    assert world.hypervisor.host.machines == {server.uuid: {volume.id: "/dev/vdb"}}
