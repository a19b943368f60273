"""The benches, one for each adapter of the port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.hypervisor.bench import Bench, FakeBench, QemuBench, QemuIscsiBench, SimulatedBench

_QEMU = pytest.mark.real("qemu")
_TGT = pytest.mark.real("tgt")


@pytest.fixture(
    params=[
        "fake",
        "simulated",
        pytest.param("qemu-local", marks=_QEMU),
        pytest.param("qemu-iscsi", marks=[_QEMU, _TGT]),
    ]
)
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
        case "qemu-local":
            return QemuBench(folder)
        case _:
            return QemuIscsiBench(folder)
