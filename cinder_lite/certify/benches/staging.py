"""Bringing about what only the place behind a driver can show: things of others, and what a maker who died has left."""

from typing import Protocol

from cinder_lite.certify.specification import NotStaged
from cinder_lite.contract import Snapshot, Volume


class Staging(Protocol):
    """What a bench of files or devices is given of one kind of place; the methods are `DriverBench`'s."""

    async def others(self) -> set[str]:
        """Names of whatever is in the place that the driver does not list."""
        ...

    async def add_strangers(self) -> None: ...

    async def begin_volume(self, volume: Volume) -> None: ...

    async def begin_snapshot(self, snapshot: Snapshot) -> None: ...

    async def begin_clone(self, volume: Volume, source: Volume) -> None: ...

    async def close(self) -> None:
        """What was brought about is taken away."""
        ...


class NothingStaged:
    """Implements `Staging` for a place of which nothing is known but its driver."""

    async def others(self) -> set[str]:
        return set()

    async def add_strangers(self) -> None:
        raise NotStaged("nobody can say what a stranger in this place is")

    async def begin_volume(self, volume: Volume) -> None:
        raise NotStaged(f"nobody can say what a half-made {volume.name} is in this place")

    async def begin_snapshot(self, snapshot: Snapshot) -> None:
        raise NotStaged(f"nobody can say what a half-made {snapshot.name} is in this place")

    async def begin_clone(self, volume: Volume, source: Volume) -> None:
        raise NotStaged(f"nobody can say what a half-made clone {volume.name} of {source.name} is in this place")

    async def close(self) -> None:
        """Nothing was brought about."""
