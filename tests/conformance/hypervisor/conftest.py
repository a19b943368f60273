"""The benches, one for each adapter of the port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.hypervisor.bench import ALL, Bench, FakeBench, QemuBench, QemuIscsiBench, SimulatedBench, SimulationBench


@pytest.fixture(params=ALL)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    made = _bench(request.param, tmp_path)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def qemu(tmp_path: Path) -> AsyncIterator[QemuBench]:
    """For what only QEMU has."""
    made = QemuBench(tmp_path)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def iscsi(tmp_path: Path) -> AsyncIterator[QemuIscsiBench]:
    """For what only QEMU with an iSCSI target has."""
    made = QemuIscsiBench(tmp_path)
    try:
        yield made
    finally:
        await made.close()


def _bench(name: str, folder: Path) -> Bench:
    match name:
        case "fake":
            return FakeBench()
        case "simulated":
            return SimulatedBench(folder)
        case "simulation":
            return SimulationBench()
        case "qemu-local":
            return QemuBench(folder)
        case _:
            return QemuIscsiBench(folder)
