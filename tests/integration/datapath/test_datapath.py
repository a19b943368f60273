"""The short form of `make datapath`: three rounds on each combination, the third with a dead tgtd in it."""

from pathlib import Path

import pytest

from tests.integration.datapath.run import prove

pytestmark = pytest.mark.timeout(400)

COMBINATIONS = [
    pytest.param("file+tgt", "qemu", marks=pytest.mark.real("qemu", "guest", "tgt")),
    pytest.param("file+tgt", "libvirt", marks=pytest.mark.real("qemu", "guest", "tgt", "libvirt")),
]


@pytest.mark.parametrize(("backend", "hypervisor"), COMBINATIONS)
async def test_no_byte_of_a_volume_is_lost_or_seen_through_another(backend: str, hypervisor: str, tmp_path: Path) -> None:
    await prove(tmp_path, backend=backend, hypervisor=hypervisor, rounds=3, tell=lambda _: None)
