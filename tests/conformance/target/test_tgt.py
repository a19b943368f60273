"""What only tgt has: CHAP, half-made targets, a daemon that others use too."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from cinder_lite.errors import ExportFailure, PortalNotBound, TargetUnavailable
from cinder_lite.ports.target import Chap, ExportState
from cinder_lite.targets.iscsi_names import ProviderLocation, new_chap
from cinder_lite.targets.tgt import TgtTarget
from common.host.clock import SystemClock
from tests.conformance.target.rigs import TgtRig, connector, new_export

pytestmark = pytest.mark.real("tgt")


async def test_the_right_initiator_with_the_right_chap_and_nobody_else_logs_in(tgt: TgtRig) -> None:
    export = new_export(tgt)
    chap, initiator = export.chap, connector()["initiator"]
    assert chap is not None
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    assert await tgt.reads(export, initiator, chap)
    assert not await tgt.reads(export, connector(2)["initiator"], chap)
    assert not await tgt.reads(export, initiator, replace(chap, password=new_chap().password))
    assert not await tgt.reads(export, initiator, new_chap())
    assert not await tgt.reads(export, initiator, None)


async def test_the_location_is_in_cinders_form_and_agrees_with_the_connection_info(tgt: TgtRig) -> None:
    export = new_export(tgt)
    location = ProviderLocation.parse(await tgt.target.create_export(export))
    info = await tgt.target.initialize_connection(export, connector() | {"multipath": True})
    assert info["driver_volume_type"] == "iscsi"
    assert info["data"]["target_portals"] == [str(tgt.options.portal)]
    assert (info["data"]["target_iqn"], info["data"]["target_lun"]) == (location.iqn, location.lun)
    assert info["data"]["auth_password"] == (export.chap.password if export.chap else None)


HALF_MADE = {
    "no disk and no account": (),
    "a disk of another volume": (("new", "logicalunit", "--lun", "1", "--backing-store", "{other}", "--bstype", "rdwr"),),
    "a second disk": (
        ("new", "logicalunit", "--lun", "1", "--backing-store", "{path}", "--bstype", "rdwr"),
        ("new", "logicalunit", "--lun", "2", "--backing-store", "{other}", "--bstype", "rdwr"),
    ),
    "no account": (("new", "logicalunit", "--lun", "1", "--backing-store", "{path}", "--bstype", "rdwr"),),
    "offline": (
        ("new", "logicalunit", "--lun", "1", "--backing-store", "{path}", "--bstype", "rdwr"),
        ("update", "target", "--name", "state", "--value", "offline"),
    ),
    "another let in by address": (
        ("new", "logicalunit", "--lun", "1", "--backing-store", "{path}", "--bstype", "rdwr"),
        ("bind", "target", "--initiator-address", "ALL"),
    ),
}


@pytest.mark.parametrize("commands", HALF_MADE.values(), ids=HALF_MADE)
async def test_a_half_made_target_is_mended(tgt: TgtRig, commands: tuple[tuple[str, ...], ...]) -> None:
    export, other = new_export(tgt), tgt.backing("other")
    await tgt.tgtadm.ask("new", "target", "--tid", "7", "--targetname", tgt.target.export_name(export.volume))
    for op, mode, *options in commands:
        filled = [option.format(path=export.path, other=other) for option in options]
        await tgt.tgtadm.ask(op, mode, "--tid", "7", *filled)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector(1))
    assert await tgt.gets_in(export, connector(1))
    assert not await tgt.gets_in(export, connector(2))


@pytest.mark.parametrize("password", ["the same", "another"])
async def test_an_account_that_was_made_and_not_bound_is_no_hindrance(tgt: TgtRig, password: str) -> None:
    export = new_export(tgt)
    assert export.chap is not None
    await tgt.tgtadm.new_account(export.chap if password == "the same" else replace(export.chap, password=new_chap().password))
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    assert await tgt.gets_in(export, connector())


async def test_several_accounts_on_one_target_are_replaced_and_tgtd_lives(tgt: TgtRig) -> None:
    """tgtd dies at the next look when the first of several is deleted."""
    export = new_export(tgt)
    location = ProviderLocation.parse(await tgt.target.create_export(export))
    for _ in range(3):
        stray = new_chap()
        await tgt.tgtadm.new_account(stray)
        await tgt.tgtadm.ask("bind", "account", "--tid", str(location.tid), "--user", stray.username)
    await tgt.target.create_export(export)
    assert export.chap is not None
    assert [target.accounts for target in await tgt.tgtadm.targets()] == [(export.chap.username,)]
    assert await tgt.tgtadm.accounts() == (export.chap.username,)


async def test_an_account_of_another_target_is_not_taken_from_it(tgt: TgtRig) -> None:
    export, thief = new_export(tgt), new_export(tgt)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    with pytest.raises(ExportFailure, match="this account already exists"):
        await tgt.target.create_export(replace(thief, chap=export.chap))
    assert await tgt.target.exports() == {tgt.target.export_name(export.volume)}
    assert await tgt.gets_in(export, connector())


async def test_nothing_of_a_removed_export_is_left_in_tgtd(tgt: TgtRig) -> None:
    export = new_export(tgt)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    await tgt.target.remove_export(export)
    assert await tgt.tgtadm.accounts() == ()
    assert await tgt.tgtadm.targets() == ()


async def test_targets_made_at_once_by_two_processes_do_not_collide(tgt: TgtRig) -> None:
    other = TgtTarget(tgt.options, SystemClock())
    exports = [new_export(tgt) for _ in range(12)]
    makers = [tgt.target, other] * 6
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(maker.create_export(export)) for maker, export in zip(makers, exports, strict=True)]
    assert sorted(ProviderLocation.parse(task.result()).tid for task in tasks) == list(range(1, 13))
    assert len(await other.exports()) == 12


async def test_a_service_that_was_restarted_finds_its_exports_and_leaves_their_sessions(tgt: TgtRig) -> None:
    export = new_export(tgt)
    assert export.chap is not None
    location = await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    async with tgt.session(export, connector()):
        restarted = TgtTarget(tgt.options, SystemClock())
        assert await restarted.create_export(export) == location
        assert await tgt.sessions(export) == {"cmp1"}
    changed = replace(export, chap=replace(export.chap, password=new_chap().password))
    await TgtTarget(tgt.options, SystemClock()).create_export(changed)
    assert await tgt.gets_in(changed, connector())
    assert not await tgt.gets_in(export, connector())


async def test_targets_of_others_are_neither_told_nor_touched(tgt: TgtRig) -> None:
    await tgt.tgtadm.ask("new", "target", "--tid", "1", "--targetname", "iqn.2001-04.com.example:tape")
    export = new_export(tgt)
    await tgt.target.create_export(export)
    assert await tgt.target.exports() == {tgt.target.export_name(export.volume)}
    await tgt.target.remove_export(export)
    assert [target.iqn for target in await tgt.tgtadm.targets()] == ["iqn.2001-04.com.example:tape"]


async def test_an_export_without_credentials_is_refused(tgt: TgtRig) -> None:
    with pytest.raises(ExportFailure, match="CHAP"):
        await tgt.target.create_export(replace(new_export(tgt), chap=None))
    assert await tgt.target.exports() == set()


@pytest.mark.parametrize("chap", [Chap("a,password=x", "secretsecret12"), Chap("user", "secret\0secret1")])
async def test_credentials_that_tgtd_would_misread_are_refused(tgt: TgtRig, chap: Chap) -> None:
    with pytest.raises(ExportFailure) as caught:
        await tgt.target.create_export(replace(new_export(tgt), chap=chap))
    assert chap.password not in str(caught.value)
    assert await tgt.tgtadm.targets() == ()


async def test_a_path_that_tgtd_would_misread_is_refused(tgt: TgtRig) -> None:
    with pytest.raises(ExportFailure, match="has a comma"):
        await tgt.target.create_export(replace(new_export(tgt), path=tgt.backing("a,b")))
    assert await tgt.tgtadm.targets() == ()


async def test_a_create_that_is_cancelled_anywhere_leaves_all_or_nothing(tgt: TgtRig) -> None:
    for delay_ms in range(0, 40, 4):
        export = new_export(tgt)
        try:
            async with asyncio.timeout(delay_ms / 1000):
                await tgt.target.create_export(export)
        except TimeoutError:
            assert await tgt.target.exports() == set()
            assert await tgt.tgtadm.accounts() == ()
        await tgt.target.remove_export(export)


async def test_tgtd_is_asked_where_it_listens(tgt: TgtRig) -> None:
    await tgt.target.check_for_setup_error()
    elsewhere = TgtTarget(replace(tgt.options, portal_ip="192.0.2.1"), SystemClock())
    with pytest.raises(PortalNotBound, match=f"192.0.2.1:{tgt.options.portal_port}.*{tgt.options.portal}"):
        await elsewhere.check_for_setup_error()


async def test_no_tgtd_is_told_as_such(tgt: TgtRig, tmp_path: Path) -> None:
    export = new_export(tgt)
    nowhere = TgtTarget(replace(tgt.options, ipc_socket=tmp_path / "none"), SystemClock())
    with pytest.raises(TargetUnavailable, match=r"none\.0"):
        await nowhere.check_for_setup_error()
    with pytest.raises(TargetUnavailable):
        await nowhere.create_export(export)
    with pytest.raises(TargetUnavailable):
        await nowhere.exports()


async def test_a_password_never_stands_in_an_argument(tgt: TgtRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = recording_tgtadm(tmp_path / "bin", monkeypatch)
    export = new_export(tgt)
    assert export.chap is not None
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    await tgt.target.remove_export(export)
    asked = log.read_text()
    assert export.chap.username in asked
    assert export.chap.password not in asked
    assert export.chap.password not in tgt.daemon.log_path.read_text()


async def test_a_target_that_lets_somebody_in_is_never_without_an_account(
    tgt: TgtRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tgtd asks nobody for CHAP at a target that has no account."""
    export = new_export(tgt)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    log = recording_tgtadm(tmp_path / "bin", monkeypatch)
    await tgt.target.create_export(replace(export, chap=new_chap()))
    changes = [line for line in log.read_text().splitlines() if "bind" in line]
    assert [line.split(" --op ")[1].split(" --tid ")[0] for line in changes] == [
        "unbind --mode target",
        "unbind --mode account",
        "bind --mode account",
        "bind --mode target",
    ]


