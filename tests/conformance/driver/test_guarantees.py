"""The specifications of cinder_lite/ports/driver.py, for every driver."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from cinder_lite.certify.driver_bench import DriverBench
from cinder_lite.certify.driver_specs import DRIVER_SPECIFICATIONS
from cinder_lite.certify.specification import NotStaged, Specification
from tests.conformance.driver.rigs import BENCHES, lvm, rbd
from tests.support.ceph import CephCluster
from tests.support.lvm import PrivateGroup

STAGES_ALL = {"file", "lvm", "rbd"}
"""Benches that can bring about every situation: nothing may be skipped on them."""

SHORT = {
    "a volume in use is not deleted",
    "nothing of a deleted volume is seen in the next",
    "a volume is extended while it is in use",
    "a snapshot keeps what the volume held",
    "the source of a clone can be deleted",
    "a half made clone is never taken for the whole",
}
"""What the slow drivers are put to in every run; all of it with --long."""

SLOW = [pytest.param(one, id=str(one), marks=() if one.name in SHORT else (pytest.mark.long,)) for one in DRIVER_SPECIFICATIONS]


async def _check(specification: Specification[DriverBench], opened: AbstractAsyncContextManager[DriverBench], name: str) -> None:
    async with opened as bench:
        await bench.driver.check_for_setup_error()
        try:
            await specification.check(bench)
        except NotStaged as exc:
            if name in STAGES_ALL:
                pytest.fail(f"the bench of {name} stages everything: {exc}")
            pytest.skip(str(exc))
        finally:
            await bench.close()


@pytest.mark.parametrize("name", BENCHES)
@pytest.mark.parametrize("specification", DRIVER_SPECIFICATIONS, ids=str)
async def test_specification(name: str, specification: Specification[DriverBench], tmp_path: Path) -> None:
    await _check(specification, BENCHES[name](tmp_path), name)


@pytest.mark.real("lvm")
@pytest.mark.timeout(120, func_only=True)
@pytest.mark.parametrize("specification", SLOW)
async def test_lvm(specification: Specification[DriverBench], volume_group: PrivateGroup, tmp_path: Path) -> None:
    await _check(specification, lvm(tmp_path, volume_group), "lvm")


@pytest.mark.real("ceph")
@pytest.mark.timeout(120, func_only=True)
@pytest.mark.parametrize("specification", SLOW)
async def test_rbd(specification: Specification[DriverBench], ceph_cluster: CephCluster) -> None:
    await _check(specification, rbd(ceph_cluster), "rbd")


def test_what_is_run_in_short_is_specified() -> None:
    assert {one.name for one in DRIVER_SPECIFICATIONS} >= SHORT
