"""`lite doctor` on a world that is disturbed by hand: it finds that, and nothing else."""

import asyncio
import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from cinder_lite.contract import BackendInventory, Volume
from cinder_lite.store.tables import volume_attachment, volumes
from cinder_lite.targets.fake import FakeExport
from common.app.auditing import Audit
from common.base.ids import new_uuid
from common.base.violation import UNKNOWN
from common.db.hosts import Hosts
from common.db.journal import FlowRow, Journal
from common.db.tables import flows
from common.testing.script import When
from nova_lite.contract import HostInventory, Instance
from nova_lite.errors import HypervisorUnavailable
from nova_lite.store.tables import block_device_mapping, instances
from tests.support.world import BACKEND, HOST, INITIATOR, World

STRAY = new_uuid()
FOREIGN = "iqn.2010-10.org.openstack:cmp9"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.app.doctor.RECHECK_S", 0.05)


class Sound:
    """A world with one server that has one volume, and one volume that nobody has."""

    def __init__(self, world: World, server: Instance, used: Volume, free: Volume) -> None:
        self.world, self.server, self.used, self.free = world, server, used, free

    @property
    def disks(self) -> dict[str, str]:
        return self.world.hypervisor.host.machines[self.server.uuid]

    @property
    def export(self) -> FakeExport:
        (found,) = self.world.target.served.values()
        return found

    async def set(self, table, key, **values) -> None:
        await self.world.database.run(lambda conn: conn.execute(update(table).where(table.c[key[0]] == key[1]).values(**values)))

    async def audit(self) -> Audit:
        return await self.world.doctor.audit()


@pytest.fixture
async def sound(world: World) -> Sound:
    server, used, free = await world.boot(), await world.create("used", 2), await world.create("free", 3)
    await world.attach(server, used)
    used = await world.settled(used.id)
    await world.ended_flows()
    return Sound(world, server, used, free)


async def test_nothing_is_wrong_and_it_says_how_much_was_looked_at(sound: Sound) -> None:
    audit = await sound.audit()
    assert audit.violations == ()
    assert audit.checked == {"services": 5, "snapshots": 0, "volumes": 2, "backends": 1, "servers": 1, "hosts": 1}


async def test_nothing_is_wrong_with_an_empty_world(world: World) -> None:
    assert (await world.doctor.audit()).violations == ()


def session(sound: Sound) -> None:
    sound.export.acl |= {FOREIGN}
    sound.export.sessions |= {INITIATOR, FOREIGN}


DISTURBANCES: dict[str, tuple[Callable[[Sound], object], str, str, str]] = {
    "a disk was taken from the machine": (lambda s: s.disks.pop(s.used.id), "S8", "used", "has no such disk"),
    "a disk has another name": (lambda s: s.disks.update({s.used.id: "/dev/vdz"}), "S8", "used", "/dev/vdz"),
    "a disk that nobody knows": (lambda s: s.disks.update({s.free.id: "/dev/vdz"}), "L3", "free", "no row of nova knows"),
    "the export is gone": (lambda s: s.world.target.served.clear(), "S8", "used", "does not export"),
    "the host is let in no longer": (lambda s: s.export.acl.clear(), "S8", "used", "is not let in"),
    "a stranger is let in": (lambda s: s.export.acl.add(FOREIGN), "L3", "used", FOREIGN),
    "a stranger has a session": (lambda s: s.export.sessions.add(FOREIGN), "S2", "used", FOREIGN),
    "two have sessions": (session, "S1", "used", "2 sessions"),
    "it serves other bytes": (lambda s: setattr(s.export, "path", "/etc/passwd"), "S12", "used", "/etc/passwd"),
    "a free volume is exported": (
        lambda s: s.world.target.served.update({s.world.target.export_name(s.free): FakeExport(f"/fake/{s.free.name}", None)}),
        "L3", "free", "has no attachment",
    ),
    "a volume without a row": (lambda s: s.world.driver.sizes.update({f"volume-{STRAY}": 1}), "L3", "stray", "no row of that backend"),
    "a row without a volume": (lambda s: s.world.driver.sizes.pop(s.free.name), "L3", "free", "does not keep it"),
    "a volume of another size": (lambda s: s.world.driver.sizes.update({s.free.name: 9}), "S13", "backend", "11 GiB on the backend"),
    "less room than was promised": (lambda s: setattr(s.world.driver, "total_capacity_gb", 4.0), "S13", "backend", "there are 4 GiB"),
    "a machine of nobody": (lambda s: s.world.hypervisor.host.machines.update({STRAY: {}}), "L3", "server:stray", "no such server"),
    "a dead machine's folder": (
        lambda s: s.world.hypervisor.host.leftovers.update({STRAY: ["/fake/x"]}), "L3", "server:stray", "/fake/x",
    ),
    "a hung machine": (lambda s: s.world.hypervisor.host.hung.add(s.server.uuid), UNKNOWN, "server", "does not answer"),
    "the host is connected no longer": (lambda s: s.world.connector.connected.clear(), "S8", "used", "is not connected"),
    "a connection of nobody": (lambda s: s.world.connector.connected.add(s.free.id), "L3", "free", "is connected to it"),
    "the status is not what the attachment says": (
        lambda s: s.set(volumes, ("id", s.used.id), status="available", attach_status="detached"), "S8", "used", "has attachments all the same",
    ),
    "a status that contradicts itself": (
        lambda s: s.set(volumes, ("id", s.free.id), attach_status="attached"), "S7", "free", "attach_status attached",
    ),
    "a row that says it is exported": (
        lambda s: s.set(volumes, ("id", s.free.id), provider_location="192.0.2.1:3260,1 iqn 1"), "S8", "free", "192.0.2.1",
    ),
    "credentials that nobody needs": (
        lambda s: s.set(volumes, ("id", s.free.id), provider_auth="CHAP user hunter2hunter2"), "S14", "free", "credentials",
    ),
    "another name in cinder": (
        lambda s: s.set(volume_attachment, ("volume_id", s.used.id), mountpoint="/dev/vdq"), "S8", "used", "/dev/vdq",
    ),
    "a server that is in motion for ever": (
        lambda s: s.set(instances, ("uuid", s.server.uuid), task_state="deleting", updated_at=LONG_AGO(s)), "L1", "server", "deleting",
    ),
    "a volume that is in motion for ever": (
        lambda s: s.set(volumes, ("id", s.free.id), status="deleting", updated_at=LONG_AGO(s)), "L1", "free", "deleting",
    ),
}  # fmt: skip