async def test_a_target_without_an_account_is_opened_for_nobody(tgt: TgtRig) -> None:
    export = new_export(tgt)
    location = ProviderLocation.parse(await tgt.target.create_export(export))
    assert export.chap is not None
    await tgt.tgtadm.ask("unbind", "account", "--tid", str(location.tid), "--user", export.chap.username)
    with pytest.raises(ExportFailure, match="create_export comes first"):
        await tgt.target.initialize_connection(export, connector())
    assert [target.acl for target in await tgt.tgtadm.targets()] == [()]


def recording_tgtadm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """From now on every tgtadm's arguments are written to the file returned."""
    folder.mkdir()
    log, program = folder / "arguments", folder / "tgtadm"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {log}\nPATH=${{PATH#*:}} exec tgtadm "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return log


async def test_9_two_sessions_of_one_initiator_are_two(tgt: TgtRig) -> None:
    export = new_export(tgt)
    await tgt.target.create_export(export)
    await tgt.target.initialize_connection(export, connector())
    async with tgt.session(export, connector()), tgt.session(export, connector()):
        name = tgt.target.export_name(export.volume)
        async with asyncio.timeout(20):
            while len((await tgt.target.connections())[name].sessions) < 2:
                await SystemClock().sleep(0.02)
        assert (await tgt.target.connections())[name].sessions == (connector()["initiator"],) * 2


async def test_9_a_target_without_a_disk_is_told_of(tgt: TgtRig) -> None:
    export = new_export(tgt)
    name = tgt.target.export_name(export.volume)
    await tgt.tgtadm.ask("new", "target", "--tid", "7", "--targetname", name)
    assert await tgt.target.connections() == {name: ExportState(None)}
    await tgt.target.remove_export(export)
