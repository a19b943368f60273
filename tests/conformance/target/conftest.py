"""The rigs as fixtures."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conformance.target.lio_rig import LioRig, lio_rig
from tests.conformance.target.rigs import FakeRig, LocalRig, Rig, SimulatedRig, TgtRig, tgt_rig

KINDS = [
    "fake",
    "fake without CHAP",
    "local",
    "simulation",
    "lio",
    pytest.param("tgt", marks=pytest.mark.real("tgt")),
]


@pytest.fixture(params=KINDS)
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    if request.param == "tgt":
        async with tgt_rig(tmp_path) as made:
            await made.target.check_for_setup_error()
            yield made
        return
    if request.param == "lio":
        with lio_rig(tmp_path) as lio:
            await lio.target.check_for_setup_error()
            yield lio
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


@pytest.fixture
def lio(tmp_path: Path) -> Iterator[LioRig]:
    with lio_rig(tmp_path) as made:
        yield made
