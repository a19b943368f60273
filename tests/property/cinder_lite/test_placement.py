"""Whatever the backends report: nothing is placed where it does not fit, and every refusal has a reason."""

import math
from random import Random

from hypothesis import given, strategies as st

from cinder_lite.contract import Volume, VolumeStatus
from cinder_lite.domain.placement import Backend, place
from cinder_lite.ports.driver import VolumeStats

sizes_gb = st.floats(0, 1000, allow_nan=False)


@st.composite
def reports(draw: st.DrawFn) -> VolumeStats:
    total = draw(sizes_gb)
    return VolumeStats(
        volume_backend_name=draw(st.sampled_from(["file", "lvm"])),
        storage_protocol="iSCSI",
        driver_version="1.0.0",
        total_capacity_gb=total,
        free_capacity_gb=draw(st.floats(0, total)),
        provisioned_capacity_gb=draw(sizes_gb),
        reserved_percentage=draw(st.integers(0, 100)),
        max_over_subscription_ratio=draw(st.sampled_from([0.5, 1.0, 1.5, 20.0])),
        thin_provisioning_support=draw(st.booleans()),
    )


@st.composite
def some_backends(draw: st.DrawFn) -> list[Backend]:
    return [
        Backend(
            host=f"host{number}@backend",
            is_up=draw(st.booleans()),
            stats=draw(st.none() | reports()),
            availability_zone=draw(st.sampled_from([None, "a", "b"])),
            consumed_gb=draw(sizes_gb),
        )
        for number in range(draw(st.integers(0, 5)))
    ]


volumes = st.builds(
    lambda size, volume_type, zone: Volume(
        id="1", size=size, status=VolumeStatus.CREATING, volume_type=volume_type, availability_zone=zone
    ),
    st.integers(1, 500),
    st.sampled_from([None, "file", "lvm"]),
    st.sampled_from([None, "a", "b"]),
)


@given(volumes, some_backends())
def test_a_chosen_backend_is_up_and_has_the_room(volume: Volume, backends: list[Backend]) -> None:
    placement = place(volume, backends)
    if placement.host is None:
        return
    chosen = next(backend for backend in backends if placement.host.startswith(f"{backend.host}#"))
    stats = chosen.stats
    assert chosen.is_up
    assert stats is not None
    left = stats.free_capacity_gb - chosen.consumed_gb - math.floor(stats.total_capacity_gb * stats.reserved_percentage / 100)
    if stats.thin_provisioning_support:
        promised = stats.provisioned_capacity_gb + chosen.consumed_gb + volume.size
        assert promised <= stats.total_capacity_gb * stats.max_over_subscription_ratio + 1e-6
        assert volume.size <= left * stats.max_over_subscription_ratio + 1e-6
    else:
        assert volume.size <= left


@given(volumes, some_backends())
def test_a_refused_volume_has_a_reason_from_each_backend(volume: Volume, backends: list[Backend]) -> None:
    placement = place(volume, backends)
    refused = {host for host, reason in placement.refusals if reason}
    assert len(refused) == len(placement.refusals)
    if placement.host is None:
        assert refused == {backend.host for backend in backends}
        assert placement.reason
    else:
        assert refused < {backend.host for backend in backends}


@given(volumes, some_backends(), st.randoms())
def test_the_order_of_the_backends_does_not_matter(volume: Volume, backends: list[Backend], random: Random) -> None:
    shuffled = backends.copy()
    random.shuffle(shuffled)
    assert place(volume, shuffled).host == place(volume, backends).host
