"""The specifications of cinder_lite/ports/driver.py, for every driver."""

from pathlib import Path

import pytest

from cinder_lite.certify.driver_bench import DriverBench
from cinder_lite.certify.driver_specs import DRIVER_SPECIFICATIONS
from cinder_lite.certify.specification import NotStaged, Specification
from tests.conformance.driver.rigs import BENCHES

STAGES_ALL = {"file"}
"""Benches that can bring about every situation: nothing may be skipped on them."""


@pytest.mark.parametrize("name", BENCHES)
@pytest.mark.parametrize("specification", DRIVER_SPECIFICATIONS, ids=str)
async def test_specification(name: str, specification: Specification[DriverBench], tmp_path: Path) -> None:
    async with BENCHES[name](tmp_path) as bench:
        await bench.driver.check_for_setup_error()
        try:
            await specification.check(bench)
        except NotStaged as exc:
            if name in STAGES_ALL:
                pytest.fail(f"the bench of {name} stages everything: {exc}")
            pytest.skip(str(exc))
        finally:
            await bench.close()
