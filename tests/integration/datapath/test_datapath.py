"""The short form of `make datapath`: three rounds on each storage backend, the second with a dead machine, the third with a dead tgtd or monitor.

The hypervisors take turns; the backends with the other one are the long form.
"""

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
    pytest.param(
        backend,
        hypervisor,
        marks=[pytest.mark.real(*_PARTS[backend], *_PARTS[hypervisor]), *([] if (row + column) % 2 else [pytest.mark.long])],
    )
    for row, backend in enumerate(BACKENDS)
    for column, hypervisor in enumerate(HYPERVISORS)
]


@pytest.mark.parametrize(("backend", "hypervisor"), COMBINATIONS)
async def test_no_byte_of_a_volume_is_lost_or_seen_through_another(backend: str, hypervisor: str, tmp_path: Path) -> None:
    await prove(tmp_path, backend=backend, hypervisor=hypervisor, rounds=3, tell=lambda _: None)
