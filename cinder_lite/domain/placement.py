"""Which backend a new volume goes to: cinder-scheduler's filters and its capacity weigher as plain functions.

A volume type asks for the backend of the same volume_backend_name, which is the one extra spec that we know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cinder_lite.contract import Volume
from cinder_lite.domain.capacity import Capacity, free_virtual_gb, lack_of_room


class Report(Capacity, Protocol):
    """What a backend said of itself; `cinder_lite.ports.driver.VolumeStats` is one."""

    @property
    def volume_backend_name(self) -> str: ...

    @property
    def pool_name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend as the scheduler knows it.

    host          host@backend
    stats         its last report; None when it has made none
    consumed_gb   GiB placed there since, which the report does not count
    """

    host: str
    is_up: bool
    stats: Report | None
    availability_zone: str | None = None
    consumed_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a volume goes, and why not elsewhere.

    host       host@backend#pool; None when no backend is fit
    refusals   (host@backend, reason) of every backend refused, in the order given
    """

    host: str | None
    refusals: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        """The refusals as one line, for NoValidBackend."""
        if self.host is None and not self.refusals:
            return "No cinder-volume service has reported a backend yet."
        return "; ".join(f"{host}: {why}" for host, why in self.refusals)


def place(volume: Volume, backends: Sequence[Backend]) -> Placement:
    """The backend with most room that no filter refuses, as cinder's CapacityWeigher has it; of two alike the first by name."""
    refusals: list[tuple[str, str]] = []
    fit: list[tuple[float, str]] = []
    for backend in backends:
        why_not = refusal(volume, backend)
        if why_not is not None:
            refusals.append((backend.host, why_not))
        elif backend.stats is not None:
            fit.append((-free_virtual_gb(backend.stats, consumed_gb=backend.consumed_gb), pool_of(backend.host, backend.stats)))
    return Placement(min(fit)[1] if fit else None, tuple(refusals))


def refusal(volume: Volume, backend: Backend) -> str | None:
    """Why the volume cannot go there; None when it can. The first reason is told: what is down is not also called full."""
    if not backend.is_up:
        return "service is down"
    if volume.availability_zone not in {None, backend.availability_zone}:
        return f"availability zone {volume.availability_zone} wanted, this is {backend.availability_zone}"
    if backend.stats is None:
        return "it has not reported its capacity yet"
    if volume.volume_type not in {None, backend.stats.volume_backend_name}:
        return f"volume type {volume.volume_type} wanted, this is {backend.stats.volume_backend_name}"
    return lack_of_room(volume.size, backend.stats, consumed_gb=backend.consumed_gb)


def pool_of(host: str, stats: Report) -> str:
    """host@backend#pool; a backend without pools has one by the name of the backend, as in cinder."""
    return f"{host}#{stats.pool_name or stats.volume_backend_name}"