def LONG_AGO(sound: Sound):  # noqa: N802 - a moment
    return sound.world.clock.utcnow() - timedelta(minutes=5)


async def test_what_was_disturbed_is_found_and_nothing_else(sound: Sound) -> None:
    subjects = {
        "used": f"volume:{sound.used.id}", "free": f"volume:{sound.free.id}", "stray": f"volume:{STRAY}",
        "server": f"server:{sound.server.uuid}", "server:stray": f"server:{STRAY}", "backend": f"backend:{HOST}@{BACKEND}",
    }  # fmt: skip
    for what, (disturb, invariant, subject, words) in DISTURBANCES.items():
        async with mended_afterwards(sound):
            done = disturb(sound)
            if isinstance(done, Awaitable):
                await done
            found = (await sound.audit()).violations
        assert [(each.invariant, each.subject) for each in found] == [(invariant, subjects[subject])], (what, found)
        assert words in found[0].evidence, what
        assert "hunter2" not in str(found), what
    assert (await sound.audit()).violations == ()


@asynccontextmanager
async def mended_afterwards(sound: Sound) -> AsyncIterator[None]:
    """Fakes and rows are as before when the block has ended."""
    world = sound.world
    host, served = copy.deepcopy(world.hypervisor.host), copy.deepcopy(world.target.served)
    connected = set(world.connector.connected)
    sizes, room = dict(world.driver.sizes), world.driver.total_capacity_gb
    async with world.database.begin(read_only=True) as conn:
        rows = {table: (await conn.execute(select(table))).all() for table in (instances, volumes, volume_attachment)}
    yield
    world.hypervisor.host, world.target.served, world.connector.connected = host, served, connected
    world.driver.sizes, world.driver.total_capacity_gb = sizes, room
    for table, kept in rows.items():
        for row in kept:
            await sound.set(table, ("id", row.id), **row._mapping)


async def test_a_machine_that_died_leaves_its_folder_and_an_active_server(sound: Sound) -> None:
    sound.world.hypervisor.host.kill(sound.server.uuid)
    found = (await sound.audit()).violations
    assert [(each.invariant, each.subject) for each in found] == [(name, f"server:{sound.server.uuid}") for name in ("S8", "L3")]


async def test_one_volume_in_two_machines_is_one_finding(sound: Sound) -> None:
    other = await sound.world.boot("other")
    await sound.world.ended_flows()
    sound.world.hypervisor.host.machines[other.uuid][sound.used.id] = "/dev/vdb"
    (found,) = (await sound.audit()).violations
    assert (found.invariant, found.subject) == ("S1", f"volume:{sound.used.id}")
    assert f"{other.uuid} on {HOST} (no row knows that)" in found.evidence


async def test_a_mapping_that_is_gone_leaves_a_disk_a_connection_and_an_attachment(sound: Sound) -> None:
    (mapping,) = await sound.world.mappings.list(sound.server.uuid)
    await sound.world.mappings.destroy(mapping.uuid)
    found = (await sound.audit()).violations
    assert {(each.invariant, each.subject) for each in found} == {(name, f"volume:{sound.used.id}") for name in ("S8", "L3")}
    assert len(found) == 3


