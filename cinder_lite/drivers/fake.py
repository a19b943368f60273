"""A driver that keeps its volumes in memory, and fails when a test tells it to."""

from dataclasses import dataclass, field

from cinder_lite.contract import Volume
from cinder_lite.domain.capacity import lack_of_room
from cinder_lite.errors import VolumeBackendAPIException, VolumeIsBusy
from cinder_lite.ports.driver import VolumeStats
from common.testing.script import Script, When


@dataclass(slots=True)
class FakeDriver:
    """Implements `cinder_lite.ports.driver.VolumeDriver`.

    sizes    volume name -> GiB, of every volume that is there
    in_use   names of volumes that somebody has open
    script   what goes wrong next
    acts     what was asked, as "create_volume volume-1"
    """

    volume_backend_name: str = "fake"
    total_capacity_gb: float = 100.0
    sizes: dict[str, int] = field(default_factory=dict)
    in_use: set[str] = field(default_factory=set)
    script: Script = field(default_factory=Script)
    acts: list[str] = field(default_factory=list)

    async def check_for_setup_error(self) -> None:
        self._begin("check_for_setup_error")
        self.script.strike("check_for_setup_error", When.AFTER)

    async def create_volume(self, volume: Volume) -> None:
        self._begin("create_volume", volume)
        there = self.sizes.get(volume.name)
        if there is None:
            why_not = lack_of_room(volume.size, self._stats())
            if why_not is not None:
                raise VolumeBackendAPIException(data=why_not)
            self.sizes[volume.name] = volume.size
        elif there != volume.size:
            raise VolumeBackendAPIException(data=f"{volume.name} is there with {there} GiB; wanted {volume.size} GiB")
        self.script.strike("create_volume", When.AFTER)

    async def delete_volume(self, volume: Volume) -> None:
        self._begin("delete_volume", volume)
        if volume.name in self.sizes and volume.name in self.in_use:
            raise VolumeIsBusy(volume_name=volume.name, reason="somebody has it open")
        self.sizes.pop(volume.name, None)
        self.script.strike("delete_volume", When.AFTER)

    def local_path(self, volume: Volume) -> str:
        return f"/fake/{self.volume_backend_name}/{volume.name}"

    async def get_volume_stats(self) -> VolumeStats:
        self._begin("get_volume_stats")
        self.script.strike("get_volume_stats", When.AFTER)
        return self._stats()

    async def list_volumes(self) -> set[str]:
        self._begin("list_volumes")
        self.script.strike("list_volumes", When.AFTER)
        return set(self.sizes)

    def _stats(self) -> VolumeStats:
        provisioned = float(sum(self.sizes.values()))
        return VolumeStats(
            volume_backend_name=self.volume_backend_name,
            pool_name=self.volume_backend_name,
            storage_protocol="fake",
            driver_version="1.0.0",
            total_capacity_gb=self.total_capacity_gb,
            free_capacity_gb=self.total_capacity_gb - provisioned,
            provisioned_capacity_gb=provisioned,
        )

    def _begin(self, act: str, volume: Volume | None = None) -> None:
        self.acts.append(f"{act} {volume.name}" if volume else act)
        self.script.strike(act, When.BEFORE)
