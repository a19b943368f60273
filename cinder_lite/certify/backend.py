"""A configured backend on its benches."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from cinder_lite.certify.benches.fake import FakeBench
from cinder_lite.certify.benches.file import FileStaging
from cinder_lite.certify.benches.local import LocalBench, names_of
from cinder_lite.certify.benches.lvm import LvmStaging
from cinder_lite.certify.benches.rbd import RbdBench
from cinder_lite.certify.benches.target import BackendBench
from cinder_lite.certify.driver_bench import DriverBench
from cinder_lite.certify.target_bench import TargetBench
from cinder_lite.config import Backend
from cinder_lite.drivers.fake import FakeDriver
from cinder_lite.drivers.lvm_commands import Lvm
from cinder_lite.drivers.rbd import RbdDriver
from cinder_lite.plugin import plugin
from cinder_lite.ports.driver import VolumeDriver
from cinder_lite.ports.target import Target
from cinder_lite.service.adapters import adapters_of, daemon_of, lvm_options, rbd_of
from common.base.clock import Clock


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend that is to be certified, set up.

    why_no_target   why its target is not tried; empty: it is
    """

    driver: VolumeDriver
    target: Target
    driver_bench: Callable[[], AbstractAsyncContextManager[DriverBench]]
    target_bench: Callable[[], AbstractAsyncContextManager[TargetBench]]
    why_no_target: str = ""

    async def everything(self) -> set[str]:
        """Names of all volumes and snapshots, and exports."""
        return await names_of(self.driver) | {f"export {name}" for name in await self.target.exports()}


@asynccontextmanager
async def candidate(backend: Backend, clock: Clock, *, my_ip: str) -> AsyncIterator[Candidate]:
    """Raises Misconfigured, DriverNotInitialized, TargetUnavailable, PortalNotBound."""
    driver, target = adapters_of(backend, clock, my_ip=my_ip)
    async with AsyncExitStack() as stack:
        if backend.tgtd_managed and backend.target_helper == "tgtadm":
            await stack.enter_async_context(daemon_of(backend, clock))
        await driver.check_for_setup_error()
        await target.check_for_setup_error()

        @asynccontextmanager
        async def driver_bench() -> AsyncIterator[DriverBench]:
            bench = await _driver_bench(backend, driver, clock)
            try:
                yield bench
            finally:
                await bench.close()

        @asynccontextmanager
        async def target_bench() -> AsyncIterator[TargetBench]:
            bench = await BackendBench.over(target, driver, clock)
            try:
                yield bench
            finally:
                await bench.close()

        is_fake = "fake" in {backend.target_helper, backend.driver}
        why_not = "no host can log in to a fake target, nor read a fake volume" if is_fake else ""
        yield Candidate(driver, target, driver_bench, target_bench, why_not)


async def _driver_bench(backend: Backend, driver: VolumeDriver, clock: Clock) -> DriverBench:
    match driver:
        case FakeDriver():
            return FakeBench(driver)
        case RbdDriver():
            return await RbdBench.over(driver, rbd_of(backend), clock)
        case _ if backend.driver == "plugin" and (own := plugin(backend.plugin).bench) is not None:
            made: DriverBench = await own(driver)
            return made
        case _ if backend.driver == "file":
            return await LocalBench.over(driver, FileStaging(backend.volumes_dir))
        case _ if backend.driver == "lvm":
            options = lvm_options(backend)
            lvm = Lvm(options.volume_group, is_activated=options.devices == "device-mapper", system_dir=options.system_dir)
            return await LocalBench.over(driver, LvmStaging(lvm))
        case _:
            return await LocalBench.over(driver)
