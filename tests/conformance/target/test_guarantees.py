"""The numbered guarantees of cinder_lite/ports/target.py, for every target."""

import logging
from dataclasses import replace

import pytest

from cinder_lite.errors import ExportFailure, InvalidConnectorException
from cinder_lite.ports.target import ExportState
from cinder_lite.targets.iscsi_names import new_chap
from tests.conformance.target.rigs import Rig, connector, new_export, new_volume


async def test_1_a_created_export_is_there(rig: Rig) -> None:
    export = new_export(rig)
    location = await rig.target.create_export(export)
    assert await rig.target.exports() == {rig.target.export_name(export.volume)}
    assert location


async def test_1_creating_it_again_gives_the_same_answer(rig: Rig) -> None:
    export, other = new_export(rig), new_export(rig)
    location = await rig.target.create_export(export)
    await rig.target.create_export(other)
    assert await rig.target.create_export(export) == location
    assert len(await rig.target.exports()) == 2


async def test_1_creating_it_again_leaves_who_was_let_in(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    async with rig.session(export, connector()):
        await rig.target.create_export(export)
        assert await rig.sessions(export) == {"cmp1"}
    assert await rig.gets_in(export, connector())


async def test_1_an_export_of_another_path_is_mended(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    moved = replace(export, path=rig.backing("moved"))
    await rig.target.create_export(moved)
    await rig.target.initialize_connection(moved, connector())
    assert await rig.gets_in(moved, connector())
    assert await rig.target.exports() == {rig.target.export_name(export.volume)}


async def test_1_an_export_with_other_credentials_is_mended(rig: Rig) -> None:
    export = new_export(rig)
    assert (export.chap is not None) is rig.target.needs_chap
    if export.chap is None:
        return
    await rig.target.create_export(export)
    for chap in (new_chap(), replace(export.chap, password=new_chap().password)):
        changed = replace(export, chap=chap)
        await rig.target.create_export(changed)
        await rig.target.initialize_connection(changed, connector())
        assert await rig.gets_in(changed, connector())
        assert not await rig.gets_in(export, connector())


async def test_2_nobody_is_let_in_before(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    assert not await rig.gets_in(export, connector())


async def test_2_the_host_of_the_connector_gets_in_and_no_other(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    info = await rig.target.initialize_connection(export, connector(1))
    assert info["data"]["volume_id"] == export.volume.id
    assert info["data"]["access_mode"] == "rw"
    assert await rig.gets_in(export, connector(1))
    assert not await rig.gets_in(export, connector(2))


async def test_2_letting_in_twice_is_letting_in_once(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    first = await rig.target.initialize_connection(export, connector())
    assert await rig.target.initialize_connection(export, connector()) == first
    await rig.target.terminate_connection(export, connector())
    assert not await rig.gets_in(export, connector())


async def test_2_the_next_host_takes_the_place_of_the_one_before(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector(1))
    async with rig.session(export, connector(1)):
        await rig.target.initialize_connection(export, connector(2))
        assert "cmp1" not in await rig.sessions(export)
    assert await rig.gets_in(export, connector(2))
    assert not await rig.gets_in(export, connector(1))


async def test_2_a_multiattach_volume_lets_in_one_more(rig: Rig) -> None:
    export = new_export(rig, new_volume(multiattach=True))
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector(1))
    async with rig.session(export, connector(1)):
        await rig.target.initialize_connection(export, connector(2))
        assert await rig.gets_in(export, connector(2))
        await rig.target.terminate_connection(export, connector(2))
        assert "cmp1" in await rig.sessions(export)
    assert not await rig.gets_in(export, connector(2))


async def test_2_a_volume_that_is_not_exported_lets_nobody_in(rig: Rig) -> None:
    with pytest.raises(ExportFailure, match="not exported"):
        await rig.target.initialize_connection(new_export(rig), connector())


async def test_3_a_terminated_host_is_out_and_its_sessions_are_gone(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    async with rig.session(export, connector()):
        await rig.target.terminate_connection(export, connector())
        assert await rig.sessions(export) == set()
        assert not await rig.gets_in(export, connector())
    assert await rig.target.exports() == {rig.target.export_name(export.volume)}


async def test_3_without_a_connector_every_host_is_put_out(rig: Rig) -> None:
    export = new_export(rig, new_volume(multiattach=True))
    await rig.target.create_export(export)
    for number in (1, 2):
        await rig.target.initialize_connection(export, connector(number))
    async with rig.session(export, connector(1)), rig.session(export, connector(2)):
        await rig.target.terminate_connection(export, None)
        assert await rig.sessions(export) == set()
    assert not await rig.gets_in(export, connector(1))
    assert not await rig.gets_in(export, connector(2))


async def test_3_terminating_what_is_not_there_changes_nothing(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.terminate_connection(export, connector())
    await rig.target.create_export(export)
    await rig.target.terminate_connection(export, connector())
    await rig.target.terminate_connection(export, None)
    assert await rig.target.exports() == {rig.target.export_name(export.volume)}


async def test_4_a_removed_export_is_gone_and_the_others_stay(rig: Rig) -> None:
    gone, kept = new_export(rig), new_export(rig)
    await rig.target.create_export(gone)
    await rig.target.create_export(kept)
    await rig.target.initialize_connection(gone, connector())
    await rig.target.remove_export(gone)
    assert await rig.target.exports() == {rig.target.export_name(kept.volume)}
    assert not await rig.gets_in(gone, connector())


async def test_4_an_export_in_use_is_removed_all_the_same(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    async with rig.session(export, connector()):
        await rig.target.remove_export(export)
        assert await rig.sessions(export) == set()
    assert await rig.target.exports() == set()


async def test_4_removing_what_is_gone_changes_nothing(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.remove_export(export)
    await rig.target.create_export(export)
    await rig.target.remove_export(export)
    await rig.target.remove_export(export)
    await rig.target.remove_export(replace(export, chap=None))
    assert await rig.target.exports() == set()


async def test_5_what_is_exported_is_told_and_nothing_else(rig: Rig) -> None:
    assert await rig.target.exports() == set()
    several = [new_export(rig) for _ in range(3)]
    for export in several:
        await rig.target.create_export(export)
    assert await rig.target.exports() == {rig.target.export_name(export.volume) for export in several}
    await rig.target.remove_export(several[1])
    assert await rig.target.exports() == {rig.target.export_name(several[number].volume) for number in (0, 2)}


async def test_6_a_connector_that_lacks_something_is_refused_by_its_name(rig: Rig) -> None:
    rig.target.validate_connector(connector())
    needed = {"local": ("host", "ip")}.get(rig.target.kind, ("initiator",))
    for key in needed:
        lacking = {name: value for name, value in connector().items() if name != key}
        with pytest.raises(InvalidConnectorException, match=key):
            rig.target.validate_connector(lacking)


async def test_7_no_secret_is_in_a_log_or_an_error(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    await rig.target.remove_export(export)
    rig.break_exporting(export)
    with pytest.raises(ExportFailure) as caught:
        await rig.target.create_export(export)
    secret = export.chap.password if export.chap else "no secret"
    error: BaseException | None = caught.value
    while error is not None:
        assert secret not in f"{error} {error!r} {getattr(error, 'fields', '')}"
        error = error.__cause__ or error.__context__
    assert secret not in caplog.text
    assert secret not in repr(export)


async def test_8_a_failed_create_leaves_nothing(rig: Rig) -> None:
    export = new_export(rig)
    rig.break_exporting(export)
    with pytest.raises(ExportFailure, match=export.volume.id):
        await rig.target.create_export(export)
    assert await rig.target.exports() == set()


async def test_9_a_new_export_serves_its_path_and_lets_nobody_in(rig: Rig) -> None:
    assert await rig.target.connections() == {}
    export = new_export(rig)
    await rig.target.create_export(export)
    assert await rig.target.connections() == {rig.target.export_name(export.volume): ExportState(export.path)}


async def test_9_who_is_let_in_is_told_of_each_export(rig: Rig) -> None:
    one, other = new_export(rig), new_export(rig, new_volume(multiattach=True))
    for export in (one, other):
        await rig.target.create_export(export)
    for export, number in ((one, 1), (other, 1), (other, 2)):
        await rig.target.initialize_connection(export, connector(number))
    names = {number: connector(number)["host" if rig.target.kind == "local" else "initiator"] for number in (1, 2)}
    found = await rig.target.connections()
    assert {name: state.let_in for name, state in found.items()} == {
        rig.target.export_name(one.volume): {names[1]},
        rig.target.export_name(other.volume): {names[1], names[2]},
    }
    assert [state.sessions for state in found.values()] == [(), ()]
    await rig.target.terminate_connection(other, connector(1))
    assert (await rig.target.connections())[rig.target.export_name(other.volume)].let_in == {names[2]}
    await rig.target.remove_export(one)
    assert set(await rig.target.connections()) == {rig.target.export_name(other.volume)}


async def test_9_sessions_are_told_while_they_are_open(rig: Rig) -> None:
    export = new_export(rig)
    name = rig.target.export_name(export.volume)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    async with rig.session(export, connector()):
        expected = () if rig.target.kind == "local" else (connector()["initiator"],)
        assert (await rig.target.connections())[name].sessions == expected
        await rig.target.terminate_connection(export, connector())
        assert (await rig.target.connections())[name].sessions == ()


async def test_9_no_secret_is_in_it(rig: Rig) -> None:
    export = new_export(rig)
    await rig.target.create_export(export)
    await rig.target.initialize_connection(export, connector())
    secret = export.chap.password if export.chap else "no secret"
    assert secret not in str(await rig.target.connections())