async def test_a_deleted_mapping_that_keeps_its_secrets_is_found_and_they_are_not_shown(sound: Sound) -> None:
    (mapping,) = await sound.world.mappings.list(sound.server.uuid)
    await sound.world.detach(sound.server, sound.used)
    await sound.world.settled(sound.used.id)
    await sound.world.ended_flows()
    await sound.set(block_device_mapping, ("uuid", mapping.uuid), connection_info={"data": {"auth_password": "hunter2"}})
    (found,) = (await sound.audit()).violations
    assert (found.invariant, found.subject) == ("S14", f"block_device_mapping:{mapping.uuid}")
    assert "hunter2" not in str(found)


async def test_a_service_that_does_not_answer_is_the_only_finding_about_it(sound: Sound) -> None:
    await Hosts(sound.world.database, sound.world.clock).register(
        binary="nova-compute", host="cmp9", topic="compute", availability_zone="nova"
    )
    await sound.set(instances, ("uuid", sound.server.uuid), host="cmp9")
    sound.world.hypervisor.host.machines.clear()
    sound.world.connector.connected.clear()
    await sound.set(volume_attachment, ("volume_id", sound.used.id), attached_host="cmp9")
    found = (await sound.audit()).violations
    assert [(each.invariant, each.subject) for each in found] == [(UNKNOWN, "service:nova-compute on cmp9")]
    assert "nobody listens there" in found[0].evidence


async def test_a_service_that_cannot_tell_is_a_finding_of_its_own(sound: Sound) -> None:
    fault = HypervisorUnavailable(name="x", reason="it is out for lunch")
    sound.world.connector.script.fail_next("connections", fault, When.BEFORE, times=2)
    (found,) = (await sound.audit()).violations
    assert (found.invariant, found.subject) == (UNKNOWN, f"service:nova-compute on {HOST}")
    assert "out for lunch" in found.evidence


async def test_flows_and_messages_that_nobody_takes_are_found(sound: Sound) -> None:
    journal = Journal(sound.world.database, sound.world.clock)
    for name in ("slow", "stuck", "quick"):
        await journal.open(FlowRow(id=name, saga="boot", subject=f"server:{new_uuid()}", owner="nova-compute.cmp1"))
    await sound.set(flows, ("id", "slow"), created_at=LONG_AGO(sound), updated_at=LONG_AGO(sound))
    await sound.set(flows, ("id", "stuck"), state="parked", error="Target CHAP user hunter2 is broken")
    found = (await sound.audit()).violations
    assert [(each.invariant, each.subject) for each in found] == [("L2", "flow:slow"), ("L2", "flow:stuck")]
    assert "lite flow resume stuck" in found[1].mend
    assert "hunter2" not in str(found)


async def test_what_only_was_in_motion_is_no_finding(sound: Sound) -> None:
    """Of the first look, not of the second."""
    doctor = sound.world.doctor
    disk = sound.disks.pop(sound.used.id)
    first = await doctor.look()
    assert [each.invariant for each in first.violations] == ["S8"]
    sound.disks[sound.used.id] = disk
    assert first.still(await doctor.look()).violations == ()


async def test_what_a_flow_is_about_that_runs_now_is_no_finding_until_it_is_old(sound: Sound) -> None:
    sound.disks.pop(sound.used.id)
    journal = Journal(sound.world.database, sound.world.clock)
    await journal.open(FlowRow(id="f", saga="detach_volume", subject="x", owner="o", arguments={"volume_id": sound.used.id}))
    assert (await sound.audit()).violations == ()
    await sound.set(flows, ("id", "f"), created_at=LONG_AGO(sound), updated_at=LONG_AGO(sound))
    assert {each.invariant for each in (await sound.audit()).violations} == {"S8", "L2"}


async def test_a_busy_world_has_no_findings(sound: Sound) -> None:
    """Attached and detached all the time while it is looked at."""
    world, looks = sound.world, 0
    async with asyncio.TaskGroup() as group:
        busy = group.create_task(_churn(sound))
        while not busy.done():
            assert (await world.doctor.audit()).violations == ()
            looks += 1
    assert looks >= 3


async def _churn(sound: Sound) -> None:
    for _ in range(6):
        await sound.world.attach(sound.server, sound.free)
        await sound.world.settled(sound.free.id)
        await sound.world.detach(sound.server, sound.free)
        await sound.world.settled(sound.free.id)


async def test_the_reports_hold_no_secrets(sound: Sound) -> None:
    secret = sound.export.chap.password if sound.export.chap else ""
    host = await HostInventory.over(sound.world.rpc).on(HOST).inventory(sound.world.ctx)
    backend = await BackendInventory.over(sound.world.rpc).on(f"{HOST}@{BACKEND}").inventory(sound.world.ctx)
    assert host.machines == {sound.server.uuid: {sound.used.id: "/dev/vdb"}}
    assert host.connections == [sound.used.id]
    assert (backend.volumes, backend.provisioned_gb, backend.capacity_gb) == (sorted([sound.used.name, sound.free.name]), 5, 100)
    assert [export.let_in for export in backend.exports.values()] == [[INITIATOR]]
    assert secret
    assert secret not in f"{host}{backend}"


async def test_mending_asks_every_service(sound: Sound) -> None:
    assert await sound.world.doctor.mend() == []
