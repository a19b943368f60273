"""A hypervisor: machines that can be given a disk while they run (nova.virt.driver.ComputeDriver, attach-flow 7.4).

Guarantees; the conformance suite's tests carry these numbers.
 1. `spawn` returns with the machine there and running (or held before its first instruction). Spawned already: nothing happens.
 2. `destroy` leaves nothing of the machine: no process, socket or file. Gone already: nothing happens.
 3. `attach_volume` returns when the machine has the disk. The same volume again: nothing happens.
 4. `detach_volume` returns when the machine has let go and the connection may be taken away. Not attached: nothing happens.
    A guest that does not let go in time: DeviceDetachFailed, and the disk stays.
 5. `disks` tells what the machine really has, by volume id, not what was asked of it.
 6. A failed `attach_volume` leaves the machine as it was: no disk, no secret, no half-made block device.
 7. A machine that died is not in `list_instances`; acting on it raises HypervisorUnavailable within the timeout.
 8. Machines outlive this object and this process: another object on the same state directory finds them.
 9. No secret of a connection_info appears in an argument vector, a log line or an error.
10. What one machine does, or fails to do, does not hold up another.
11. `leftovers` names what is of no use to a machine any more: the folder of one that died; in a live one that answers, parts of
    disks that are no disks. `destroy` clears it.
12. `power_off` gives the guest its time to shut down by itself, then ends the machine; it leaves as little as `destroy`.
13. A disk whose size is not that of connection_info["volume_size"] (GiB), where it is there, is another volume: `attach_volume` refuses
    it, and the guest has never seen it.
14. `extend_volume` returns when the machine shows its guest the disk in the new size, which the storage tells it already. It does so
    already: nothing happens. A storage that does not: HypervisorRefused, and the disk stays as it was.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from nova_lite.contract import Instance

ConnectionInfo = Mapping[str, Any]
"""The dict of attach-flow 6.1: {"driver_volume_type": "iscsi" | "local" | ..., "data": {...}, "serial": volume id}."""


class Hypervisor(Protocol):
    """Numbered guarantees at the head of this module."""

    @property
    def kind(self) -> str:
        """ "qemu", "libvirt" or "simulated": what the demo says it uses."""
        ...

    @property
    def device_prefix(self) -> str:
        """Beginning of every disk's name: "/dev/vd"."""
        ...

    @property
    def disks_max(self) -> int:
        """Most volumes that one machine can hold at a time."""
        ...

    async def spawn(self, instance: Instance) -> None:
        """Raises HypervisorUnavailable when the machine does not come up; nothing of it is left then."""
        ...

    async def destroy(self, instance_uuid: str) -> None: ...

    async def power_off(self, instance_uuid: str, *, timeout_s: float) -> None:
        """`timeout_s`: what the guest is given. Raises HypervisorUnavailable while the machine does not end."""
        ...

    async def list_instances(self) -> set[str]:
        """Uuids of the machines that are alive."""
        ...

    async def attach_volume(self, connection_info: ConnectionInfo, instance_uuid: str, mountpoint: str) -> None:
        """Plug the volume named by connection_info["serial"]; `mountpoint` is "/dev/vdb".

        Raises HypervisorRefused (wrong secret, unknown target, bus full), HypervisorUnavailable, TooManyDiskDevices.
        """
        ...

    async def detach_volume(self, volume_id: str, instance_uuid: str) -> None:
        """Unplug. Raises DeviceDetachFailed, HypervisorUnavailable."""
        ...

    async def extend_volume(self, connection_info: ConnectionInfo, instance_uuid: str, requested_size: int) -> None:
        """requested_size   bytes. Raises VolumeBDMNotFound when it has no such volume, HypervisorRefused, HypervisorUnavailable."""
        ...

    async def disks(self, instance_uuid: str) -> dict[str, str]:
        """volume id -> mountpoint of every volume that the machine has."""
        ...

    async def leftovers(self) -> dict[str, list[str]]:
        """instance uuid -> what is left of the machine, or in it, as an operator knows it. A sound machine is not there."""
        ...

    async def write_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> None:
        """The machine writes through its own disk. Raises VolumeBDMNotFound when it has no such volume."""
        ...

    async def verify_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> bool:
        """True when the machine reads exactly these bytes through its own disk."""
        ...

    async def close(self) -> None:
        """Let go of what this object holds; machines stay."""
        ...


@runtime_checkable
class Watched(Protocol):
    """What a hypervisor may have besides: word of machines that start or stop, so that nobody has to wait for the next look."""

    async def watch(self, tell: Callable[[], None]) -> None:
        """Never ends; calls `tell` when it begins to watch, and whenever a machine has started or stopped since."""
        ...
