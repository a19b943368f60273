"""What guarantee 10 of cinder_lite/ports/target.py leaves to whoever asks too early."""

import pytest

from cinder_lite.errors import ExportFailure
from tests.conformance.target.rigs import GIB, Rig, new_export


async def test_10_a_disk_that_has_not_grown_is_told_as_such(rig: Rig) -> None:
    if rig.target.kind in {"fake", "lio"}:  # the one has no bytes, the other serves a device in the size that it has
        return
    export = new_export(rig)
    await rig.target.create_export(export)
    with pytest.raises(ExportFailure, match=export.volume.id):
        await rig.target.extend_target(export, 2 * GIB)
    assert await rig.target.exports() == {rig.target.export_name(export.volume)}
