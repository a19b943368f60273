"""The benches, one for each adapter of the port."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conformance.hypervisor.bench import ALL, Bench, FakeBench, QemuBench, QemuIscsiBench, SimulatedBench, SimulationBench
from tests.conformance.hypervisor.libvirt_bench import LibvirtBench, LibvirtIscsiBench
from tests.conftest import RealParts
from tests.support.libvirtd import Libvirtd, libvirtd

SHORT = {
    "test_2_a_destroyed_machine_leaves_nothing_behind",
    "test_4_a_detached_volume_is_free_of_the_machine",
    "test_4_a_guest_that_keeps_the_disk_is_told_of_and_the_disk_stays",
    "test_6_a_refused_attachment_leaves_the_machine_as_it_was",
    "test_8_another_object_finds_the_machines_and_goes_on_with_them",
    "test_9_no_secret_is_seen_outside",
    "test_13_a_disk_of_another_size_is_refused_and_the_guest_has_not_seen_it",
    "test_14_a_machine_reads_and_writes_what_its_disk_has_grown_by",
}
"""What libvirt runs without --long: it takes a second to see a machine end, and ten to end one that hangs."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "[libvirt-" in item.name and item.name.partition("[")[0] not in SHORT:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def libvirt_daemon(real_parts: RealParts) -> Iterator[Libvirtd]:
    """One private libvirtd for the run. A test that ends or stops one starts its own."""
    real_parts.need("libvirt")
    with libvirtd() as daemon:
        yield daemon


@pytest.fixture(params=ALL)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    made = _bench(request, request.param, tmp_path)
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


@pytest.fixture
async def libvirt(libvirt_daemon: Libvirtd) -> AsyncIterator[LibvirtBench]:
    """For what only libvirt has."""
    made = LibvirtBench(libvirt_daemon)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def libvirt_iscsi(libvirt_daemon: Libvirtd, tmp_path: Path) -> AsyncIterator[LibvirtIscsiBench]:
    """For what only libvirt with an iSCSI target has."""
    made = LibvirtIscsiBench(libvirt_daemon, tmp_path)
    try:
        yield made
    finally:
        await made.close()


def _bench(request: pytest.FixtureRequest, name: str, folder: Path) -> Bench:
    if name.startswith("libvirt"):
        daemon = request.getfixturevalue("libvirt_daemon")
        return LibvirtBench(daemon) if name == "libvirt-local" else LibvirtIscsiBench(daemon, folder)
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
