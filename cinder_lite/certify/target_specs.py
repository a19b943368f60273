"""Everything that is specified of a target, by the guarantees of cinder_lite/ports/target.py."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from cinder_lite.certify.specification import Specification, collected, expect, expect_that, refused, specifies
from cinder_lite.certify.target_bench import (
    GIB,
    TargetBench,
    available_volume,
    connector,
    has_sessions,
    host_name,
    name_of,
    new_export,
)
from cinder_lite.errors import ExportFailure, InvalidConnectorException
from cinder_lite.ports.target import Export, ExportState
from cinder_lite.targets.iscsi_names import new_chap
from common.base.errors import Fault

_CANCEL_AFTER_S = (0.0, 0.001, 0.004, 0.012, 0.03)


async def _exported(bench: TargetBench, *let_in: int, multiattach: bool = False) -> Export:
    """An export that is there, with those hosts let in."""
    export = await new_export(bench, available_volume(multiattach=multiattach))
    await bench.target.create_export(export)
    for number in let_in:
        await bench.target.initialize_connection(export, connector(number))
    return export


async def _expect_exports(bench: TargetBench, *exports: Export) -> None:
    expect("exports", await bench.exports(), {name_of(bench, export) for export in exports})


async def _expect_gets_in(bench: TargetBench, export: Export, number: int, *, wanted: bool) -> None:
    found = await bench.gets_in(export, connector(number))
    expect_that(found is wanted, f"host cmp{number} {'gets' if found else 'does not get'} in to {name_of(bench, export)}")


async def _state(bench: TargetBench, export: Export) -> ExportState:
    found = await bench.target.connections()
    expect_that(name_of(bench, export) in found, f"connections() does not tell of {name_of(bench, export)}")
    return found[name_of(bench, export)]


# -- 1: create_export -------------------------------------------------------------------------------------------------


@specifies(1)
async def a_created_export_is_there(bench: TargetBench) -> None:
    export = await new_export(bench)
    location = await bench.target.create_export(export)
    await _expect_exports(bench, export)
    expect_that(bool(location), "create_export gives no provider_location")


@specifies(1)
async def creating_it_again_gives_the_same_answer(bench: TargetBench) -> None:
    export, other = await new_export(bench), await new_export(bench)
    location = await bench.target.create_export(export)
    await bench.target.create_export(other)
    expect("provider_location", await bench.target.create_export(export), location)
    await _expect_exports(bench, export, other)


@specifies(1)
async def creating_it_again_leaves_who_was_let_in(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    async with bench.session(export, connector()):
        await bench.target.create_export(export)
        expect("sessions", await bench.sessions(export), {"cmp1"})
    await _expect_gets_in(bench, export, 1, wanted=True)


@specifies(1)
async def an_export_of_another_path_is_mended(bench: TargetBench) -> None:
    export = await _exported(bench)
    if bench.target.kind == "rbd":  # the name of an image is its volume's
        return
    moved = replace(export, path=await bench.disk(available_volume()))
    await bench.target.create_export(moved)
    await bench.target.initialize_connection(moved, connector())
    await _expect_gets_in(bench, moved, 1, wanted=True)
    expect("its path", (await _state(bench, moved)).path, moved.path)
    await _expect_exports(bench, export)


@specifies(1)
async def an_export_with_other_credentials_is_mended(bench: TargetBench) -> None:
    export = await new_export(bench)
    if export.chap is None:
        return
    await bench.target.create_export(export)
    for chap in (new_chap(), replace(export.chap, password=new_chap().password)):
        changed = replace(export, chap=chap)
        await bench.target.create_export(changed)
        await bench.target.initialize_connection(changed, connector())
        await _expect_gets_in(bench, changed, 1, wanted=True)
        await _expect_gets_in(bench, export, 1, wanted=False)


@specifies(1)
async def an_export_made_after_one_was_removed_lets_nobody_in(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    await bench.target.remove_export(export)
    await bench.target.create_export(export)
    await _expect_gets_in(bench, export, 1, wanted=False)
    expect("let in", (await _state(bench, export)).let_in, frozenset())


# -- 2: initialize_connection -----------------------------------------------------------------------------------------


@specifies(2)
async def nobody_is_let_in_before(bench: TargetBench) -> None:
    await _expect_gets_in(bench, await _exported(bench), 1, wanted=False)


@specifies(2)
async def the_host_of_the_connector_gets_in_and_no_other(bench: TargetBench) -> None:
    export = await _exported(bench)
    info = await bench.target.initialize_connection(export, connector(1))
    expect("volume_id in connection_info", info["data"]["volume_id"], export.volume.id)
    expect("access_mode in connection_info", info["data"]["access_mode"], "rw")
    await _expect_gets_in(bench, export, 1, wanted=True)
    await _expect_gets_in(bench, export, 2, wanted=False)


@specifies(2)
async def connection_info_has_a_type_and_no_serial(bench: TargetBench) -> None:
    info = await bench.target.initialize_connection(await _exported(bench), connector())
    expect("keys of connection_info", set(info), {"driver_volume_type", "data"})
    expect_that(bool(info["driver_volume_type"]), "driver_volume_type is empty")


@specifies(2)
async def letting_in_twice_is_letting_in_once(bench: TargetBench) -> None:
    export = await _exported(bench)
    first = await bench.target.initialize_connection(export, connector())
    expect("connection_info", await bench.target.initialize_connection(export, connector()), first)
    await bench.target.terminate_connection(export, connector())
    await _expect_gets_in(bench, export, 1, wanted=False)


@specifies(2)
async def the_next_host_takes_the_place_of_the_one_before(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    async with bench.session(export, connector(1)):
        await bench.target.initialize_connection(export, connector(2))
        expect_that("cmp1" not in await bench.sessions(export), "the host before has a session still")
    await _expect_gets_in(bench, export, 2, wanted=True)
    await _expect_gets_in(bench, export, 1, wanted=False)


@specifies(2)
async def a_multiattach_volume_lets_in_one_more(bench: TargetBench) -> None:
    export = await _exported(bench, 1, multiattach=True)
    async with bench.session(export, connector(1)):
        await bench.target.initialize_connection(export, connector(2))
        await _expect_gets_in(bench, export, 2, wanted=True)
        await bench.target.terminate_connection(export, connector(2))
        expect_that("cmp1" in await bench.sessions(export), "the other host lost its session")
    await _expect_gets_in(bench, export, 2, wanted=False)


@specifies(2)
async def a_volume_that_is_not_exported_lets_nobody_in(bench: TargetBench) -> None:
    with refused(ExportFailure, naming="not exported"):
        await bench.target.initialize_connection(await new_export(bench), connector())
    await _expect_exports(bench)


@specifies(2)
async def who_is_let_in_to_one_is_not_let_in_to_another(bench: TargetBench) -> None:
    mine, other = await _exported(bench, 1), await _exported(bench, 2)
    await _expect_gets_in(bench, mine, 2, wanted=False)
    await _expect_gets_in(bench, other, 1, wanted=False)


# -- 3: terminate_connection ------------------------------------------------------------------------------------------


@specifies(3)
async def a_terminated_host_is_out_and_its_sessions_are_gone(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    async with bench.session(export, connector()):
        await bench.target.terminate_connection(export, connector())
        expect("sessions", await bench.sessions(export), set())
        await _expect_gets_in(bench, export, 1, wanted=False)
    await _expect_exports(bench, export)


@specifies(3)
async def without_a_connector_every_host_is_put_out(bench: TargetBench) -> None:
    export = await _exported(bench, 1, 2, multiattach=True)
    async with bench.session(export, connector(1)), bench.session(export, connector(2)):
        await bench.target.terminate_connection(export, None)
        expect("sessions", await bench.sessions(export), set())
    await _expect_gets_in(bench, export, 1, wanted=False)
    await _expect_gets_in(bench, export, 2, wanted=False)


@specifies(3)
async def terminating_what_is_not_there_changes_nothing(bench: TargetBench) -> None:
    export = await new_export(bench)
    await bench.target.terminate_connection(export, connector())
    await bench.target.create_export(export)
    await bench.target.terminate_connection(export, connector())
    await bench.target.terminate_connection(export, None)
    await _expect_exports(bench, export)


@specifies(3)
async def terminating_another_host_leaves_the_one_that_is_in(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    await bench.target.terminate_connection(export, connector(2))
    await _expect_gets_in(bench, export, 1, wanted=True)


@specifies(3)
async def a_host_that_was_out_is_let_in_again(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    await bench.target.terminate_connection(export, connector())
    await bench.target.initialize_connection(export, connector())
    await _expect_gets_in(bench, export, 1, wanted=True)


# -- 4: remove_export -------------------------------------------------------------------------------------------------


@specifies(4)
async def a_removed_export_is_gone_and_the_others_stay(bench: TargetBench) -> None:
    gone, kept = await _exported(bench, 1), await _exported(bench, 1)
    await bench.target.remove_export(gone)
    await _expect_exports(bench, kept)
    await _expect_gets_in(bench, gone, 1, wanted=False)
    await _expect_gets_in(bench, kept, 1, wanted=True)


@specifies(4)
async def an_export_in_use_is_removed_all_the_same(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    async with bench.session(export, connector()):
        await bench.target.remove_export(export)
        expect("sessions", await bench.sessions(export), set())
    await _expect_exports(bench)


@specifies(4)
async def removing_what_is_gone_changes_nothing(bench: TargetBench) -> None:
    export = await new_export(bench)
    await bench.target.remove_export(export)
    await bench.target.create_export(export)
    for each in (export, export, replace(export, chap=None)):
        await bench.target.remove_export(each)
    await _expect_exports(bench)


@specifies(4)
async def an_export_is_removed_without_its_credentials(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    await bench.target.remove_export(replace(export, chap=None))
    await _expect_exports(bench)


# -- 5 and 6: exports, validate_connector -----------------------------------------------------------------------------


@specifies(5)
async def what_is_exported_is_told_and_nothing_else(bench: TargetBench) -> None:
    await _expect_exports(bench)
    several = [await _exported(bench) for _ in range(3)]
    await _expect_exports(bench, *several)
    await bench.target.remove_export(several[1])
    await _expect_exports(bench, several[0], several[2])


@specifies(5)
async def the_name_of_an_export_ends_with_its_volumes(bench: TargetBench) -> None:
    export = await new_export(bench)
    expect_that(
        name_of(bench, export).endswith(export.volume.name), f"{name_of(bench, export)} does not end with the volume's name"
    )


@specifies(6)
async def a_connector_that_lacks_something_is_refused_by_its_name(bench: TargetBench) -> None:
    bench.target.validate_connector(connector())
    needed = {"local": ("host", "ip"), "rbd": ("host",)}.get(bench.target.kind, ("initiator",))
    for key in needed:
        lacking = {name: value for name, value in connector().items() if name != key}
        with refused(InvalidConnectorException, naming=key):
            bench.target.validate_connector(lacking)


@specifies(6)
async def a_connector_that_lacks_something_is_not_let_in(bench: TargetBench) -> None:
    export = await _exported(bench)
    with refused(InvalidConnectorException):
        await bench.target.initialize_connection(export, {})
    expect("let in", (await _state(bench, export)).let_in, frozenset())


# -- 7 and 8: secrets, failures ---------------------------------------------------------------------------------------


@specifies(7)
async def no_secret_is_in_a_log_or_an_error(bench: TargetBench) -> None:
    async with _logged() as words:
        export = await _exported(bench, 1)
        await bench.target.remove_export(export)
        await bench.take_away(export)
        error: BaseException | None = None
        try:
            await bench.target.create_export(export)
        except ExportFailure as exc:
            error = exc
    expect_that(error is not None, "a disk that is gone was exported")
    secret = export.chap.password if export.chap else "no secret"
    while error is not None:
        words.append(f"{error} {error!r} {getattr(error, 'fields', '')}")
        error = error.__cause__ or error.__context__
    expect_that(all(secret not in said for said in (*words, repr(export))), "the CHAP password is in a log line or an error")


@specifies(7)
async def no_secret_is_in_what_is_told_of_connections(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    secret = export.chap.password if export.chap else "no secret"
    expect_that(secret not in str(await bench.target.connections()), "the CHAP password is in connections()")


@specifies(8)
async def a_failed_create_leaves_nothing(bench: TargetBench) -> None:
    export = await new_export(bench)
    await bench.take_away(export)
    with refused(ExportFailure, naming=export.volume.id):
        await bench.target.create_export(export)
    await _expect_exports(bench)


@specifies(8)
async def a_create_cancelled_anywhere_is_done_by_asking_again(bench: TargetBench) -> None:
    for after_s in _CANCEL_AFTER_S:
        export = await new_export(bench)
        await _cancelled(lambda export=export: bench.target.create_export(export), after_s)  # type: ignore[misc]
        await bench.target.create_export(export)
        await bench.target.initialize_connection(export, connector())
        await _expect_gets_in(bench, export, 1, wanted=True)
        await bench.target.remove_export(export)
        await _expect_exports(bench)


@specifies(8)
async def a_connection_cancelled_anywhere_is_undone_by_asking(bench: TargetBench) -> None:
    export = await _exported(bench)
    for after_s in _CANCEL_AFTER_S:
        await _cancelled(lambda: bench.target.initialize_connection(export, connector()), after_s)
        await bench.target.terminate_connection(export, connector())
        await _expect_gets_in(bench, export, 1, wanted=False)


@specifies(8)
async def exports_made_at_once_are_all_there_and_apart(bench: TargetBench) -> None:
    exports = [await new_export(bench) for _ in range(6)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.target.create_export(export)) for export in exports]
    await _expect_exports(bench, *exports)
    expect("different provider_locations", len({task.result() for task in tasks}), len(exports))
    states = await bench.target.connections()
    expect("paths", [states[name_of(bench, export)].path for export in exports], [export.path for export in exports])


# -- 9: connections ---------------------------------------------------------------------------------------------------


@specifies(9)
async def a_new_export_serves_its_path_and_lets_nobody_in(bench: TargetBench) -> None:
    export = await _exported(bench)
    expect("its state", await _state(bench, export), ExportState(export.path))


@specifies(9)
async def who_is_let_in_is_told_of_each_export(bench: TargetBench) -> None:
    one, other = await _exported(bench, 1), await _exported(bench, 1, 2, multiattach=True)
    names = {number: host_name(bench, number) for number in (1, 2)}
    expect("let in to the one", (await _state(bench, one)).let_in, frozenset({names[1]}))
    expect("let in to the other", (await _state(bench, other)).let_in, frozenset(names.values()))
    expect("sessions", [(await _state(bench, export)).sessions for export in (one, other)], [(), ()])
    await bench.target.terminate_connection(other, connector(1))
    expect("let in to the other", (await _state(bench, other)).let_in, frozenset({names[2]}))
    await bench.target.remove_export(one)
    expect_that(name_of(bench, one) not in await bench.target.connections(), "connections() tells of an export that is gone")


@specifies(9)
async def sessions_are_told_while_they_are_open(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    async with bench.session(export, connector()):
        wanted = (str(connector()["initiator"]),) if has_sessions(bench) else ()
        expect("sessions", (await _state(bench, export)).sessions, wanted)
        await bench.target.terminate_connection(export, connector())
        expect("sessions", (await _state(bench, export)).sessions, ())


# -- 10: extend_target ------------------------------------------------------------------------------------------------


@specifies(10)
async def who_asks_is_told_the_new_size(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    expect_that(await bench.capacity(export, connector()) <= GIB, "a disk of 1 GiB is shown larger than that")
    await bench.grow(export, 2 * GIB)
    for _ in range(2):
        await bench.target.extend_target(export, 2 * GIB)
        expect("bytes that a host is told", await bench.capacity(export, connector()), 2 * GIB)


@specifies(10)
async def who_was_let_in_before_it_grew_stays_so_and_nobody_else_is(bench: TargetBench) -> None:
    export, other = await _exported(bench, 1), await _exported(bench)
    before = [await _state(bench, each) for each in (export, other)]
    await bench.grow(export, 2 * GIB)
    await bench.target.extend_target(export, 2 * GIB)
    expect("states", [await _state(bench, each) for each in (export, other)], before)
    await _expect_gets_in(bench, export, 2, wanted=False)


@specifies(10)
async def an_export_in_use_grows_too(bench: TargetBench) -> None:
    export = await _exported(bench, 1)
    async with bench.session(export, connector()):
        await bench.grow(export, 2 * GIB)
        await bench.target.extend_target(export, 2 * GIB)
        expect("bytes that a host is told", await bench.capacity(export, connector()), 2 * GIB)


@specifies(10)
async def a_volume_that_is_not_exported_needs_no_extending(bench: TargetBench) -> None:
    await bench.target.extend_target(await new_export(bench), 2 * GIB)
    await _expect_exports(bench)


@asynccontextmanager
async def _logged() -> AsyncIterator[list[str]]:
    """What any logger of this process says meanwhile."""
    words: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            words.append(record.getMessage())

    root, kept, level = logging.getLogger(), Kept(), logging.getLogger().level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    try:
        yield words
    finally:
        root.setLevel(level)
        root.removeHandler(kept)


async def _cancelled(verb: Callable[[], Awaitable[object]], after_s: float) -> None:
    with suppress(TimeoutError, Fault):
        async with asyncio.timeout(after_s):
            await verb()


TARGET_SPECIFICATIONS: tuple[Specification[TargetBench], ...] = collected(globals())
