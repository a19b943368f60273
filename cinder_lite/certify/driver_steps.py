"""What the driver's specifications are made of: short steps on a bench."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cinder_lite.certify.driver_bench import GIB, DriverBench, new_snapshot, new_volume
from cinder_lite.certify.specification import expect
from cinder_lite.contract import Snapshot, Volume

BLOCK_BYTES = 4096
CANCEL_AFTER_S = (0.0, 0.0005, 0.002, 0.01, 0.05)
"""From before the first command of a slow backend to the middle of its work; a fast one has ended by then."""


def block(byte: int) -> bytes:
    return bytes([byte]) * BLOCK_BYTES


async def made_volume(bench: DriverBench, size: int = 1, *, byte: int | None = None, offset: int = 0) -> Volume:
    """A new volume, with a block of `byte` at `offset`."""
    volume = new_volume(size)
    await bench.driver.create_volume(volume)
    if byte is not None:
        await bench.write(volume, offset, block(byte))
    return volume


async def made_snapshot(bench: DriverBench, volume: Volume) -> Snapshot:
    snapshot = new_snapshot(volume)
    await bench.driver.create_snapshot(snapshot)
    return snapshot


async def expect_block(bench: DriverBench, volume: Volume, byte: int, *, offset: int = 0, of: str = "the volume") -> None:
    """Every byte of the block at `offset` is `byte`."""
    found = await bench.read(volume, offset, BLOCK_BYTES)
    expect(f"bytes of {of} ({volume.name}) at {offset}", sorted(set(found)), [byte])


async def expect_size(bench: DriverBench, volume: Volume, size: int) -> None:
    expect(f"bytes of {volume.name}", await bench.size_of(volume.name), size * GIB)


async def expect_names(bench: DriverBench, *wanted: Volume | Snapshot) -> None:
    expect("what is in the place", await bench.names(), {thing.name for thing in wanted})


async def expect_listed(bench: DriverBench, *wanted: Volume) -> None:
    """`list_volumes` names them; it may name others, which were there before."""
    names = {volume.name for volume in wanted}
    expect("listed of them", await bench.driver.list_volumes() & names, names)


async def expect_not_listed(bench: DriverBench, *unwanted: Volume) -> None:
    expect("listed of them", await bench.driver.list_volumes() & {volume.name for volume in unwanted}, set())


async def cancelled_anywhere(verb: Callable[[], Awaitable[None]], then: Callable[[], Awaitable[None]]) -> None:
    """`verb` is cancelled after longer and longer times; each time `then` shows what can be done after that."""
    for after_s in CANCEL_AFTER_S:
        with suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await verb()
        await then()
