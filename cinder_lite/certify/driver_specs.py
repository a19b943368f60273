"""Everything that is specified of a volume driver."""

from cinder_lite.certify import driver_copies, driver_failures, driver_volumes
from cinder_lite.certify.driver_bench import DriverBench
from cinder_lite.certify.specification import Specification

DRIVER_SPECIFICATIONS: tuple[Specification[DriverBench], ...] = (
    *driver_volumes.SPECIFICATIONS,
    *driver_copies.SPECIFICATIONS,
    *driver_failures.SPECIFICATIONS,
)
