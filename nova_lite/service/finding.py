"""What an operator means by a word, as far as it is nova's: a server."""

from common.app.service import Found
from common.base.clock import Clock
from common.db.engine import Database
from common.wire.address import routing_key
from nova_lite.contract import BlockDeviceMapping, ComputeAPI, ComputeManagerAPI, Instance
from nova_lite.store.block_device_mapping import BlockDeviceMappings
from nova_lite.store.instances import Instances

_KIND = "server:"


async def find(database: Database, clock: Clock, word: str) -> list[Found]:
    """The servers of that name, id, or subject "server:<uuid>"."""
    found = await Instances(database, clock).named(word.removeprefix(_KIND))
    mappings = BlockDeviceMappings(database, clock)
    return [_found(server, await mappings.list(server.uuid)) for server in found]


def _found(server: Instance, disks: list[BlockDeviceMapping]) -> Found:
    compute = [] if server.host is None else [routing_key(ComputeManagerAPI.__rpc_route__.topic, server.host)]
    fault = server.fault
    return Found(
        subject=f"{_KIND}{server.uuid}",
        name=server.display_name,
        state={
            "vm_state": server.vm_state,
            "task_state": server.task_state,
            "host": server.host,
            "volumes": [f"{disk.device_name} = {disk.volume_id}" for disk in disks],
            "last_fault": None if fault is None else f"{fault.message} ({fault.created_at}, {fault.request_id})",
        },
        related=tuple(f"volume:{disk.volume_id}" for disk in disks if disk.volume_id),
        queues=(*compute, routing_key(ComputeAPI.__rpc_route__.topic, None)),
    )
