"""The specifications of cinder_lite/ports/target.py, for every target."""

from contextlib import AbstractAsyncContextManager

import pytest

from cinder_lite.certify.specification import NotStaged, Specification
from cinder_lite.certify.target_bench import TargetBench
from cinder_lite.certify.target_specs import TARGET_SPECIFICATIONS
from cinder_lite.contract import Volume
from cinder_lite.ports.target import Export
from tests.conformance.target.rigs import Connector, Rig


class RigBench:
    """Implements `cinder_lite.certify.target_bench.TargetBench` by a rig, whose target is new."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.target = rig.target

    async def exports(self) -> set[str]:
        return await self.target.exports()

    async def disk(self, volume: Volume) -> str:
        return self._rig.backing(volume.name)

    async def gets_in(self, export: Export, connector: Connector) -> bool:
        return await self._rig.gets_in(export, connector)

    def session(self, export: Export, connector: Connector) -> AbstractAsyncContextManager[None]:
        return self._rig.session(export, connector)

    async def sessions(self, export: Export) -> set[str]:
        return await self._rig.sessions(export)

    async def take_away(self, export: Export) -> None:
        self._rig.break_exporting(export)

    async def grow(self, export: Export, size: int) -> None:
        self._rig.grow(export.path, size)

    async def capacity(self, export: Export, connector: Connector) -> int:
        return await self._rig.capacity(export, connector)

    async def close(self) -> None:
        """The rig's own matter."""


@pytest.fixture
async def bench(rig: Rig) -> TargetBench:
    return RigBench(rig)


@pytest.mark.parametrize("specification", TARGET_SPECIFICATIONS, ids=str)
async def test_specification(bench: TargetBench, specification: Specification[TargetBench]) -> None:
    try:
        await specification.check(bench)
    except NotStaged as exc:
        pytest.skip(str(exc))
