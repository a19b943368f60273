"""The demo: the article's scenario, from boot to delete. It is only a client: it knows contracts, no tables."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from common.app.following import follow
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Broken, Fault, NotFound
from common.rpc.contract import Sender
from common.wire.failure import UnsupportedVersion
from nova_lite.contract import BlockDeviceMapping, ComputeAPI, GuestProbe, Instance
from nova_lite.domain.instance import FINAL_STATES
from nova_lite.ports.volumes import BackingStoreProbe, Volume, Volumes, VolumeStatus

Tell = Callable[[str], None]

PATTERN = 0x5A
OFFSET = 8192
LENGTH = 4096
SETTLED = frozenset({VolumeStatus.AVAILABLE, VolumeStatus.IN_USE, VolumeStatus.ERROR, VolumeStatus.ERROR_DELETING})


_TARGETS = {
    "tgt": "target tgt: real iSCSI with CHAP and an ACL",
    "local": "target local: the machine opens the volume's file (tgtd and QEMU are not both on the PATH)",
}
_MACHINES = {
    "qemu": "machine QEMU: a real one, driven by QMP, without a guest system",
    "simulated": "machine simulated",
}


class DemoFailed(Broken):
    """The demo stopped: {reason}"""


@dataclass(frozen=True, slots=True)
class Demo:
    """One run. `tell` gets a line for each thing that was seen."""

    sender: Sender
    clock: Clock
    tell: Tell
    ctx: Context
    cinder_exchange: str | None = None

    @property
    def servers(self) -> ComputeAPI:
        return ComputeAPI.over(self.sender)

    @property
    def volumes(self) -> Volumes:
        return Volumes.over(self.sender, exchange=self.cinder_exchange)

    async def run(self) -> None:
        """Boot, create, attach, write, look, list, detach, attach again, read back, delete. Raises DemoFailed, or what failed."""
        started = self.clock.monotonic()
        suffix = self.ctx.request_id[-4:]
        names = f"int32bit-test-{suffix}", f"int32bit-test-volume-{suffix}"
        try:
            server = await self._boot(names[0])
            volume = await self._create(names[1])
            await self._tell_parts(server, volume)
            await self._use(server, volume)
        except Fault:
            await self._clean_up(*names)
            raise
        self._say(started, "nothing is left of the server, the volume, its export and its disk", label="total")

    async def _use(self, server: Instance, volume: Volume) -> None:
        mapping = await self._attach(server, volume)
        await self._write(server, volume)
        await self._list(server, volume)
        await self._detach(server, volume)
        await self._attach(server, volume, device=mapping.device_name)
        await self._read_back(server, volume)
        await self._delete_server(server, volume)
        await self._delete_volume(volume)

    async def _boot(self, name: str) -> Instance:
        started = self.clock.monotonic()
        server = await self.servers.create(self.ctx, name=name, flavor="m1.small")
        server = await self._settled_server(server.uuid)
        self._expect(server.vm_state == "active", f"server {name} is {server.vm_state}: {_why(server)}")
        self._say(started, f"server {name} is active on host {server.host}", label="boot")
        return server

    async def _create(self, name: str) -> Volume:
        started = self.clock.monotonic()
        volume = await self.volumes.create(self.ctx, size=1, name=name)
        volume = await self._settled_volume(volume.id)
        self._expect_status(volume, VolumeStatus.AVAILABLE)
        self._say(started, f"volume {name} of {volume.size} GiB is available on {volume.host}", label="create")
        return volume

    async def _tell_parts(self, server: Instance, volume: Volume) -> None:
        """One line on what the parts really are."""
        try:
            guest = await self._guest(server).about(self.ctx)
            store = await self._store(volume).about(self.ctx)
        except UnsupportedVersion as exc:
            raise DemoFailed(
                reason="the services do not serve data probes, so nobody can see what a machine writes; "
                "set enable_data_probe = true in [DEFAULT] of nova.conf and cinder.conf and start them again"
            ) from exc
        self.tell(
            f"{'parts':>9}  {_TARGETS.get(store['target'], store['target'])}; {_MACHINES.get(guest['machine'], guest['machine'])}"
        )

    async def _attach(self, server: Instance, volume: Volume, device: str | None = None) -> BlockDeviceMapping:
        started = self.clock.monotonic()
        mapping = await self.servers.attach_volume(self.ctx, server=server.uuid, volume=volume.id, device=device)
        found = await self._settled_volume(volume.id)
        if found.status is not VolumeStatus.IN_USE:
            raise DemoFailed(reason=f"volume {volume.label} is {found.status}: {_why(await self._server(server.uuid))}")
        self._say(started, f"volume {volume.label} is in-use on {server.display_name} as {mapping.device_name}", label="attach")
        return mapping

    async def _write(self, server: Instance, volume: Volume) -> None:
        started = self.clock.monotonic()
        await self._guest(server).write_pattern(
            self.ctx, instance=server, volume_id=volume.id, pattern=PATTERN, offset=OFFSET, length=LENGTH
        )
        self._say(started, f"the machine wrote {LENGTH} bytes of 0x{PATTERN:02x} at {OFFSET} to its disk", label="write")
        started = self.clock.monotonic()
        found = await self._store(volume).read_backing(self.ctx, volume=volume, offset=OFFSET, length=LENGTH)
        self._expect(found["hex"] == f"{PATTERN:02x}" * LENGTH, f"{found['path']} does not hold what the machine wrote")
        self._say(started, f"{found['path']} holds them: {found['hex'][:16]}...", label="look")

    async def _list(self, server: Instance, volume: Volume) -> None:
        started = self.clock.monotonic()
        mappings = await self.servers.volume_attachments(self.ctx, server=server.uuid)
        self._expect(
            [row.volume_id for row in mappings] == [volume.id], f"{server.display_name} lists {len(mappings)} volumes; wanted 1"
        )
        row = mappings[0]
        self._say(started, f"{server.display_name} has {row.device_name} = {row.volume_id}", label="list")

    async def _detach(self, server: Instance, volume: Volume) -> None:
        started = self.clock.monotonic()
        await self.servers.detach_volume(self.ctx, server=server.uuid, volume=volume.id)
        found = await self._settled_volume(volume.id)
        self._expect_status(found, VolumeStatus.AVAILABLE)
        self._say(started, f"volume {volume.label} is available again, its export gone", label="detach")

    async def _read_back(self, server: Instance, volume: Volume) -> None:
        started = self.clock.monotonic()
        is_there = await self._guest(server).verify_pattern(
            self.ctx, instance=server, volume_id=volume.id, pattern=PATTERN, offset=OFFSET, length=LENGTH
        )
        self._expect(is_there, "the machine does not read back what it wrote")
        self._say(started, f"the machine reads the {LENGTH} bytes back", label="read")

    async def _delete_server(self, server: Instance, volume: Volume) -> None:
        """With the volume attached: it comes free by itself."""
        started = self.clock.monotonic()
        await self.servers.delete(self.ctx, server=server.uuid)
        await self._gone(lambda: self._server(server.uuid), f"deleting server {server.display_name}")
        self._expect_status(await self._settled_volume(volume.id), VolumeStatus.AVAILABLE)
        self._say(started, f"server {server.display_name} is gone, and volume {volume.label} is available", label="delete")

    async def _delete_volume(self, volume: Volume) -> None:
        started = self.clock.monotonic()
        await self.volumes.delete(self.ctx, volume_id=volume.id)
        await self._gone(lambda: self.volumes.get(self.ctx, volume_id=volume.id), f"deleting volume {volume.label}")
        self._say(started, f"volume {volume.label} is gone", label="delete")

    def _guest(self, server: Instance) -> GuestProbe:
        return GuestProbe.over(self.sender).on(server.host or "")

    def _store(self, volume: Volume) -> BackingStoreProbe:
        return BackingStoreProbe.over(self.sender, exchange=self.cinder_exchange).on((volume.host or "").split("#", maxsplit=1)[0])

    async def _server(self, uuid: str) -> Instance:
        return await self.servers.get(self.ctx, server=uuid)

    async def _settled_server(self, uuid: str) -> Instance:
        return await follow(
            lambda: self._server(uuid),
            is_final=lambda found: (found.vm_state, found.task_state) in FINAL_STATES,
            shown=lambda found: str(found.vm_state),
            tell=_nobody,
            clock=self.clock,
            what=f"server {uuid}",
        )

    async def _settled_volume(self, volume_id: str) -> Volume:
        return await follow(
            lambda: self.volumes.get(self.ctx, volume_id=volume_id),
            is_final=lambda found: found.status in SETTLED,
            shown=lambda found: str(found.status),
            tell=_nobody,
            clock=self.clock,
            what=f"volume {volume_id}",
        )

    async def _gone(self, look: Callable[[], Awaitable[object]], what: str) -> None:
        async def is_gone() -> bool:
            try:
                await look()
            except NotFound:
                return True
            return False

        await follow(is_gone, is_final=bool, shown=str, tell=_nobody, clock=self.clock, what=what)

    async def _clean_up(self, server: str, volume: str) -> None:
        """Leave nothing behind a demo that failed, as far as the services still answer."""
        try:
            await self.servers.delete(self.ctx, server=server)
            await self._gone(lambda: self.servers.get(self.ctx, server=server), f"deleting server {server}")
            await self.volumes.delete(self.ctx, volume_id=volume)
        except Fault as exc:
            self.tell(f"{'cleanup':>9}  {exc}")

    def _expect(self, is_so: bool, reason: str) -> None:
        if not is_so:
            raise DemoFailed(reason=reason)

    def _expect_status(self, volume: Volume, wanted: VolumeStatus) -> None:
        said = f": {volume.messages[0].user_message}" if volume.messages else ""
        self._expect(volume.status is wanted, f"volume {volume.label} is {volume.status}, wanted {wanted}{said}")

    def _say(self, started: float, text: str, *, label: str) -> None:
        self.tell(f"{label:>9}  {text}  ({(self.clock.monotonic() - started) * 1000:.0f} ms)")


def _why(server: Instance) -> str:
    return server.fault.message if server.fault else "no fault is recorded"


def _nobody(_: str) -> None:
    """Waiting in silence: each line of the demo says how long it took."""


def main(sender: Sender, clock: Clock, tell: Tell) -> Awaitable[None]:
    """What `lite demo` runs."""
    return Demo(sender, clock, tell, Context(user_id="demo", project_id="demo")).run()
