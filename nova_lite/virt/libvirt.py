"""Machines of libvirt; implements `nova_lite.ports.hypervisor`.

A machine is a domain whose definition names its compute host, so that several hosts may share one libvirt. Volumes are plugged into
the running domain and never into its definition.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from common.base.clock import Clock
from common.base.errors import Fault, Invalid
from common.base.ids import is_uuid
from common.host.locks import KeyedLocks
from nova_lite.contract import Instance
from nova_lite.errors import DeviceDetachFailed, HypervisorRefused, HypervisorUnavailable, TooManyDiskDevices, VolumeBDMNotFound
from nova_lite.ports.hypervisor import ConnectionInfo
from nova_lite.virt.host_side import bound_ceph, check_grown, is_block_device, with_host_keyring
from nova_lite.virt.image_size import shown_size
from nova_lite.virt.libvirt_client import LibvirtClient
from nova_lite.virt.libvirt_xml import (
    FoundDisk,
    LibvirtOptions,
    Secret,
    disk_alias,
    disk_secret,
    disk_xml,
    domain_xml,
    is_of_host,
    machine_name,
    parse_disks,
    parse_secret,
    secret_mark,
    secret_uuid,
)
from nova_lite.virt.pattern import check_pattern
from nova_lite.virt.volume_source import RbdSource, Volume, check_size, read_volume

_WATCH_AGAIN_S = 1.0


class LibvirtHypervisor:
    """Libvirt on this host, for the machines of compute host `host`."""

    def __init__(self, state_path: Path, clock: Clock, options: LibvirtOptions | None = None, *, host: str) -> None:
        self._state_path = state_path.absolute()
        self._clock = clock
        self._options = options or LibvirtOptions()
        self._host = host
        self._client = LibvirtClient(self._options.connection_uri, pythons=[self._options.python] if self._options.python else ())
        self._locks = KeyedLocks()

    @property
    def kind(self) -> str:
        return "libvirt"

    @property
    def device_prefix(self) -> str:
        return "/dev/vd"

    @property
    def disks_max(self) -> int:
        return self._options.disks_max

    async def about(self) -> dict[str, Any]:
        """Libvirt's and QEMU's versions. Raises Misconfigured without libvirt's binding, HypervisorUnavailable without libvirtd."""
        found: dict[str, Any] = await self._client.ask("about", name=self._host, timeout_s=self._options.command_timeout_s)
        return found

    async def spawn(self, instance: Instance) -> None:
        xml = domain_xml(instance, self._options, host=self._host)
        async with self._holding(instance.uuid):
            await self._ask(
                "spawn", instance.uuid, timeout_s=self._options.destroy_timeout_s, xml=xml, is_held=self._options.guest is None
            )

    async def destroy(self, instance_uuid: str) -> None:
        """Raises HypervisorUnavailable while the machine does not end."""
        async with self._holding(instance_uuid):
            await self._ask("destroy", instance_uuid, timeout_s=self._options.destroy_timeout_s, secrets=secret_mark(instance_uuid))

    async def power_off(self, instance_uuid: str, *, timeout_s: float) -> None:
        """A machine without a guest system has nobody to ask."""
        if self._options.guest is not None and timeout_s > 0:
            async with self._holding(instance_uuid):
                limit = timeout_s + self._options.command_timeout_s
                with suppress(HypervisorRefused, HypervisorUnavailable):
                    await self._ask("power_off", instance_uuid, timeout_s=limit, wait_s=timeout_s)
        await self.destroy(instance_uuid)

    async def list_instances(self) -> set[str]:
        return {domain["uuid"] for domain in await self._domains() if domain["is_active"]}

    async def attach_volume(self, connection_info: ConnectionInfo, instance_uuid: str, mountpoint: str) -> None:
        info = await with_host_keyring(connection_info, self._options.keyrings)
        volume = read_volume(
            info, machine=instance_uuid, mountpoint=mountpoint, is_block_device=await is_block_device(connection_info)
        )
        async with self._holding(instance_uuid):
            conf = str(await bound_ceph(self._state_path, self._options.command_timeout_s / 2))
            await self._check(volume, instance_uuid, conf)
            done = await self._attach(volume, disk_secret(volume, instance_uuid), instance_uuid, conf)
        if done == "full":
            raise TooManyDiskDevices(maximum=self._options.disks_max)

    async def detach_volume(self, volume_id: str, instance_uuid: str) -> None:
        timeout_s = self._options.detach_timeout_s
        async with self._holding(instance_uuid):
            is_gone = await self._ask(
                "detach",
                instance_uuid,
                timeout_s=timeout_s + self._options.command_timeout_s,
                alias=disk_alias(volume_id),
                secret_uuid=secret_uuid(volume_id),
                wait_s=timeout_s,
            )
            if not is_gone:
                device = (await self._disks(instance_uuid))[volume_id].mountpoint
                raise DeviceDetachFailed(device=device, name=instance_uuid, timeout_s=timeout_s)

    async def extend_volume(self, connection_info: ConnectionInfo, instance_uuid: str, requested_size: int) -> None:
        await check_grown(connection_info, requested_size, machine=instance_uuid)
        async with self._holding(instance_uuid):
            disk = await self._disk(instance_uuid, str(connection_info["serial"]))
            await self._ask("resize", instance_uuid, target=disk.mountpoint.removeprefix("/dev/"), size=requested_size)

    async def disks(self, instance_uuid: str) -> dict[str, str]:
        async with self._holding(instance_uuid):
            return {volume_id: disk.mountpoint for volume_id, disk in (await self._disks(instance_uuid)).items()}

    async def leftovers(self) -> dict[str, list[str]]:
        """Definitions of machines that died, and secrets of disks that were cut short."""
        domains = await self._domains()
        found = {domain["uuid"]: [f"domain {machine_name(domain['uuid'])}"] for domain in domains if not domain["is_active"]}
        alive = {domain["uuid"] for domain in domains if domain["is_active"]}
        for uuid in {uuid for uuid, _ in await self._secrets()} & alive:
            async with self._holding(uuid):  # while a disk is being plugged its secret is of use
                parts = [f"secret {secret_uuid(volume_id)}" for of, volume_id in await self._secrets() if of == uuid]
            if parts:
                found[uuid] = sorted(parts)
        return found

    async def write_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> None:
        check_pattern(pattern, offset=offset, length=length)
        async with self._holding(instance_uuid):
            disk = await self._disk(instance_uuid, volume_id)
            fields: dict[str, Any] = {"alias": disk.alias, "pattern": pattern, "offset": offset, "length": length}
            said = await self._ask("write_pattern", instance_uuid, **fields)
            is_written = await self._ask("verify_pattern", instance_uuid, **fields)
        if not is_written:
            reason = f"the disk did not take {length} bytes at {offset}: {said or 'no word why'}"
            raise HypervisorRefused(name=instance_uuid, command="write_pattern", reason=reason)

    async def verify_pattern(self, instance_uuid: str, volume_id: str, *, pattern: int, offset: int, length: int) -> bool:
        check_pattern(pattern, offset=offset, length=length)
        async with self._holding(instance_uuid):
            disk = await self._disk(instance_uuid, volume_id)
            fields: dict[str, Any] = {"alias": disk.alias, "pattern": pattern, "offset": offset, "length": length}
            return bool(await self._ask("verify_pattern", instance_uuid, **fields))

    async def watch(self, tell: Callable[[], None]) -> None:
        """Again after a libvirtd that was away."""
        while True:
            with suppress(HypervisorUnavailable, HypervisorRefused):
                await self._client.watch(tell)
            await self._clock.sleep(_WATCH_AGAIN_S)

    async def close(self) -> None:
        """Nothing is held between operations."""

    @asynccontextmanager
    async def _holding(self, uuid: str) -> AsyncIterator[None]:
        if not is_uuid(uuid):
            raise Invalid(reason=f"{uuid!r} is not the uuid of an instance")
        async with self._locks.hold(uuid):
            yield

    async def _ask(self, verb: str, uuid: str, *, timeout_s: float | None = None, hidden: str | None = None, **fields: Any) -> Any:
        limit = self._options.command_timeout_s if timeout_s is None else timeout_s
        return await self._client.ask(verb, name=uuid, timeout_s=limit, hidden=hidden, uuid=uuid, **fields)

    async def _attach(self, volume: Volume, secret: Secret | None, uuid: str, conf: str) -> str:
        """Taken back when it is not known what became of it: nothing of a failed attachment may stay."""
        is_over = False
        try:
            done: str = await self._ask(
                "attach",
                uuid,
                hidden=None if secret is None else secret.value,
                alias=disk_alias(volume.volume_id),
                disks_max=self._options.disks_max,
                xml=disk_xml(volume, ceph_conf=conf),
                secret=None if secret is None else {"xml": secret.xml, "value": secret.base64},
            )
            is_over = True
        except HypervisorRefused:
            is_over = True
            raise
        finally:
            if not is_over:
                await self._take_back(volume.volume_id, uuid)
        return done

    async def _check(self, volume: Volume, uuid: str, conf: str) -> None:
        """Before the guest can see it. A key that only libvirt knows opens nothing here: such a volume is taken on trust."""
        if volume.size_gib is None or (
            isinstance(volume.source, RbdSource) and volume.source.secret_uuid and not volume.source.key
        ):
            return
        size = await shown_size(volume, machine=uuid, ceph_conf=conf, timeout_s=self._options.command_timeout_s)
        check_size(volume.size_gib, size, machine=uuid, volume_id=volume.volume_id)

    async def _take_back(self, volume_id: str, uuid: str) -> None:
        fields: dict[str, Any] = {"alias": disk_alias(volume_id), "secret_uuid": secret_uuid(volume_id)}
        with suppress(Fault):
            await self._ask("detach", uuid, **fields, wait_s=self._options.detach_timeout_s)

    async def _domains(self) -> list[dict[str, Any]]:
        """Those of this host."""
        timeout_s = self._options.command_timeout_s
        found: list[dict[str, Any]] = await self._client.ask("list", name=self._host, timeout_s=timeout_s)
        return [domain for domain in found if is_of_host(domain["xml"], self._host)]

    async def _secrets(self) -> list[tuple[str, str]]:
        """(machine, volume) of those that are ours."""
        found: list[str] = await self._client.ask("secrets", name=self._host, timeout_s=self._options.command_timeout_s)
        return [ours for secret in found if (ours := parse_secret(secret)) is not None]

    async def _disks(self, uuid: str) -> dict[str, FoundDisk]:
        return parse_disks(str(await self._ask("disks", uuid)))

    async def _disk(self, uuid: str, volume_id: str) -> FoundDisk:
        disk = (await self._disks(uuid)).get(volume_id)
        if disk is None:
            raise VolumeBDMNotFound(volume_id=volume_id, instance_uuid=uuid)
        return disk
