"""A guest system that answers: commands over its serial console, and its saved state, from which a machine goes on at once."""

import asyncio
import hashlib
import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from common.base.ids import new_uuid
from common.host.clock import SystemClock
from nova_lite.contract import Instance, VmState
from nova_lite.virt.guest import GuestSystem
from nova_lite.virt.qemu import QemuHypervisor
from nova_lite.virt.qemu_argv import CONSOLE, SERIAL, QemuOptions
from nova_lite.virt.qmp_client import open_qmp

BOOT_TIMEOUT_S = 120.0
"""Longest boot by translation on a machine that does other things too."""
READY = "=ready"
_END = "=end "
_PATIENCE_S = 3.0
MEMORY_MIB = 128


def guest_folder() -> Path:
    """Where deploy/lab/guest.sh has put kernel and initramfs: .guest in the checkout, or LITE_GUEST."""
    return Path(os.environ.get("LITE_GUEST") or Path(__file__).parents[2] / ".guest").absolute()


def guest_missing() -> str | None:
    """What is missing of the guest; None: nothing."""
    absent = [name for name in ("vmlinuz", "initrd.gz") if not (guest_folder() / name).exists()]
    return f"{', '.join(absent)} in {guest_folder()} (make guest)" if absent else None


def guest_system() -> GuestSystem:
    folder = guest_folder()
    return GuestSystem(str(folder / "vmlinuz"), str(folder / "initrd.gz"))


@dataclass
class GuestShell:
    """The console of a guest. One command at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    reading: asyncio.ReadTransport | None = None

    @classmethod
    async def at_socket(cls, path: Path) -> Self:
        """Of a console that is a socket."""
        here = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            return cls(*await asyncio.open_unix_connection(f"/proc/self/fd/{here}/{path.name}"))
        finally:
            os.close(here)

    @classmethod
    async def at_terminal(cls, path: str) -> Self:
        """Of a console that is a pseudo terminal."""
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        files = [os.fdopen(os.open(path, os.O_RDWR | os.O_NOCTTY), "r+b", buffering=0) for _ in range(2)]
        reading, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), files[0])
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, files[1])
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop), reading)

    async def run(self, command: str, *, timeout_s: float = 60.0) -> str:
        """What the command prints. Raises AssertionError with it when the command fails."""
        self.writer.write(f"{command}\n".encode())
        await self.writer.drain()
        said: list[str] = []
        async with asyncio.timeout(timeout_s):
            while not (line := (await self.reader.readline()).decode(errors="replace").strip()).startswith(_END):
                said.append(line)
        text = "\n".join(part for part in said if part and not part.startswith(READY))
        assert line == f"{_END}0", f"{command}: {line}: {text}"
        return text

    async def ready(self, *, timeout_s: float) -> None:
        """Returns once it answers; what was said before is passed over."""
        async with asyncio.timeout(timeout_s):
            while True:
                mark = f"={new_uuid()}"
                self.writer.write(f"echo {mark}\n".encode())
                try:
                    async with asyncio.timeout(_PATIENCE_S):
                        # A console that is not set up yet sends the command itself back.
                        while (await self.reader.readline()).decode(errors="replace").strip() != mark:
                            pass
                        # Its end; the kernel may say something in between.
                        while not (await self.reader.readline()).startswith(_END.encode()):
                            pass
                except TimeoutError:
                    continue
                return

    async def until(self, command: str, *, timeout_s: float = 30.0) -> str:
        """What the command prints once it succeeds."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    return await self.run(command)
                except AssertionError:
                    await SystemClock().sleep(0.02)

    async def disk(self, volume_id: str) -> str:
        """/dev/vdX, once the guest sees the volume."""
        return "/dev/" + await self.until(f"disk {shlex.quote(volume_id[:20])}")

    async def write(self, volume_id: str, text: str, *, at_mib: int, mib: int = 1) -> str:
        """Fills a range with the text, over and over, and flushes it; the SHA-256 of the range."""
        device = await self.disk(volume_id)
        fill = f"yes {shlex.quote(text)} | head -c {mib << 20}"
        await self.run(f"{fill} | dd of={device} bs=64k seek={at_mib * 16} conv=fsync 2>/dev/null")
        return filled(text, mib)

    async def sum(self, volume_id: str, *, at_mib: int, mib: int = 1) -> str:
        """The SHA-256 of a range, read from the disk and not from memory."""
        device = await self.disk(volume_id)
        await self.run(f"blockdev --flushbufs {device}; echo 3 > /proc/sys/vm/drop_caches")
        said = await self.run(f"dd if={device} bs=64k skip={at_mib * 16} count={mib * 16} 2>/dev/null | sha256sum")
        return said.split()[0]

    async def size(self, volume_id: str) -> int:
        """Bytes, as the guest sees them."""
        return int(await self.run(f"blockdev --getsize64 {await self.disk(volume_id)}"))

    def close(self) -> None:
        self.writer.transport.abort()
        if self.reading is not None:
            self.reading.close()


def filled(text: str | None, mib: int = 1) -> str:
    """The SHA-256 of that many MiB of the text, each time with a new line; None: of zeros."""
    line = b"\0" if text is None else f"{text}\n".encode()
    size = mib * 1024 * 1024
    return hashlib.sha256((line * (size // len(line) + 1))[:size]).hexdigest()


@asynccontextmanager
async def console(hypervisor: QemuHypervisor, uuid: str) -> AsyncIterator[GuestShell]:
    """The console of a machine of QEMU's."""
    shell = await GuestShell.at_socket(hypervisor.folder_of(uuid) / SERIAL)
    try:
        yield shell
    finally:
        shell.close()


async def booted(hypervisor: QemuHypervisor, uuid: str) -> None:
    """Returns once the guest takes commands."""
    log = hypervisor.folder_of(uuid) / CONSOLE
    async with asyncio.timeout(BOOT_TIMEOUT_S):
        while READY.encode() not in log.read_bytes():
            await SystemClock().sleep(0.05)


def guest_options(**more: object) -> QemuOptions:
    """Of machines that boot the guest. A saved state fits only machines of these very options."""
    return QemuOptions(guest=guest_system(), memory_mib_max=MEMORY_MIB, disks_max=3, **more)  # type: ignore[arg-type]  # by their names


def guest_instance(uuid: str | None = None) -> Instance:
    return Instance(uuid=uuid or new_uuid(), display_name="guest", vm_state=VmState.BUILDING, memory_mb=MEMORY_MIB, vcpus=1)


async def save_state(folder: Path) -> Path:
    """Boots the guest once; the path of a state from which any other machine goes on."""
    hypervisor = QemuHypervisor(folder, SystemClock(), guest_options(spawn_timeout_s=BOOT_TIMEOUT_S))
    instance, state = guest_instance(), folder / "state.bin"
    await hypervisor.spawn(instance)
    try:
        await booted(hypervisor, instance.uuid)
        async with open_qmp(hypervisor.folder_of(instance.uuid), name="guest", timeout_s=60) as qmp:
            await qmp.execute("migrate-set-parameters", {"max-bandwidth": 10**10})
            await qmp.execute("migrate", {"uri": f"exec:cat > {shlex.quote(str(state))}"})
            async with asyncio.timeout(60):
                while (await qmp.execute("query-migrate"))["status"] != "completed":
                    await SystemClock().sleep(0.02)
    finally:
        await hypervisor.destroy(instance.uuid)
    return state
