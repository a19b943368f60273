"""Guarantee 10 of cinder_lite/ports/target.py, for every target: a volume that has grown is told of in its new size."""

import pytest

from cinder_lite.errors import ExportFailure
from tests.conformance.target.rigs import GIB, Rig, connector, new_export

SIZE = GIB
"""What the fakes begin with; sparse files begin smaller."""


async def test_10_who_asks_is_told_the_new_size(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    assert await rig.capacity(export, connector()) <= SIZE
    rig.grow(export.path, 2 * SIZE)
    await rig.target.extend_target(export, 2 * SIZE)
    assert await rig.capacity(export, connector()) == 2 * SIZE
    await rig.target.extend_target(export, 2 * SIZE)
    assert await rig.capacity(export, connector()) == 2 * SIZE


async def test_10_who_was_let_in_stays_so_and_nobody_else_is(rig: Rig) -> None:
    export, other = new_export(rig), new_export(rig)
    for each in (export, other):
        await rig.target.create_export(each)
    await rig.target.initialize_connection(export, connector(1))
    before = await rig.target.connections()
    rig.grow(export.path, 2 * SIZE)
    await rig.target.extend_target(export, 2 * SIZE)
    assert await rig.target.connections() == before
    assert not await rig.gets_in(export, connector(2))


async def test_10_an_export_in_use_grows_too(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    async with rig.session(export, connector()):
        rig.grow(export.path, 2 * SIZE)
        await rig.target.extend_target(export, 2 * SIZE)
        assert await rig.capacity(export, connector()) == 2 * SIZE


async def test_10_a_volume_that_is_not_exported_needs_nothing(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.extend_target(export, 2 * SIZE)
    assert await rig.target.exports() == set()


async def test_10_a_disk_that_has_not_grown_is_told_as_such(rig: Rig) -> None:
    if rig.target.kind in {"fake", "lio"}:  # the one has no bytes, the other serves a device in the size that it has
        return
    export = new_export(rig)
    await rig.target.create_export(export)
    with pytest.raises(ExportFailure, match=export.volume.id):
        await rig.target.extend_target(export, 2 * SIZE)
    assert await rig.target.exports() == {rig.target.export_name(export.volume)}
