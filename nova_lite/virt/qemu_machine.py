"""What is done to one running QEMU machine, over one conversation with its monitor.

Source: QEMU, "QEMU QMP Reference Manual"; QEMU 7.2 measured.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from common.base.clock import Clock
from common.base.errors import Fault
from nova_lite.errors import DeviceDetachFailed, HypervisorRefused, HypervisorUnavailable, TooManyDiskDevices, VolumeBDMNotFound
from nova_lite.virt.qemu_argv import QemuOptions, root_port
from nova_lite.virt.qemu_disk import Disk, is_node_name, is_secret_id, mountpoint_of, node_name, secret_id, volume_of
from nova_lite.virt.qemu_probe import clear_probe
from nova_lite.virt.qmp import Event
from nova_lite.virt.qmp_client import QmpClient
from nova_lite.virt.volume_source import check_size

_PERIPHERAL = "/machine/peripheral"
_RELEASE_TIMEOUT_S = 2.0
"""Between a device's disappearance from the tree and the release of its block node pass milliseconds."""
_RELEASE_RETRY_S = 0.02


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the machine has.

    devices   volume id -> device id
    nodes     names of block nodes
    objects   ids of user-made objects, secrets among them
    """

    devices: Mapping[str, str]
    nodes: frozenset[str]
    objects: frozenset[str]


class QemuMachine:
    """The machine `name` behind `qmp`; one operation at a time."""

    def __init__(self, qmp: QmpClient, *, name: str, options: QemuOptions, clock: Clock) -> None:
        self._qmp = qmp
        self._name = name
        self._options = options
        self._clock = clock

    async def devices(self) -> dict[str, str]:
        """volume id -> device id, read off the machine's own tree."""
        children = await self._qmp.execute("qom-list", {"path": _PERIPHERAL})
        names = [str(child["name"]) for child in children]
        return {volume_id: name for name in names if (volume_id := volume_of(name))}

    async def inventory(self) -> Inventory:
        nodes = await self._qmp.execute("query-named-block-nodes", {"flat": True})
        objects = await self._qmp.execute("qom-list", {"path": "/objects"})
        return Inventory(
            await self.devices(),
            frozenset(str(node["node-name"]) for node in nodes),
            frozenset(str(child["name"]) for child in objects),
        )

    async def unused(self) -> list[str]:
        """The names of block nodes and secrets of ours that no disk uses: what an attachment left that was cut short."""
        found = await self.inventory()
        used = {node_name(volume_id) for volume_id in found.devices}
        return sorted(f"block node {name}" for name in found.nodes - used if is_node_name(name)) + sorted(
            f"secret {name}" for name in found.objects if is_secret_id(name)
        )

    async def plug(self, disk: Disk) -> None:
        """Give the machine the disk; there already: nothing happens, half there: it is made anew.

        Raises HypervisorRefused, HypervisorUnavailable, TooManyDiskDevices; nothing of the disk is left then, unless the
        machine does not answer any more.
        """
        found = await self.inventory()
        if disk.volume_id in found.devices:
            return
        bus = await self._free_port(found)
        await self._remove_backend(disk.volume_id, found)
        plugged = False
        try:
            await self._add_backend(disk)
            await self._check(disk)
            await self._qmp.execute("device_add", disk.device(bus))
            plugged = True
        finally:
            if not plugged:
                await self._take_back(disk.volume_id)

    async def resize(self, volume_id: str, size: int) -> None:
        """The node looks at its storage again. It does not grow what cannot be grown: a file has that size by now, and so has a LUN.

        Raises VolumeBDMNotFound, HypervisorRefused, HypervisorUnavailable.
        """
        if volume_id not in await self.devices():
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=self._name)
        await self._qmp.execute("block_resize", {"node-name": node_name(volume_id), "size": size})

    async def unplug(self, volume_id: str) -> None:
        """Take the disk from the machine, and whatever of one that was cut short; nothing there: nothing happens.

        Raises DeviceDetachFailed when the guest keeps it, HypervisorUnavailable.
        """
        found = await self.inventory()
        if volume_id in found.devices:
            await self._eject(volume_id, found.devices[volume_id])
        if node_name(volume_id) in found.nodes:
            await clear_probe(self._qmp)
        await self._remove_backend(volume_id, found)

    async def _free_port(self, found: Inventory) -> str:
        used = {await self._port(device) for device in found.devices.values()}
        free = [port for port in map(root_port, range(1, self._options.disks_max + 1)) if port not in used]
        if not free:
            raise TooManyDiskDevices(maximum=self._options.disks_max)
        return free[0]

    async def _port(self, device: str) -> str:
        # The bus of a root port bears the port's own name: /machine/peripheral/rp1/rp1. `query-pci` would not tell: buses
        # have no numbers before firmware ran.
        bus = await self._qmp.execute("qom-get", {"path": f"{_PERIPHERAL}/{device}", "property": "parent_bus"})
        return str(bus).rpartition("/")[2]

    async def _add_backend(self, disk: Disk) -> None:
        if disk.password is None:
            await self._qmp.execute("blockdev-add", disk.backend)
            return
        self._qmp.hide(disk.password)
        await self._qmp.execute("object-add", disk.secret)
        await self._qmp.execute("blockdev-add", disk.backend)
        # The node has read it and logs in again by itself; the less that stays, the less there is to forget.
        await self._qmp.execute("object-del", {"id": disk.secret["id"]})

    async def _check(self, disk: Disk) -> None:
        """Before the guest sees it."""
        nodes = await self._qmp.execute("query-named-block-nodes", {"flat": True})
        (size,) = [int(node["image"]["virtual-size"]) for node in nodes if node["node-name"] == node_name(disk.volume_id)]
        check_size(disk.size_gib, size, machine=self._name, volume_id=disk.volume_id)

    async def _take_back(self, volume_id: str) -> None:
        with suppress(Fault, TimeoutError):
            async with asyncio.timeout(self._options.quit_timeout_s):
                await self.unplug(volume_id)

    async def _eject(self, volume_id: str, device: str) -> None:
        try:
            await self._qmp.execute("device_del", {"id": device})
        except HypervisorRefused as exc:
            if exc.fields["qmp_class"] == "DeviceNotFound":
                return
            if "already in the process of unplug" not in exc.fields["reason"]:
                raise

        # virtio devices tell it twice: the part inside first, by path only, then the whole by its id.
        def left(event: Event) -> bool:
            return event.name == "DEVICE_DELETED" and event.data.get("device") == device

        timeout_s = self._options.detach_timeout_s
        if await self._qmp.wait_event(left, timeout_s=timeout_s) is None and volume_id in await self.devices():
            raise DeviceDetachFailed(device=mountpoint_of(device), name=self._name, timeout_s=timeout_s)

    async def _remove_backend(self, volume_id: str, found: Inventory) -> None:
        if node_name(volume_id) in found.nodes:
            await self._remove_node(node_name(volume_id))
        if secret_id(volume_id) in found.objects:
            await self._qmp.execute("object-del", {"id": secret_id(volume_id)})

    async def _remove_node(self, node: str) -> None:
        deadline = self._clock.monotonic() + _RELEASE_TIMEOUT_S
        while True:
            try:
                await self._qmp.execute("blockdev-del", {"node-name": node})
            except HypervisorRefused as exc:
                if "is in use" not in exc.fields["reason"] or self._clock.monotonic() > deadline:
                    raise HypervisorUnavailable(name=self._name, reason=f"it keeps {node}: {exc.fields['reason']}") from exc
                await self._clock.sleep(_RELEASE_RETRY_S)
            else:
                return
