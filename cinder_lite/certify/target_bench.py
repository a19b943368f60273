"""A target on the bench: the target, disks to export, and hosts that try to get in."""

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.ports.target import Export, Target
from cinder_lite.targets.iscsi_names import new_chap
from common.base.ids import new_uuid

GIB = 1024**3
Connector = dict[str, Any]


def available_volume(*, multiattach: bool = False) -> Volume:
    return Volume(id=new_uuid(), size=1, status=VolumeStatus.AVAILABLE, multiattach=multiattach)


def connector(number: int = 1) -> Connector:
    """What compute host cmp<number> says of itself."""
    return {"host": f"cmp{number}", "ip": "127.0.0.1", "initiator": f"iqn.1993-08.org.debian:01:cmp{number}", "multipath": False}


class TargetBench(Protocol):
    """A target of which nothing is exported that the specification did not ask for, as far as this bench shows it.

    The methods from `take_away` on may raise NotStaged: then what they bring about is not tried on this target.
    """

    @property
    def target(self) -> Target: ...

    async def exports(self) -> set[str]:
        """`Target.exports` without what was there before."""
        ...

    async def disk(self, volume: Volume) -> str:
        """The path of a new disk of 1 GiB at most."""
        ...

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        """Whether that host reaches the disk with the credentials of `export`."""
        ...

    def session(self, export: Export, connector: Connector) -> AbstractAsyncContextManager[None]:
        """That host uses the disk meanwhile, for as long as it is let."""
        ...

    async def sessions(self, export: Export) -> set[str]:
        """The hosts that use it."""
        ...

    async def take_away(self, export: Export) -> None:
        """Makes the next `create_export` of it fail: its disk is gone."""
        ...

    async def grow(self, export: Export, size: int) -> None:
        """The disk has `size` bytes from now on, as when its driver has extended it."""
        ...

    async def capacity(self, export: Export, connector: Connector) -> int:
        """The bytes that the host is told when it asks."""
        ...

    async def close(self) -> None:
        """What the specification left is taken away, as far as it can be."""
        ...


async def new_export(bench: TargetBench, volume: Volume | None = None) -> Export:
    """An export to be made, with credentials where the target needs them."""
    volume = volume or available_volume()
    return Export(volume, await bench.disk(volume), new_chap() if bench.target.needs_chap else None)


def host_name(bench: TargetBench, number: int = 1) -> str:
    """What the target calls host cmp<number> among those whom it lets in."""
    return str(connector(number)["host" if bench.target.kind in {"local", "rbd"} else "initiator"])


def name_of(bench: TargetBench, export: Export) -> str:
    return bench.target.export_name(export.volume)


def has_sessions(bench: TargetBench) -> bool:
    """False for a target through which no byte goes."""
    return bench.target.kind not in {"local", "rbd"}
