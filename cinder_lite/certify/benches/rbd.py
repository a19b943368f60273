"""The bench of the rbd driver: rbd's own programs, and QEMU's for the bytes, as a machine reads them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from cinder_lite.certify.benches.local import clean, is_listed
from cinder_lite.certify.specification import NotAsSpecified, NotStaged
from cinder_lite.contract import Snapshot, Volume
from cinder_lite.drivers.rbd import RbdDriver
from cinder_lite.drivers.rbd_commands import Rbd
from common.base.clock import Clock
from common.base.ids import new_uuid
from common.host.command import run

_QEMU_TIMEOUT_S = 30.0


class RbdBench:
    """Implements `cinder_lite.certify.driver_bench.DriverBench`. What was there before is neither named nor touched."""

    def __init__(self, driver: RbdDriver, rbd: Rbd, clock: Clock, before: set[str]) -> None:
        self.driver = driver
        self._rbd = rbd
        self._clock = clock
        self._before = before
        self._staged: list[str] = []

    @classmethod
    async def over(cls, driver: RbdDriver, rbd: Rbd, clock: Clock) -> Self:
        await driver.check_for_setup_error()
        return cls(driver, rbd, clock, await _names(rbd))

    async def names(self) -> set[str]:
        return await _names(self._rbd) - self._before

    async def size_of(self, name: str) -> int:
        found = await self._rbd.info(name)
        if found is None:
            raise NotAsSpecified(f"image {name} is not there")
        return found.size

    async def read(self, volume: Volume, offset: int, length: int) -> bytes:
        said = await self._qemu_io(volume, f"read -v {offset} {length}")
        # "00000000:  11 11 ... 11  ................", 16 bytes a line, and two lines of figures at the end.
        lines = [line.partition(":  ")[2][:47] for line in said.splitlines() if ":  " in line]
        return bytes.fromhex("".join(lines).replace(" ", ""))

    async def write(self, volume: Volume, offset: int, data: bytes) -> None:
        assert len(set(data)) == 1, "qemu-io writes one byte many times"
        await self._qemu_io(volume, f"write -P {data[0]} {offset} {len(data)}")

    @asynccontextmanager
    async def used(self, volume: Volume) -> AsyncIterator[None]:
        """A watcher, as every client is that has an image open."""
        pipe = asyncio.subprocess.PIPE
        nothing = asyncio.subprocess.DEVNULL
        argv = ("rbd", *self._login(), "watch", f"{self._rbd.pool}/{volume.name}")
        watcher = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=nothing, stderr=nothing)
        try:
            async with asyncio.timeout(_QEMU_TIMEOUT_S):
                while not await self._rbd.watchers(volume.name):
                    await self._clock.sleep(0.05)
            yield
        finally:
            await watcher.communicate(b"\n")

    async def add_strangers(self) -> None:
        for name in ("volume-of-another", f"backup-volume-{new_uuid()}", f"volume-{new_uuid()}.deleted", "snapshot-1"):
            await self._add(name, 1)
            await self._rbd.snap(name, f"snapshot-{new_uuid()}")

    async def begin_volume(self, volume: Volume) -> None:
        await self._add(f"{volume.name}.unfinished", 1)

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        """Taken, and not protected yet."""
        await self._rbd.ask("snap", "create", "--no-progress", of=f"{snapshot.volume_name}@{snapshot.name}")

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        moment = f"{volume.name}.clone_snap"
        await self._rbd.snap(source.name, moment)
        await self._rbd.clone(source.name, moment, f"{volume.name}.unfinished")

    async def close(self) -> None:
        for name in self._staged:
            for snapshot in await self._rbd.snapshots(name):
                await self._rbd.unsnap(name, snapshot)
            await self._rbd.remove(name)
        await clean(self.driver, self._before)

    async def _add(self, name: str, size: int) -> None:
        await self._rbd.create(name, size)
        self._staged.append(name)

    async def _qemu_io(self, volume: Volume, command: str) -> str:
        rbd = self._rbd
        parts = (
            f"rbd:{rbd.pool}/{volume.name}",
            *([f"id={rbd.user}"] if rbd.user else []),
            *([f"conf={rbd.conf}"] if rbd.conf else []),
        )
        try:
            output = await run("qemu-io", "-f", "raw", "-c", command, ":".join(parts), timeout_s=_QEMU_TIMEOUT_S)
        except FileNotFoundError as exc:
            raise NotStaged("qemu-io (package qemu-utils) is missing on this machine") from exc
        if output.status != 0 or "failed" in output.stdout:
            raise NotAsSpecified(f"{command} of {volume.name}: {output.said}")
        return output.stdout

    def _login(self) -> tuple[str, ...]:
        rbd = self._rbd
        return (*(("--id", rbd.user) if rbd.user else ()), *(("--conf", str(rbd.conf)) if rbd.conf else ()))


async def _names(rbd: Rbd) -> set[str]:
    """Images, and their snapshots that a driver lists by name alone; others by image and name."""
    listing = await rbd.listing()
    return set(listing.images) | {name if is_listed(name) else f"{image}@{name}" for image, name in listing.snapshots}
