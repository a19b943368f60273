"""Whether a volume fits in a backend: cinder's CapacityFilter as two functions.

Source: cinder/scheduler/filters/capacity_filter.py and `calculate_virtual_free_capacity`. Sizes are GiB, real numbers.
"""

import math
from typing import Protocol


class Capacity(Protocol):
    """The figures of a backend's report that decide; `cinder_lite.ports.driver.VolumeStats` has them."""

    @property
    def total_capacity_gb(self) -> float: ...

    @property
    def free_capacity_gb(self) -> float: ...

    @property
    def provisioned_capacity_gb(self) -> float: ...

    @property
    def reserved_percentage(self) -> int: ...

    @property
    def max_over_subscription_ratio(self) -> float: ...

    @property
    def thin_provisioning_support(self) -> bool: ...


def free_virtual_gb(stats: Capacity, *, consumed_gb: float = 0.0) -> float:
    """The largest volume that fits; below 0 when the place is promised beyond its limit.

    consumed_gb   what was placed there since the report

    Reserved is `reserved_percentage` of the total, rounded down to whole GiB. A thick place gives what is free less the reserve.
    A thin one gives that many times `max_over_subscription_ratio`, but never promises more than total times ratio in all; with
    a ratio below 1 it gives nothing, for cinder calls that a mistake.
    """
    if stats.total_capacity_gb <= 0:
        return 0.0
    reserved = math.floor(stats.total_capacity_gb * stats.reserved_percentage / 100)
    free = stats.free_capacity_gb - consumed_gb - reserved
    if not stats.thin_provisioning_support:
        return free
    ratio = stats.max_over_subscription_ratio
    if ratio < 1:
        return 0.0
    promised = stats.provisioned_capacity_gb + consumed_gb
    return min(stats.total_capacity_gb * ratio - promised, free * ratio)


def lack_of_room(size: int, stats: Capacity, *, consumed_gb: float = 0.0) -> str | None:
    """Why a volume of `size` GiB does not fit, as `5 GiB wanted, 3.2 GiB free`; None when it does."""
    free = free_virtual_gb(stats, consumed_gb=consumed_gb)
    if size <= free:
        return None
    # Rounded down, so that a refusal never reads "5 GiB wanted, 5 GiB free".
    shown = max(math.floor(free * 10) / 10, 0.0)
    return f"{size} GiB wanted, {shown:g} GiB free"
