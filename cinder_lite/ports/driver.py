"""A volume driver: a place that keeps volumes and snapshots (cinder.volume.driver, attach-flow 7.1, its storage half).

Guarantees; the suite's specifications carry these numbers. "There" and "gone" are seen in the place itself; sizes are GiB.

 1. `create_volume` returns when the volume is there with its whole size. There already with that size: nothing happens;
    with another size: VolumeBackendAPIException.
 2. `delete_volume` leaves nothing of it. Gone already: nothing happens. In use, or with snapshots: VolumeIsBusy, and it stays.
 3. `local_path` is where the target of this backend finds it; it does not change while the volume lives.
 4. `get_volume_stats` counts what the place really has free, and every volume at its full size as provisioned. A snapshot is not
    provisioned; it takes from what is free the room that it needs.
 5. A new volume reads as zeros, whatever was kept in its room before.
 6. A verb that makes something leaves nothing of it when it fails.
 7. `list_volumes` names every volume that the place keeps, what is half made of one too, and nothing that is not ours.
 8. `extend_volume` returns when the volume has `new_size`, whether it is in use or not. What it held stays, what is new reads as
    zeros. It has that size: nothing happens. It is larger, it is not there, or there is no room: VolumeBackendAPIException, and it
    stays as it was.
 9. `create_snapshot` returns when the snapshot keeps what the volume held at one moment; what is written to the volume later does
    not reach it. There already: nothing happens, and it is not taken anew. No such volume, or no room: VolumeBackendAPIException.
    A place that cannot do it at one moment while the volume is in use: VolumeIsBusy.
10. `delete_snapshot` leaves nothing of it, and the volume as it was. Gone already, with or without its volume: nothing happens. A
    volume made from it still needs it: SnapshotIsBusy, and it stays.
11. `create_volume_from_snapshot` returns when the volume is there with its own size, begins with the bytes of the snapshot and reads
    as zeros after them. There already with that size: nothing happens, and its bytes stay; with another size, or made smaller than
    the snapshot, or of a snapshot that is not there, or without room: VolumeBackendAPIException.
12. `create_cloned_volume` does the same with the bytes that volume `src_vref` held at one moment. The two know nothing of each other
    from then on: each can be written, extended and deleted without the other. In use, as in 9.
13. `list_snapshots` names every snapshot that the place keeps, what is half made of one too, and nothing that is not ours; each with
    the volume that it was taken of.
14. A verb that died or was cancelled in the middle can be asked again, and so can its opposite: both do all of their work. What a
    dead one left behind is never taken for the whole.
15. Verbs for different volumes may be asked at once, and several volumes made of one source. For one volume and its snapshots the
    caller asks one at a time.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from cinder_lite.contract import Snapshot, Volume


class VolumeStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend reports to the scheduler; sizes in GiB, real numbers. Keys are cinder's."""

    volume_backend_name: str
    storage_protocol: str
    driver_version: str
    total_capacity_gb: float
    free_capacity_gb: float
    provisioned_capacity_gb: float
    reserved_percentage: int = 0
    max_over_subscription_ratio: float = 1.0
    thin_provisioning_support: bool = False
    multiattach: bool = False
    pool_name: str = ""


class VolumeDriver(Protocol):
    """Numbered guarantees at the head of this module."""

    async def check_for_setup_error(self) -> None:
        """Raises DriverNotInitialized, naming what is missing, when the place cannot be used."""
        ...

    async def create_volume(self, volume: Volume) -> None:
        """Raises VolumeBackendAPIException."""
        ...

    async def delete_volume(self, volume: Volume) -> None:
        """Raises VolumeIsBusy, VolumeBackendAPIException."""
        ...

    async def extend_volume(self, volume: Volume, new_size: int) -> None:
        """new_size   GiB; `volume.size` is not looked at. Raises VolumeBackendAPIException."""
        ...

    async def create_snapshot(self, snapshot: Snapshot) -> None:
        """Raises VolumeIsBusy, VolumeBackendAPIException."""
        ...

    async def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Raises SnapshotIsBusy, VolumeBackendAPIException."""
        ...

    async def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> None:
        """Raises VolumeBackendAPIException."""
        ...

    async def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> None:
        """Raises VolumeIsBusy, VolumeBackendAPIException."""
        ...

    def local_path(self, volume: Volume) -> str:
        """An absolute path; for a place without one, the address that its target knows: "rbd:<pool>/<image>"."""
        ...

    async def get_volume_stats(self) -> VolumeStats: ...

    async def list_volumes(self) -> set[str]:
        """`Volume.name` of each: volume-<uuid>. Raises VolumeBackendAPIException."""
        ...

    async def list_snapshots(self) -> Mapping[str, str]:
        """`Snapshot.name` -> `Snapshot.volume_name` of each. Raises VolumeBackendAPIException."""
        ...
