"""One process per service on a private RabbitMQ and each database, tgtd and QEMU: what an operator runs."""

import asyncio

import pytest

from cinder_lite.targets.tgtadm import Tgtadm
from common.base.ids import new_uuid
from common.host.clock import SystemClock
from common.testing.servers import RabbitServer
from tests.conftest import RealParts
from tests.support.processes import Cloud, cloud

pytestmark = [
    pytest.mark.real("rabbitmq", "tgt", "qemu"),
    pytest.mark.timeout(240, func_only=True),
]


@pytest.mark.parametrize("database_kind", ["postgresql", "mariadb"])
async def test_a_volume_moves_between_two_compute_hosts_and_two_backends_stand_side_by_side(
    rabbit_url: str, database_kind: str, empty_database_url: str, tmp_path
) -> None:
    async with cloud(tmp_path, transport_url=rabbit_url, connection=empty_database_url) as running:
        await check_services(running)
        await check_demo(running)
        await check_both_hosts_and_backends(running)


async def check_services(running: Cloud) -> None:
    rows = (await running.cinder("service-list", "--json")).json()
    assert sorted(
        (row["binary"], row["host"], row["state"]) for row in rows if row["binary"] in {"nova-compute", "cinder-volume"}
    ) == [
        ("cinder-volume", "store1@gold", "up"),
        ("cinder-volume", "store1@iron", "up"),
        ("nova-compute", "cmp1", "up"),
        ("nova-compute", "cmp2", "up"),
    ]


async def check_demo(running: Cloud) -> None:
    ran = await running.lite("demo")
    assert ran.code == 0, ran.err
    assert "real iSCSI with CHAP and an ACL; machine QEMU" in ran.out
    assert "the machine reads the 4096 bytes back" in ran.out


async def check_both_hosts_and_backends(running: Cloud) -> None:
    for host in ("cmp1", "cmp2"):
        booted = await running.nova("boot", f"on-{host}", "--flavor", "m1.tiny", "--host", host, "--wait", "--json")
        assert booted.json()["host"] == host, booted.err
    for backend in ("gold", "iron"):
        made = await running.cinder("create", "1", "--name", backend, "--volume-type", backend, "--wait", "--json")
        assert made.json()["host"].startswith(f"store1@{backend}"), made.err
    for host, backend in (("cmp1", "gold"), ("cmp2", "iron")):
        attached = await running.nova("volume-attach", f"on-{host}", backend, "--wait")
        assert attached.code == 0, attached.err
    refused = await running.nova("volume-attach", "on-cmp2", "gold")
    assert refused.code == 1
    assert "(on-cmp1)" in refused.err
    assert refused.err.count("\n") == 1
    assert (await running.nova("volume-detach", "on-cmp1", "gold", "--wait")).code == 0
    assert (await running.nova("volume-attach", "on-cmp2", "gold", "--wait")).code == 0
    await check_doctor(running)
    shown = (await running.cinder("show", "gold", "--json")).json()
    assert shown["volume_attachment"][0]["attached_host"] == "cmp2"
    for host in ("cmp1", "cmp2"):
        assert (await running.nova("delete", f"on-{host}", "--wait")).code == 0
    assert (await running.cinder("delete", "gold", "iron", "--wait")).code == 0
    assert (await running.cinder("list", "--json")).json() == []
    left = await running.lite("doctor", "--strict")
    assert left.code == 0, left.out + left.err


async def check_doctor(running: Cloud) -> None:
    """Two real disks, then a real target of nobody beside them."""
    sound = await running.lite("doctor", "--strict", "--json")
    assert sound.code == 0, sound.out + sound.err
    assert sound.json()["checked"] == {"backends": 2, "hosts": 2, "servers": 2, "services": 7, "snapshots": 0, "volumes": 2}
    tgt, stray = Tgtadm(socket=running.client.parent / "gold.tgtd"), new_uuid()
    await tgt.ask("new", "target", "--tid", "77", "--targetname", f"iqn.2010-10.org.openstack:volume-{stray}")
    (found,) = (await running.lite("doctor", "--json")).json()["violations"]
    assert (found["invariant"], found["subject"]) == ("L3", f"volume:{stray}")
    assert "store1@gold exports" in found["evidence"]
    await tgt.ask("delete", "target", "--tid", "77")


@pytest.mark.parametrize("database_kind", ["sqlite"])
async def test_services_go_on_when_a_killed_broker_comes_back(real_parts: RealParts, empty_database_url: str, tmp_path) -> None:
    real_parts.need("rabbitmq")
    async with (
        RabbitServer(tmp_path / "rabbit") as broker,
        cloud(tmp_path, transport_url=broker.vhost_url("lite"), connection=empty_database_url, computes=["cmp1"]) as running,
    ):
        await check_demo(running)
        await asyncio.to_thread(broker.kill)
        gone = await running.nova("list")
        assert gone.code == 69
        assert "is not available" in gone.err
        await asyncio.to_thread(broker.start)
        await until_listening(running)
        await check_demo(running)


async def until_listening(running: Cloud) -> None:
    """Every process has its queues again."""
    clock = SystemClock()
    async with asyncio.timeout(60):
        for topic in (
            "nova-api",
            "compute.cmp1",
            "cinder-api",
            "cinder-scheduler",
            "cinder-volume.store1@gold",
            "cinder-volume.store1@iron",
        ):
            while (await running.lite("rpc", "call", topic, "nothing")).code != 1:
                await clock.sleep(0.2)
