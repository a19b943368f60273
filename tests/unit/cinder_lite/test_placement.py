"""Where a new volume goes, and what is said when it goes nowhere."""

import msgspec
import pytest

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.domain.placement import Backend, place
from cinder_lite.errors import NoValidBackend
from cinder_lite.ports.driver import VolumeStats


def volume(size: int = 5, *, volume_type: str | None = None, availability_zone: str | None = None) -> Volume:
    return Volume(id="1", size=size, status=VolumeStatus.CREATING, volume_type=volume_type, availability_zone=availability_zone)


def report(free: float = 50.0, *, name: str = "file", pool: str = "") -> VolumeStats:
    return VolumeStats(
        volume_backend_name=name,
        pool_name=pool,
        storage_protocol="iSCSI",
        driver_version="1.0.0",
        total_capacity_gb=100.0,
        free_capacity_gb=free,
        provisioned_capacity_gb=100.0 - free,
    )


def test_the_backend_with_most_room_is_chosen() -> None:
    backends = [Backend("a@file", True, report(10)), Backend("b@file", True, report(30)), Backend("c@file", True, report(20))]
    assert place(volume(), backends).host == "b@file#file"


def test_of_two_alike_the_first_by_name_is_chosen() -> None:
    assert place(volume(), [Backend("b@file", True, report()), Backend("a@file", True, report())]).host == "a@file#file"


def test_the_pool_that_a_backend_reports_is_in_the_host() -> None:
    assert place(volume(), [Backend("a@file", True, report(pool="fast"))]).host == "a@file#fast"


def test_what_was_placed_since_the_report_counts() -> None:
    backends = [Backend("a@file", True, report(30), consumed_gb=15), Backend("b@file", True, report(20))]
    assert place(volume(), backends).host == "b@file#file"


def test_every_refused_backend_has_its_reason_in_the_error() -> None:
    backends = [
        Backend("host1@file", True, report(3.2)),
        Backend("host1@lvm", False, report()),
        Backend("host2@file", True, None),
    ]
    placement = place(volume(), backends)
    assert placement.host is None
    assert str(NoValidBackend(reason=placement.reason)) == (
        "No valid backend was found. host1@file: 5 GiB wanted, 3.2 GiB free; host1@lvm: service is down; "
        "host2@file: it has not reported its capacity yet"
    )


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (volume(availability_zone="az2"), "availability zone az2 wanted, this is az1"),
        (volume(volume_type="lvm"), "volume type lvm wanted, this is file"),
        (volume(availability_zone="az1", volume_type="file"), None),
    ],
)
def test_zone_and_type_are_as_asked(wanted: Volume, reason: str | None) -> None:
    placement = place(wanted, [Backend("a@file", True, report(), availability_zone="az1")])
    assert placement.refusals == ((("a@file", reason),) if reason else ())


def test_a_backend_in_no_zone_takes_no_volume_that_names_one() -> None:
    assert place(volume(availability_zone="az1"), [Backend("a@file", True, report())]).host is None


def test_no_backend_at_all_is_said_so() -> None:
    assert place(volume(), []).reason == "No cinder-volume service has reported a backend yet."


def test_a_volume_is_placed_though_others_refuse() -> None:
    placement = place(
        msgspec.structs.replace(volume(), size=20), [Backend("a@f", True, report(10)), Backend("b@f", True, report(30))]
    )
    assert (placement.host, placement.refusals) == ("b@f#file", (("a@f", "20 GiB wanted, 10 GiB free"),))
