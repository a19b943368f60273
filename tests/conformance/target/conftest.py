"""The rigs as fixtures."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.target.rigs import FakeRig, LocalRig, Rig, SimulatedRig, TgtRig, tgt_rig

KINDS = [
    "fake",
    "fake without CHAP",
    "local",
    "simulation",
    pytest.param("tgt", marks=pytest.mark.real("tgt")),
]


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    if request.param == "tgt":
        async with tgt_rig(tmp_path) as made:
            await made.target.check_for_setup_error()
            yield made
        return
    rigs: dict[str, Rig] = {
        "fake": FakeRig(needs_chap=True),
        "fake without CHAP": FakeRig(needs_chap=False),
        "local": LocalRig(tmp_path),
        "simulation": SimulatedRig(),
    }
    await rigs[request.param].target.check_for_setup_error()
    yield rigs[request.param]


@pytest.fixture
async def tgt(tmp_path: Path) -> AsyncIterator[TgtRig]:
    async with tgt_rig(tmp_path) as made:
        yield made
