"""The short form of `make datapath`: three rounds on each combination, the second with a dead machine, the third with a dead tgtd or monitor."""

from pathlib import Path

import pytest

from tests.integration.datapath.backends import BACKENDS
from tests.integration.datapath.hosts import HYPERVISORS
from tests.integration.datapath.run import prove

pytestmark = pytest.mark.timeout(400)

_PARTS = {
    "file+tgt": ("tgt",),
    "lvm+tgt": ("tgt", "lvm"),
    "rbd": ("ceph",),
    "qemu": ("qemu", "guest"),
    "libvirt": ("qemu", "guest", "libvirt"),
}
COMBINATIONS = [
    pytest.param(backend, hypervisor, marks=pytest.mark.real(*_PARTS[backend], *_PARTS[hypervisor]))
    for backend in BACKENDS
    for hypervisor in HYPERVISORS
]


@pytest.mark.parametrize(("backend", "hypervisor"), COMBINATIONS)
async def test_no_byte_of_a_volume_is_lost_or_seen_through_another(backend: str, hypervisor: str, tmp_path: Path) -> None:
    await prove(tmp_path, backend=backend, hypervisor=hypervisor, rounds=3, tell=lambda _: None)
