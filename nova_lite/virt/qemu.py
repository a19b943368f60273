"""Machines of QEMU, each a process of its own with a folder of its own; implements `nova_lite.ports.hypervisor`.

<state_path>/instances/<uuid>/ holds a machine's monitor socket, pid file and log, and nothing that could not be read off the
machine itself. So any process that knows the state path finds the machines.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from common.base.clock import Clock
from common.base.errors import Fault, Invalid
from common.base.ids import is_uuid
from common.host.command import run
from common.host.locks import KeyedLocks
from common.host.to_its_end import in_thread
from nova_lite.contract import Instance
from nova_lite.errors import HypervisorRefused, HypervisorUnavailable, VolumeBDMNotFound
from nova_lite.ports.hypervisor import ConnectionInfo
from nova_lite.virt.host_side import CEPH_CONF, bound_ceph, check_grown, is_block_device, with_host_keyring
from nova_lite.virt.pattern import check_pattern
from nova_lite.virt.qemu_argv import QemuOptions, qemu_argv
from nova_lite.virt.qemu_disk import Disk, mountpoint_of, plan_disk
from nova_lite.virt.qemu_machine import QemuMachine
from nova_lite.virt.qemu_probe import read_range, write_range
from nova_lite.virt.qemu_process import (
    ended,
    is_running,
    killed,
    last_words,
    machine_process,
    make_folder,
    remains_in,
    remove_folder,
    running_in,
)
from nova_lite.virt.qmp_client import QmpClient, open_qmp

_RESUME_LOOK_S = 0.05


class QemuHypervisor:
    """QEMU on this host. Without a guest system in its options machines are held before their first instruction."""

    def __init__(self, state_path: Path, clock: Clock, options: QemuOptions | None = None) -> None:
        self._instances = state_path.absolute() / "instances"
        self._clock = clock
        self._options = options or QemuOptions()
        self._locks = KeyedLocks()

    @property
    def kind(self) -> str:
        return "qemu"

    @property
    def device_prefix(self) -> str:
        return "/dev/vd"

    @property
    def disks_max(self) -> int:
        return self._options.disks_max

    async def spawn(self, instance: Instance) -> None:
        folder = self.folder_of(instance.uuid)
        async with self._locks.hold(instance.uuid):
            if is_running(folder, instance.uuid):
                return
            up = False
            try:
                await self._start(instance, folder)
                up = True
            finally:
                if not up:
                    await self._end(folder, instance.uuid, ask=False)

    async def destroy(self, instance_uuid: str) -> None:
        """Raises HypervisorUnavailable while the killed process does not end."""
        folder = self.folder_of(instance_uuid)
        async with self._locks.hold(instance_uuid):
            await self._end(folder, instance_uuid, ask=True)

    async def power_off(self, instance_uuid: str, *, timeout_s: float) -> None:
        """A machine without a guest system has nobody to ask."""
        folder = self.folder_of(instance_uuid)
        async with self._locks.hold(instance_uuid):
            with machine_process(folder, instance_uuid) as pidfd:
                if pidfd is not None and self._options.guest is not None:
                    await self._press_power_button(folder, instance_uuid, pidfd, timeout_s)
            await self._end(folder, instance_uuid, ask=True)

    async def list_instances(self) -> set[str]:
        return running_in(self._instances)

    async def attach_volume(self, connection_info: ConnectionInfo, instance_uuid: str, mountpoint: str) -> None:
        disk = await self._planned(connection_info, instance_uuid, mountpoint)
        async with self._machine(instance_uuid) as (machine, _):
            await machine.plug(disk)

    async def detach_volume(self, volume_id: str, instance_uuid: str) -> None:
        async with self._machine(instance_uuid) as (machine, _):
            await machine.unplug(volume_id)

    async def extend_volume(self, connection_info: ConnectionInfo, instance_uuid: str, requested_size: int) -> None:
        await check_grown(connection_info, requested_size, machine=instance_uuid)
        async with self._machine(instance_uuid) as (machine, _):
            await machine.resize(str(connection_info["serial"]), requested_size)

    async def disks(self, instance_uuid: str) -> dict[str, str]:
        async with self._machine(instance_uuid) as (machine, _):
            devices = await machine.devices()
        return {volume_id: mountpoint_of(device) for volume_id, device in devices.items()}

    async def leftovers(self) -> dict[str, list[str]]:
        """A live machine that does not answer is passed over."""
        alive, found = await self.list_instances(), remains_in(self._instances)
        async with asyncio.TaskGroup() as group:
            looks = {uuid: group.create_task(self._unused(uuid)) for uuid in alive}
        return {uuid: parts for uuid, parts in {**found, **{uuid: look.result() for uuid, look in looks.items()}}.items() if parts}

    async def write_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> None:
        check_pattern(pattern, offset=offset, length=length)
        async with self._machine(instance_uuid) as (machine, qmp):
            device = await _device_of(machine, volume_id, instance_uuid)
            said = await write_range(qmp, device, pattern=pattern, offset=offset, length=length)
            found = await self._read(qmp, instance_uuid, volume_id, offset=offset, length=length)
        if found != bytes([pattern]) * length:
            reason = f"the disk did not take {length} bytes at {offset}: {said or 'no word why'}"
            raise HypervisorRefused(name=instance_uuid, command="write_pattern", reason=reason)

    async def verify_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> bool:
        check_pattern(pattern, offset=offset, length=length)
        async with self._machine(instance_uuid) as (machine, qmp):
            await _device_of(machine, volume_id, instance_uuid)
            return await self._read(qmp, instance_uuid, volume_id, offset=offset, length=length) == bytes([pattern]) * length

    async def close(self) -> None:
        """Nothing is held between operations."""

    def folder_of(self, uuid: str) -> Path:
        """Where the machine has its socket, log and console. Raises Invalid for what is no uuid."""
        if not is_uuid(uuid):
            raise Invalid(reason=f"{uuid!r} is not the uuid of an instance")
        return self._instances / uuid

    @asynccontextmanager
    async def _machine(self, uuid: str) -> AsyncIterator[tuple[QemuMachine, QmpClient]]:
        folder = self.folder_of(uuid)
        async with self._locks.hold(uuid), open_qmp(folder, name=uuid, timeout_s=self._options.command_timeout_s) as qmp:
            yield QemuMachine(qmp, name=uuid, options=self._options, clock=self._clock), qmp

    async def _planned(self, connection_info: ConnectionInfo, uuid: str, mountpoint: str) -> Disk:
        conf = str(self.folder_of(uuid) / CEPH_CONF)
        is_block = await is_block_device(connection_info)
        info = await with_host_keyring(connection_info, self._options.keyrings)
        return plan_disk(info, machine=uuid, mountpoint=mountpoint, block_device=is_block, ceph_conf=conf)

    async def _unused(self, uuid: str) -> list[str]:
        with suppress(HypervisorUnavailable, HypervisorRefused):
            async with self._machine(uuid) as (machine, _):
                return await machine.unused()
        return []

    async def _read(self, qmp: QmpClient, uuid: str, volume_id: str, *, offset: int, length: int) -> bytes:
        timeout_s = self._options.command_timeout_s
        return await read_range(qmp, volume_id, self.folder_of(uuid), offset=offset, length=length, timeout_s=timeout_s)

    async def _start(self, instance: Instance, folder: Path) -> None:
        try:
            await in_thread(make_folder, folder)
            await bound_ceph(folder, self._options.command_timeout_s / 2)
            output = await run(*qemu_argv(instance, self._options), timeout_s=self._options.spawn_timeout_s, cwd=str(folder))
        except (Fault, OSError) as exc:
            raise HypervisorUnavailable(name=instance.uuid, reason=f"it did not start: {exc}") from exc
        if output.status:
            said = last_words(folder) or output.said
            raise HypervisorUnavailable(name=instance.uuid, reason=f"it did not start: {said}")
        try:
            async with open_qmp(folder, name=instance.uuid, timeout_s=self._options.spawn_timeout_s) as qmp:
                if self._options.saved_state is not None:
                    await self._resumed(qmp, instance.uuid)
        except HypervisorUnavailable as exc:
            if (why := last_words(folder)) is None:
                raise
            raise HypervisorUnavailable(name=instance.uuid, reason=f"it did not start: {why}") from exc

    async def _resumed(self, qmp: QmpClient, uuid: str) -> None:
        """Returns once the machine goes on from its saved state."""
        async with asyncio.timeout(self._options.spawn_timeout_s):
            while (status := (await qmp.execute("query-status"))["status"]) == "inmigrate":
                await qmp.wait_event(lambda event: event.name in {"RESUME", "STOP", "SHUTDOWN"}, timeout_s=_RESUME_LOOK_S)
        if status != "running":
            raise HypervisorUnavailable(name=uuid, reason=f"it is {status} after its saved state was read; wanted: running")

    async def _end(self, folder: Path, uuid: str, *, ask: bool) -> None:
        timeout_s = self._options.quit_timeout_s
        with machine_process(folder, uuid) as pidfd:
            if (
                pidfd is not None
                and not (ask and await self._quit(folder, uuid, pidfd))
                and not await killed(pidfd, timeout_s=timeout_s)
            ):
                raise HypervisorUnavailable(name=uuid, reason=f"its process did not end within {timeout_s:g} s of being killed")
        try:
            await in_thread(remove_folder, folder)
        except OSError as exc:
            raise HypervisorUnavailable(name=uuid, reason=f"its folder cannot be removed: {exc}") from exc

    async def _press_power_button(self, folder: Path, uuid: str, pidfd: int, timeout_s: float) -> None:
        with suppress(HypervisorUnavailable, HypervisorRefused):
            async with open_qmp(folder, name=uuid, timeout_s=self._options.quit_timeout_s) as qmp:
                await qmp.execute("system_powerdown")
            await ended(pidfd, timeout_s=timeout_s)

    async def _quit(self, folder: Path, uuid: str, pidfd: int) -> bool:
        """Ask the machine to end; True when it did."""
        timeout_s = self._options.quit_timeout_s
        with suppress(HypervisorUnavailable, HypervisorRefused):
            async with open_qmp(folder, name=uuid, timeout_s=timeout_s) as qmp:
                await qmp.execute("quit")
                return await ended(pidfd, timeout_s=timeout_s)
        return False


async def _device_of(machine: QemuMachine, volume_id: str, uuid: str) -> str:
    device = (await machine.devices()).get(volume_id)
    if device is None:
        raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=uuid)
    return device
