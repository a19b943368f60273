"""force-detach and reset-state: whoever may write is out before the status says so, and nova follows by itself."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import select

from cinder_lite.contract import AttachStatus, Volume, VolumeStatus
from cinder_lite.errors import InvalidInput, InvalidVolume
from common.base.errors import Fault
from common.db.journal import FlowRow, FlowState, Journal
from common.db.tables import state_history
from common.testing.script import When
from nova_lite.contract import Instance
from tests.support.world import World


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.app.reconciling.RECONCILE_INTERVAL_S", 0.5)
    monkeypatch.setattr("common.base.settling.RECONCILE_GRACE_S", 1.0)
    monkeypatch.setattr("common.app.doctor.RECHECK_S", 0.1)


@pytest.fixture
async def used(world: World) -> tuple[Instance, Volume]:
    server, volume = await world.boot(), await world.create("used")
    await world.attach(server, volume)
    found = await world.settled(volume.id)
    await world.ended_flows()
    return server, found


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.1)


async def events(world: World, subject: str) -> list[str]:
    async with world.database.begin(read_only=True) as conn:
        query = select(state_history.c.event).where(state_history.c.subject == subject).order_by(state_history.c.id)
        return list((await conn.execute(query)).scalars())


async def is_clean(world: World) -> bool:
    before = await world.flows()
    if any(row.state == "running" for row in before):
        return False
    return not (await world.doctor.audit()).violations and await world.flows() == before


async def test_after_a_force_detach_nobody_is_let_in_and_the_machine_loses_the_disk(
    world: World, used: tuple[Instance, Volume]
) -> None:
    server, volume = used
    assert await world.target.connections() != {}
    found = await world.volumes.force_detach(world.ctx, volume_id="used")
    assert (found.status, found.volume_attachment) == (VolumeStatus.AVAILABLE, ())
    assert await world.target.connections() == {}
    assert found.messages[0].event_id == "VOLUME_FORCE_DETACHED"
    assert server.uuid in found.messages[0].user_message
    assert "tester" in found.messages[0].user_message
    assert (await events(world, volume.id))[-1] == "detached"

    async def is_let_go() -> bool:
        return world.hypervisor.host.machines == {server.uuid: {}} and await world.mappings.list(server.uuid) == []

    await until(is_let_go)
    await until(lambda: is_clean(world))
    again = await world.attach(server, found)
    assert again.volume_id == volume.id
    assert (await world.settled(volume.id)).status is VolumeStatus.IN_USE


async def test_whoever_cannot_be_put_out_keeps_the_volume(world: World, used: tuple[Instance, Volume]) -> None:
    _, volume = used
    world.target.script.fail_next("terminate_connection", InvalidVolume(reason="x"), When.BEFORE, times=10)
    with pytest.raises(Fault):
        await world.volumes.force_detach(world.ctx, volume_id=volume.id)
    found = await world.volumes.get(world.ctx, volume_id=volume.id)
    assert (found.status, len(found.volume_attachment)) == (VolumeStatus.IN_USE, 1)


async def test_a_volume_that_nobody_holds_is_not_detached_and_the_answer_says_what_it_is(world: World) -> None:
    volume = await world.create()
    with pytest.raises(InvalidVolume, match=r"is available and its attachments are: none; wanted: one attachment.*lite where"):
        await world.volumes.force_detach(world.ctx, volume_id=volume.id)
    with pytest.raises(InvalidVolume, match="wanted: attachment a9"):
        await world.volumes.force_detach(world.ctx, volume_id=volume.id, attachment_id="a9")


async def test_to_available_is_a_force_detach(world: World, used: tuple[Instance, Volume]) -> None:
    found = await world.volumes.reset_status(world.ctx, volume_id="used", status="available")
    assert (found.status, found.volume_attachment) == (VolumeStatus.AVAILABLE, ())
    assert {said.event_id for said in found.messages} == {"VOLUME_FORCE_DETACHED", "VOLUME_RESET"}


async def test_to_error_and_back_to_available_if_the_backend_keeps_it(world: World) -> None:
    volume = await world.create()
    found = await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="error")
    assert (found.status, found.messages[0].event_id) == (VolumeStatus.ERROR, "VOLUME_RESET")
    assert (await events(world, volume.id))[-1] == "reset_error"
    kept = world.driver.sizes.pop(volume.name)
    with pytest.raises(InvalidVolume, match=f"does not keep {volume.name}"):
        await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="available")
    world.driver.sizes[volume.name] = kept
    found = await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="available")
    assert (found.status, (await events(world, volume.id))[-1]) == (VolumeStatus.AVAILABLE, "reset_available")


async def test_to_in_use_only_where_an_attachment_is_attached(world: World, used: tuple[Instance, Volume]) -> None:
    _, volume = used
    (held,) = volume.volume_attachment
    await world.volumes.begin_detaching(world.ctx, volume_id=volume.id, attachment_id=held.id)
    found = await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="in-use")
    assert (found.status, found.volume_attachment[0].attach_status) == (VolumeStatus.IN_USE, AttachStatus.ATTACHED)
    await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="error")
    found = await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="in-use")
    assert (found.status, (await events(world, volume.id))[-1]) == (VolumeStatus.IN_USE, "reset_in_use")
    free = await world.create("free")
    with pytest.raises(InvalidVolume, match="is available and has no attachment that is attached"):
        await world.volumes.reset_status(world.ctx, volume_id=free.id, status="in-use")


async def test_what_is_refused_names_the_flow_and_a_wrong_word_the_right_ones(world: World) -> None:
    volume = await world.create()
    row = FlowRow(
        id="f", saga="detach_volume", subject=f"volume:{volume.id}", owner="nova-compute.cmp9#1", home="nova-compute.cmp9"
    )
    await Journal(world.database, world.clock).open(row)
    with pytest.raises(
        InvalidVolume, match=r"is available and was to be reset to error, but flow f is at work on it.*lite flow show"
    ):
        await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="error")
    await Journal(world.database, world.clock).finish("f", FlowState.COMPLETED, fence=1)
    with pytest.raises(InvalidInput, match="wanted: available, error or in-use"):
        await world.volumes.reset_status(world.ctx, volume_id=volume.id, status="deleted")
