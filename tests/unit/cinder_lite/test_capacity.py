"""What fits in a backend, by cinder's arithmetic."""

import pytest

from cinder_lite.domain.capacity import free_virtual_gb, lack_of_room
from cinder_lite.ports.driver import VolumeStats


def stats(
    *,
    total: float = 100.0,
    free: float = 40.0,
    provisioned: float = 60.0,
    reserved: int = 0,
    ratio: float = 1.0,
    thin: bool = False,
) -> VolumeStats:
    return VolumeStats(
        volume_backend_name="file",
        storage_protocol="iSCSI",
        driver_version="1.0.0",
        total_capacity_gb=total,
        free_capacity_gb=free,
        provisioned_capacity_gb=provisioned,
        reserved_percentage=reserved,
        max_over_subscription_ratio=ratio,
        thin_provisioning_support=thin,
    )


@pytest.mark.parametrize(
    ("report", "consumed", "expected"),
    [
        pytest.param(stats(), 0, 40.0, id="a thick place gives what is free"),
        pytest.param(stats(), 15, 25.0, id="what was placed since the report is gone"),
        pytest.param(stats(total=105, reserved=10), 0, 30.0, id="the reserve is part of the total, in whole GiB"),
        pytest.param(stats(ratio=3), 0, 40.0, id="a thick place has no use for a ratio"),
        pytest.param(stats(thin=True, ratio=1), 0, 40.0, id="thin with ratio 1"),
        pytest.param(stats(thin=True, ratio=1.5, free=90), 0, 90.0, id="thin: the promises are the limit"),
        pytest.param(stats(thin=True, ratio=20, free=2), 0, 40.0, id="thin: what is free, that many times, is the limit"),
        pytest.param(stats(thin=True, ratio=2, free=90), 10, 130.0, id="thin: a placement is a promise"),
        pytest.param(stats(thin=True, ratio=0.5), 0, 0.0, id="thin with a ratio below 1 is a mistake"),
        pytest.param(stats(total=0, free=10), 0, 0.0, id="a place without size"),
    ],
)
def test_free_virtual_capacity(report: VolumeStats, consumed: float, expected: float) -> None:
    assert free_virtual_gb(report, consumed_gb=consumed) == pytest.approx(expected)


def test_a_volume_as_large_as_what_is_free_fits() -> None:
    assert lack_of_room(40, stats()) is None


def test_a_refusal_tells_what_was_wanted_and_what_is_free() -> None:
    assert lack_of_room(5, stats(free=3.2)) == "5 GiB wanted, 3.2 GiB free"


def test_a_refusal_never_seems_to_have_room() -> None:
    assert lack_of_room(5, stats(free=4.999)) == "5 GiB wanted, 4.9 GiB free"


def test_a_place_that_has_promised_too_much_has_nothing_free() -> None:
    assert lack_of_room(1, stats(free=-7)) == "1 GiB wanted, 0 GiB free"
