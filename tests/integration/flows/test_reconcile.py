"""What is broken behind the services' backs heals by their own rounds, and `lite doctor --strict` is content afterwards.

Rounds come ten times as often here, and the grace is as much shorter: what takes a second takes ten outside.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import update

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.store.tables import volumes
from cinder_lite.store.volumes import Volumes
from cinder_lite.targets.fake import FakeExport
from common.base.errors import Broken
from common.db.errors import DatabaseBusy
from common.db.journal import FlowRow, FlowState, Journal
from common.flow.runner import Runner
from common.flow.steps import Flow
from common.testing.script import When
from nova_lite.contract import Instance, VmState
from nova_lite.errors import DeviceDetachFailed, HypervisorUnavailable
from nova_lite.store.instances import Instances
from tests.support.world import HOST, INITIATOR, World

T_S = 6.0
"""Sixty seconds, ten times as fast."""
FOREIGN = "iqn.2010-10.org.openstack:cmp9"


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.app.reconciling.RECONCILE_INTERVAL_S", 1.0)
    monkeypatch.setattr("common.app.reconciling.RECONCILE_RECHECK_S", 0.2)
    monkeypatch.setattr("common.base.settling.RECONCILE_GRACE_S", 1.0)
    monkeypatch.setattr("cinder_lite.store.settle.RECONCILE_GRACE_S", 1.0)
    monkeypatch.setattr("cinder_lite.service.wiring.RECONCILE_INTERVAL_S", 0.5)
    monkeypatch.setattr("common.app.doctor.RECHECK_S", 0.1)


class Sound:
    """A world with one server that has one volume, and one volume that nobody has."""

    def __init__(self, world: World, server: Instance, used: Volume, free: Volume) -> None:
        self.world, self.server, self.used, self.free = world, server, used, free

    @property
    def machines(self) -> dict[str, dict[str, str]]:
        return self.world.hypervisor.host.machines

    @property
    def served(self) -> dict[str, FakeExport]:
        return self.world.target.served

    @property
    def iqn(self) -> str:
        return self.world.target.export_name(self.used)

    async def heals(self, *, into: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Returns when everything agrees again, which the doctor says, and `into` does."""

        async def is_whole() -> bool:
            before = await self.world.flows()
            if any(row.state == "running" for row in before) or (into is not None and not await into()):
                return False
            # The doctor says nothing about what is in motion.
            return not (await self.world.doctor.audit()).violations and await self.world.flows() == before

        await until(is_whole)

    async def begun(self, saga: str) -> list[FlowRow]:
        return [row for row in await self.world.flows() if row.saga == saga]

    async def mappings(self) -> list[str | None]:
        return [row.volume_id for row in await self.world.mappings.list(self.server.uuid)]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Returns once it does. Raises TimeoutError after T_S."""
    async with asyncio.timeout(T_S):
        while not await holds():  # noqa: ASYNC110 - rows have no event
            await asyncio.sleep(0.1)


@pytest.fixture
async def sound(world: World) -> Sound:
    server, used, free = await world.boot(), await world.create("used", 2), await world.create("free", 3)
    await world.attach(server, used)
    used = await world.settled(used.id)
    await world.ended_flows()
    return Sound(world, server, used, free)


def lose(monkeypatch: pytest.MonkeyPatch, saga: str) -> None:
    """The next order for a flow of that saga is lost on the way."""
    begin = Runner.start
    lost: list[str] = []

    async def start(self: Runner, flow: Flow[Any, Any]) -> bool:
        if flow.saga.name == saga and not lost:
            lost.append(flow.id)
            return True
        return await begin(self, flow)

    monkeypatch.setattr(Runner, "start", start)


async def test_a_target_that_lost_everything_exports_again_to_the_same_host(sound: Sound) -> None:
    chap = sound.served[sound.iqn].chap
    sound.served.clear()
    await sound.heals()
    assert sound.served == {sound.iqn: FakeExport(f"/fake/vault/{sound.used.name}", chap, {INITIATOR})}
    assert [row.state for row in await sound.begun("restore_export")] == ["completed"]


async def test_a_host_that_is_let_in_no_longer_is_let_in_again(sound: Sound) -> None:
    sound.served[sound.iqn].acl.clear()
    await sound.heals()
    assert sound.served[sound.iqn].acl == {INITIATOR}


async def test_a_stranger_is_put_out(sound: Sound) -> None:
    sound.served[sound.iqn].acl.add(FOREIGN)
    sound.served[sound.iqn].sessions.add(FOREIGN)
    await sound.heals()
    assert (sound.served[sound.iqn].acl, sound.served[sound.iqn].sessions) == ({INITIATOR}, set())


async def test_an_export_that_nobody_holds_is_removed(sound: Sound) -> None:
    sound.served[sound.world.target.export_name(sound.free)] = FakeExport(f"/fake/vault/{sound.free.name}", None, {FOREIGN})
    await sound.heals()
    assert set(sound.served) == {sound.iqn}


async def test_an_export_and_the_bytes_of_a_deleted_volume_are_removed(sound: Sound) -> None:
    await sound.world.volumes.delete(sound.world.ctx, volume_id=sound.free.id)

    async def is_gone() -> bool:
        return sound.free.name not in sound.world.driver.sizes

    await until(is_gone)
    await sound.world.ended_flows()
    sound.world.driver.sizes[sound.free.name] = sound.free.size
    sound.served[sound.world.target.export_name(sound.free)] = FakeExport(f"/fake/vault/{sound.free.name}", None)
    await sound.heals()
    assert set(sound.world.driver.sizes) == {sound.used.name}
    assert set(sound.served) == {sound.iqn}


async def test_a_row_that_says_it_is_exported_is_cleared(sound: Sound) -> None:
    change = (
        update(volumes).where(volumes.c.id == sound.free.id).values(provider_location="x", provider_auth="CHAP u hunter2hunter2")
    )
    await sound.world.database.run(lambda conn: conn.execute(change))
    await sound.heals()
    assert (await sound.world.volumes.get(sound.world.ctx, volume_id=sound.free.id)).provider_location is None


async def test_a_machine_that_died_is_an_error_and_its_volume_becomes_available(sound: Sound) -> None:
    sound.world.hypervisor.host.kill(sound.server.uuid)
    await sound.heals()
    server = await sound.world.servers.get(sound.world.ctx, server=sound.server.uuid)
    assert (server.vm_state, server.task_state) == (VmState.ERROR, None)
    assert server.fault is not None
    assert "is not alive" in server.fault.message
    assert (await sound.world.settled(sound.used.id)).status is VolumeStatus.AVAILABLE
    assert (await sound.mappings(), sound.served, sound.world.hypervisor.host.leftovers) == ([], {}, {})
    await sound.world.servers.delete(sound.world.ctx, server=sound.server.uuid)
    assert await sound.world.server_is_gone(sound.server.uuid)


async def test_a_machine_that_died_is_cleared_up_after_also_when_its_fault_could_not_be_written_at_once(
    sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failed = Instances.add_fault, list[str]()

    async def add_fault(self: Instances, uuid: str, *args: Any, **values: Any) -> None:
        if not failed:
            failed.append(uuid)
            raise DatabaseBusy(url="sqlite://", reason="database is locked")
        await write(self, uuid, *args, **values)

    monkeypatch.setattr(Instances, "add_fault", add_fault)
    sound.world.hypervisor.host.kill(sound.server.uuid)
    await sound.heals()
    server = await sound.world.servers.get(sound.world.ctx, server=sound.server.uuid)
    assert failed == [sound.server.uuid]
    assert (server.vm_state, server.fault is not None) == (VmState.ERROR, True)
    assert (await sound.world.settled(sound.used.id)).status is VolumeStatus.AVAILABLE
    assert sound.world.hypervisor.host.leftovers == {}


async def test_a_disk_that_is_missing_is_plugged_in_again(sound: Sound) -> None:
    del sound.machines[sound.server.uuid][sound.used.id]
    sound.world.connector.connected.clear()
    await sound.heals()
    assert sound.machines == {sound.server.uuid: {sound.used.id: "/dev/vdb"}}
    assert sound.world.connector.connected == {sound.used.id}


async def test_a_disk_that_nobody_knows_is_taken_away(sound: Sound) -> None:
    sound.machines[sound.server.uuid][sound.free.id] = "/dev/vdz"
    sound.world.connector.connected.add(sound.free.id)
    await sound.heals()
    assert sound.machines == {sound.server.uuid: {sound.used.id: "/dev/vdb"}}
    assert sound.world.connector.connected == {sound.used.id}


async def test_a_connection_that_no_machine_uses_is_ended(sound: Sound) -> None:
    sound.world.connector.connected.add(sound.free.id)
    await sound.heals()
    assert sound.world.connector.connected == {sound.used.id}


async def test_the_machine_of_a_deleted_server_is_ended_and_so_is_what_is_left_of_it(sound: Sound) -> None:
    other = await sound.world.boot("other")
    await sound.world.servers.delete(sound.world.ctx, server=other.uuid)
    await sound.world.server_is_gone(other.uuid)
    await sound.world.ended_flows()
    sound.machines[other.uuid] = {}
    await sound.heals()
    assert set(sound.machines) == {sound.server.uuid}
    sound.world.hypervisor.host.leftovers[other.uuid] = ["/fake/x"]
    await sound.heals()
    assert sound.world.hypervisor.host.leftovers == {}


async def test_a_machine_that_no_row_knows_is_left_alone(sound: Sound) -> None:
    stray = "00000000-0000-4000-8000-000000000001"
    sound.machines[stray] = {}
    await asyncio.sleep(3)
    assert stray in sound.machines
    assert [found.subject for found in (await sound.world.doctor.audit()).violations] == [f"server:{stray}"]


async def test_an_attachment_that_is_over_in_cinder_is_over_in_the_machine_too(sound: Sound) -> None:
    (held,) = sound.used.volume_attachment
    await sound.world.volumes.detach(sound.world.ctx, volume_id=sound.used.id, attachment_id=held.id)
    await sound.heals(into=lambda: is_free(sound))
    assert sound.machines == {sound.server.uuid: {}}


async def is_free(sound: Sound) -> bool:
    found = await sound.world.volumes.get(sound.world.ctx, volume_id=sound.used.id)
    return found.status is VolumeStatus.AVAILABLE and await sound.mappings() == []


@pytest.mark.parametrize("saga", ["attach_volume", "detach_volume", "boot", "delete", "create_volume", "delete_volume"])
async def test_an_order_that_was_lost_is_carried_out_all_the_same(sound: Sound, monkeypatch: pytest.MonkeyPatch, saga: str) -> None:
    world, ctx = sound.world, sound.world.ctx
    lose(monkeypatch, saga)
    match saga:
        case "attach_volume":
            await world.attach(sound.server, sound.free)
        case "detach_volume":
            await world.detach(sound.server, sound.used)
        case "boot":
            await world.servers.create(ctx, name="late", flavor="m1.small")
        case "delete":
            await world.servers.delete(ctx, server=sound.server.uuid)
        case "create_volume":
            await world.volumes.create(ctx, size=1, name="late")
        case "delete_volume":
            await world.volumes.delete(ctx, volume_id=sound.free.id)

    async def is_done() -> bool:
        found = await sound.begun(saga)
        return bool(found) and found[-1].state == "completed" and all(row.state == "completed" for row in await world.flows())

    known = len(await sound.begun(saga))

    async def is_more() -> bool:
        return len(await sound.begun(saga)) > known and await is_done()

    await sound.heals(into=is_more)
    if saga in {"attach_volume", "boot"}:
        (last,) = [row for row in await world.flows() if row.saga == f"request_{saga.removesuffix('_volume')}"][-1:]
        assert (await sound.begun(saga))[-1].request_id == last.request_id


async def test_a_volume_whose_order_to_the_scheduler_was_lost_is_placed(sound: Sound) -> None:
    world = sound.world
    row = Volume(id="00000000-0000-4000-8000-000000000009", size=1, status=VolumeStatus.CREATING, display_name="lost")
    await Volumes(world.database, world.clock).create(row)
    async with asyncio.timeout(T_S):
        assert (await world.settled(row.id)).status is VolumeStatus.AVAILABLE


async def test_what_a_flow_works_on_is_left_alone_but_for_an_export_that_is_lost(sound: Sound) -> None:
    """A flow of another home, which nobody here carries on: it may be waiting for just that export."""
    world = sound.world
    row = FlowRow(
        id="f", saga="detach_volume", subject=f"volume:{sound.used.id}", owner="nova-compute.cmp9#1", home="nova-compute.cmp9"
    )
    await Journal(world.database, world.clock).open(row)
    sound.served.clear()
    del sound.machines[sound.server.uuid][sound.used.id]
    await asyncio.sleep(3)
    assert len(sound.served) == 1
    assert sound.machines[sound.server.uuid] == {}
    await Journal(world.database, world.clock).finish("f", FlowState.COMPLETED, fence=1)
    await sound.heals()


async def test_of_a_part_that_does_not_answer_nothing_is_decided(sound: Sound) -> None:
    world = sound.world
    world.target.script.fail_next("connections", Broken(what="tgtd", reason="x"), When.BEFORE, times=1000)
    world.connector.script.fail_next("connections", HypervisorUnavailable(name="x", reason="x"), When.BEFORE, times=1000)
    world.hypervisor.host.kill(sound.server.uuid)
    sound.served.clear()
    await asyncio.sleep(3)
    assert await sound.begun("settle_machine") == []
    assert await sound.begun("restore_export") == []


async def test_what_fails_is_tried_again_and_again_more_seldom(sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    world = sound.world
    world.hypervisor.script.fail_next(
        "detach_volume", DeviceDetachFailed(device="/dev/vdz", name="x", timeout_s=1), When.BEFORE, times=1000
    )
    sound.machines[sound.server.uuid][sound.free.id] = "/dev/vdz"
    await asyncio.sleep(5)
    assert [row.state for row in await sound.begun("remove_disk")] == ["compensated"]


async def test_asked_for_it_mends_at_once_and_says_what(sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pause that runs now is the last short one, so that no round of its own comes before the one that is asked for.
    monkeypatch.setattr("common.app.reconciling.RECONCILE_INTERVAL_S", 3600.0)
    await asyncio.sleep(1.2)
    sound.served.clear()
    sound.machines[sound.server.uuid][sound.free.id] = "/dev/vdz"
    done = await sound.world.doctor.mend()
    assert any(f"volume:{sound.used.id}: restore_export" in line for line in done)
    assert any(f"volume:{sound.free.id}: remove_disk" in line for line in done)
    assert all(line.startswith(HOST) for line in done)
    await sound.heals()
