"""A volume group and a Ceph cluster for the drivers' tests, one for all of a process."""

from collections.abc import Iterator

import pytest

from tests.conftest import RealParts
from tests.support.ceph import CephCluster, ceph_cluster
from tests.support.lvm import PrivateGroup, private_group


@pytest.fixture(scope="session")
def volume_group(real_parts: RealParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateGroup]:
    real_parts.need("lvm")
    with private_group(tmp_path_factory.mktemp("lvm")) as group:
        yield group


@pytest.fixture(scope="session")
def cluster(real_parts: RealParts) -> Iterator[CephCluster]:
    """A test that breaks a cluster starts its own."""
    real_parts.need("ceph")
    with ceph_cluster() as made:
        yield made
