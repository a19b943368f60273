"""A volume driver: a place that keeps volumes (cinder.volume.driver, attach-flow 7.1, its storage half).

Guarantees; the conformance suite's tests carry these numbers.
 1. `create_volume` returns when the volume is there with its whole size. There already with that size: nothing happens;
    with another size: VolumeBackendAPIException.
 2. `delete_volume` leaves nothing of it. Gone already: nothing happens. In use: VolumeIsBusy, and it stays.
 3. `local_path` is where a target on this host finds it; it does not change while the volume lives.
 4. `get_volume_stats` counts what the place really has free, and every volume at its full size as provisioned.
 5. A new volume reads as zeros.
 6. A failed `create_volume` leaves nothing.
 7. `list_volumes` names every volume that the place keeps, what is half made of one too, and nothing that is not ours.
"""

from typing import Protocol

import msgspec

from cinder_lite.contract import Volume


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

    def local_path(self, volume: Volume) -> str:
        """An absolute path."""
        ...

    async def get_volume_stats(self) -> VolumeStats: ...

    async def list_volumes(self) -> set[str]:
        """`Volume.name` of each: volume-<uuid>. Raises VolumeBackendAPIException."""
        ...
