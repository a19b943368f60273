"""Real nova 34 and cinder 29 as clients of our contracts, over a real RabbitMQ: `make compat-openstack`.

Each runs as a process of its own with its own Python (.venv-openstack): its rpcapi, its objects, its serializer, its exceptions.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from cinder_lite.contract import Message, Volume, VolumeAttachment, VolumeManagerAPI, errors as cinder_errors
from common.base.context import Context
from common.host.clock import SystemClock
from common.rpc.contract import Contract, call
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, serving
from common.transport.url import open_transport
from nova_lite.contract import BlockDeviceMapping, ComputeManagerAPI, Instance, errors as nova_errors
from tests.compat.test_golden_objects import ATTACHED, ATTACHMENT, BDM, IN_USE, INSTANCE, MAPPING, SERVER, VOLUME

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-openstack/bin/python"
pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="real nova and cinder are not installed; `make compat-openstack` installs them"),
    pytest.mark.real("rabbitmq"),
    pytest.mark.timeout(240, func_only=True),
]
CLOCK = SystemClock()
OPTIONS = RpcOptions()
TIME = "2026-11-23T03:12:06+00:00"
CONNECTION = {"driver_volume_type": "iscsi", "data": {"target_lun": 1, "auth_password": None}}
CONNECTOR = {"host": "cmp1", "initiator": "iqn.1994-05.com.redhat:1", "multipath": False}

# With all of our extensions set, which the real objects do not know.
LATE = msgspec.structs.replace(INSTANCE, fault=INSTANCE.fault and msgspec.structs.replace(INSTANCE.fault, request_id="req-1"))
TOLD = msgspec.structs.replace(IN_USE, messages=(Message(request_id="req-1", user_message="schedule: no valid backend"),))


class Seen:
    """What arrived, in the order in which it came."""

    def __init__(self) -> None:
        self.all: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()

    def note(self, method: str, **arguments: Any) -> None:
        self.all.put_nowait((method, arguments))

    async def take(self, count: int) -> dict[str, dict[str, Any]]:
        async with asyncio.timeout(60):
            return dict([await self.all.get() for _ in range(count)])


class Compute(ComputeManagerAPI):
    """nova-compute, without a hypervisor."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    async def build_and_run_instance(self, ctx: Context, **arguments: Any) -> None:
        raise NotImplementedError

    async def stop_instance(self, ctx: Context, **arguments: Any) -> None:
        raise NotImplementedError

    async def start_instance(self, ctx: Context, **arguments: Any) -> None:
        raise NotImplementedError

    async def reboot_instance(self, ctx: Context, **arguments: Any) -> None:
        raise NotImplementedError

    async def terminate_instance(self, ctx: Context, *, instance: Instance, bdms: list[BlockDeviceMapping] | None = None) -> None:
        self.seen.note("terminate_instance", instance=instance, bdms=bdms)

    async def reserve_block_device_name(self, ctx: Context, **arguments: Any) -> BlockDeviceMapping:
        self.seen.note("reserve_block_device_name", user=ctx.user_id, **arguments)
        if arguments["device"] is not None:
            raise nova_errors.DevicePathInUse(path=arguments["device"])
        return BDM

    async def attach_volume(self, ctx: Context, *, instance: Instance, bdm: BlockDeviceMapping) -> None:
        self.seen.note("attach_volume", instance=instance, bdm=bdm)

    async def external_instance_event(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("external_instance_event", **arguments)

    async def detach_volume(self, ctx: Context, *, instance: Instance, volume_id: str, attachment_id: str | None = None) -> None:
        self.seen.note("detach_volume", instance=instance, volume_id=volume_id, attachment_id=attachment_id)


class ServersAPI(Contract, Protocol, topic="nova-api", version="1.0", exchange="nova"):
    """Whole objects as results: nova-api's verbs with nova's serializer on the other side."""

    @call()
    async def get(self, ctx: Context, *, server: str) -> Instance: ...

    @call()
    async def get_all(self, ctx: Context) -> list[Instance]: ...


class Servers(ServersAPI):
    async def get(self, ctx: Context, *, server: str) -> Instance:
        return LATE

    async def get_all(self, ctx: Context) -> list[Instance]:
        return [LATE, LATE]


class Volumes(VolumeManagerAPI):
    """cinder-volume, without a backend."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    async def create_volume(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("create_volume", **arguments)

    async def delete_volume(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("delete_volume", **arguments)

    async def initialize_connection(
        self, ctx: Context, *, volume: Volume, connector: Mapping[str, Any], attachment_id: str | None = None
    ) -> dict[str, Any]:
        self.seen.note("initialize_connection", user=ctx.user_id, volume=volume, connector=connector, attachment_id=attachment_id)
        return CONNECTION

    async def terminate_connection(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("terminate_connection", **arguments)
        raise cinder_errors.VolumeBackendAPIException(data="the target is away")

    async def attach_volume(self, ctx: Context, **arguments: Any) -> VolumeAttachment:
        self.seen.note("attach_volume", **arguments)
        return ATTACHED

    async def detach_volume(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("detach_volume", **arguments)

    async def extend_volume(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("extend_volume", **arguments)

    async def create_snapshot(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("create_snapshot", **arguments)

    async def delete_snapshot(self, ctx: Context, **arguments: Any) -> None:
        self.seen.note("delete_snapshot", **arguments)

    async def publish_service_capabilities(self, ctx: Context) -> None:
        self.seen.note("publish_service_capabilities")


class CatalogueAPI(Contract, Protocol, topic="cinder-api", version="1.0", exchange="openstack"):
    """As ServersAPI, of cinder."""

    @call()
    async def get(self, ctx: Context, *, volume_id: str) -> Volume: ...

    @call()
    async def get_all(self, ctx: Context) -> list[Volume]: ...


class Catalogue(CatalogueAPI):
    async def get(self, ctx: Context, *, volume_id: str) -> Volume:
        return TOLD

    async def get_all(self, ctx: Context) -> list[Volume]:
        return [TOLD, TOLD]


@asynccontextmanager
async def peer(project: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        str(PYTHON), str(Path(__file__).with_name("openstack_peer.py")), project, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, limit=2**20,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(90):
        return json.loads(await process.stdout.readline() or '"it ended: its error is above"')


@asynccontextmanager
async def served(url: str, *servers: Serving) -> AsyncIterator[None]:
    transport = await open_transport(url, clock=CLOCK, connection_name="test")
    try:
        async with serving(transport, *servers, clock=CLOCK, options=OPTIONS, grace_s=5):
            yield
    finally:
        await transport.close()


@pytest.mark.parametrize("project", ["nova", "cinder"])
async def test_the_golden_objects_are_still_what_the_real_project_writes(project: str) -> None:
    async with peer(project, "capture") as process, asyncio.timeout(90):
        out, _ = await process.communicate()
    assert json.loads(out) == json.loads(Path(__file__).with_name("golden").joinpath(f"{project}.json").read_text())


async def test_nova_s_compute_rpcapi_calls_and_casts_to_our_compute_manager(rabbit_url: str) -> None:
    seen = Seen()
    servers = Serving([Compute(seen)], "cmp1"), Serving([Servers()], "api1")
    async with served(rabbit_url, *servers), peer("nova", "drive", rabbit_url) as process:
        assert await line(process) == {
            "class": "nova.objects.block_device.BlockDeviceMapping", "version": "1.21", "uuid": MAPPING, "instance_uuid": SERVER,
            "volume_id": VOLUME, "device_name": "/dev/vdb", "attachment_id": ATTACHMENT, "boot_index": None, "created_at": TIME,
        }  # fmt: skip
        refused = await line(process)
        assert "nova.exception.DevicePathInUse" in refused["raised"]
        assert refused["said"] == "The supplied device path (/dev/vda) is in use."
        asked = {"volume_id": VOLUME, "disk_bus": "virtio", "device_type": "disk", "tag": None, "multiattach": False}
        assert (await seen.take(1))["reserve_block_device_name"] == {"user": "u1", "instance": INSTANCE, "device": None, **asked}
        await seen.take(1)
        casts = await seen.take(3)
        assert casts["attach_volume"] == {"instance": INSTANCE, "bdm": BDM}
        assert casts["detach_volume"] == {"instance": INSTANCE, "volume_id": VOLUME, "attachment_id": ATTACHMENT}
        assert casts["terminate_instance"] == {"instance": INSTANCE, "bdms": [BDM]}
        assert await line(process) == {
            "class": "nova.objects.instance.Instance", "version": "2.8", "uuid": SERVER, "vm_state": "active", "task_state": None,
            "power_state": 1, "host": "cmp1", "root_device_name": "/dev/vda", "launched_at": TIME,
        }  # fmt: skip
        flavor = {"class": "nova.objects.flavor.Flavor", "version": "1.2", "name": "m1.small"}
        assert await line(process) == {**flavor, "memory_mb": 2048, "vcpus": 1, "root_gb": 20}
        fault = {"class": "nova.objects.instance_fault.InstanceFault", "version": "1.2", "code": 500}
        assert await line(process) == {**fault, "message": "No valid host", "host": "cmp1", "created_at": TIME}
        assert await line(process) == [[], [SERVER, SERVER]]


async def test_cinder_s_volume_rpcapi_calls_and_casts_to_our_volume_manager(rabbit_url: str) -> None:
    seen = Seen()
    volumes = Volumes(seen)
    servers = (
        Serving([volumes], "host1", topic="cinder-volume.host1@tgt"), Serving([volumes], "host1@tgt"), Serving([Catalogue()], "api1"),
    )  # fmt: skip
    async with served(rabbit_url, *servers), peer("cinder", "drive", rabbit_url) as process:
        assert await line(process) == CONNECTION
        assert await line(process) == {
            "class": "cinder.objects.volume_attachment.VolumeAttachment", "version": "1.3", "id": ATTACHMENT, "volume_id": VOLUME,
            "instance_uuid": SERVER, "attach_status": "attached", "attach_mode": "rw", "attach_time": TIME, "detach_time": None,
        }  # fmt: skip
        failed = await line(process)
        assert "cinder.exception.VolumeBackendAPIException" in failed["raised"]
        assert failed["said"].endswith("the target is away")
        assert await line(process) is None
        arrived = await seen.take(7)
        assert arrived["initialize_connection"] == {"user": "u1", "volume": IN_USE, "connector": CONNECTOR, "attachment_id": None}
        attached = {"volume_id": VOLUME, "instance_uuid": SERVER, "host_name": "cmp1", "mountpoint": "/dev/vdb", "mode": "rw"}
        assert arrived["attach_volume"] == {**attached, "volume": IN_USE}
        assert arrived["terminate_connection"] == {"volume_id": VOLUME, "connector": CONNECTOR, "force": True}
        assert arrived["detach_volume"] == {"volume_id": VOLUME, "attachment_id": ATTACHMENT, "volume": IN_USE}
        assert arrived["create_volume"]["volume"] == arrived["delete_volume"]["volume"] == IN_USE
        assert arrived["create_volume"]["filter_properties"] == {"retry": {}}
        assert arrived["delete_volume"]["cascade"] is True
        assert arrived["publish_service_capabilities"] == {}
        assert await line(process) == {
            "class": "cinder.objects.volume.Volume", "version": "1.9", "id": VOLUME, "size": 1, "status": "in-use",
            "host": "host1@tgt#pool", "display_name": "data", "created_at": TIME, "launched_at": TIME,
        }  # fmt: skip
        assert await line(process) == ["iscsi", ["/dev/vdb"]]
        assert await line(process) == [[], [VOLUME, VOLUME]]
