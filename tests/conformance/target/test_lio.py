"""What only LIO has: rtstool's arguments and outcomes (attach-flow 7.3), trees that a dead process left, plain files."""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cinder_lite.errors import ExportFailure, InvalidConnectorException, TargetUnavailable
from cinder_lite.ports.target import Chap
from cinder_lite.targets import lio_tree
from cinder_lite.targets.iscsi_names import ProviderLocation, new_chap
from cinder_lite.targets.lio import LioTarget
from common.host.clock import SystemClock
from common.host.command import Output
from tests.conformance.target.lio_rig import MIB, OPTIONS, LioRig, lio_rig
from tests.conformance.target.rigs import connector, new_export
from tests.support.configfs import Killed

IQN = "iqn.2010-10.org.openstack:volume-8f5cb3c3-3a8c-4d2b-9d3c-3f5f6f1f6c11"
ONE, OTHER = "iqn.1993-08.org.debian:01:cmp1", "iqn.1993-08.org.debian:01:cmp2"
CHAP = Chap("user2345", "secretsecret1234")


@pytest.fixture
def device(lio: LioRig) -> str:
    return lio.backing("volume-1")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[LioRig]:
    with lio_rig(tmp_path, is_block=False) as made:
        yield made


def created(lio: LioRig, device: str, *more: str, chap: Chap = CHAP) -> Output:
    return lio.tool.run(("create", device, IQN, chap.username, chap.password, "False", *more))


# -- rtstool's outcomes ---------------------------------------------------------------------------------------------------


def test_create_makes_one_disk_behind_chap_that_listens_where_it_is_told(lio: LioRig, device: str) -> None:
    assert created(lio, device, "-a10.0.0.4,fd00::4", "-p3261", f"{ONE},{OTHER}") == Output(0, "", "")
    tree, tpg = lio.configfs.tree(), f"iscsi/{IQN}/tpgt_1"
    assert tree[f"{tpg}/attrib/authentication"] == "1"
    assert tree[f"{tpg}/enable"] == "1"
    assert {name for name in tree if name.startswith(f"{tpg}/np/") and name.endswith(":3261/")} == {
        f"{tpg}/np/10.0.0.4:3261/", f"{tpg}/np/[fd00::4]:3261/",
    }  # fmt: skip
    assert tree[f"{tpg}/lun/lun_0/->"] == f"core/iblock_0/{IQN}"
    assert tree[f"core/iblock_0/{IQN}/udev_path"] == device
    assert tree[f"core/iblock_0/{IQN}/wwn/vpd_unit_serial"].endswith(IQN.removeprefix("iqn.2010-10.org.openstack:volume-"))
    for initiator in (ONE, OTHER):
        assert tree[f"{tpg}/acls/{initiator}/auth/userid"] == CHAP.username
        assert tree[f"{tpg}/acls/{initiator}/auth/password"] == CHAP.password
        assert tree[f"{tpg}/acls/{initiator}/lun_0/->"] == f"{tpg}/lun/lun_0"


def test_create_without_addresses_listens_everywhere_and_bears_a_machine_without_ipv6(lio: LioRig, device: str) -> None:
    lio.configfs.taken = {"[::0]:3260"}
    output = created(lio, device)
    assert (output.status, "Warning" in output.stdout, "[::0]" in output.stdout) == (0, True, True)
    assert f"iscsi/{IQN}/tpgt_1/np/0.0.0.0:3260/" in lio.configfs.tree()


def test_create_on_a_taken_portal_is_an_error_that_names_it(lio: LioRig, device: str) -> None:
    lio.configfs.taken = {"10.0.0.4:3260"}
    output = created(lio, device, "-a10.0.0.4")
    assert output.status == 1
    assert "ensure port 3260 on ip 10.0.0.4 is not in use" in output.stderr
    assert CHAP.password not in output.stderr


def test_a_password_of_dash_is_read_from_standard_input(lio: LioRig, device: str) -> None:
    words = ("create", device, IQN, CHAP.username, "-", "False", ONE)
    assert lio.tool.run(words, f"{CHAP.password}\n").status == 0
    assert lio.configfs.log_in(IQN, ONE, CHAP) == device
    assert lio.tool.run(("add-initiator", IQN, CHAP.username, "-", OTHER), f"{CHAP.password}\n").status == 0
    assert lio.configfs.log_in(IQN, OTHER, CHAP) == device


def test_add_initiator_takes_the_initiator_last_and_lets_it_in(lio: LioRig, device: str) -> None:
    created(lio, device)
    assert lio.tool.run(("add-initiator", IQN, CHAP.username, CHAP.password, ONE)) == Output(0, "", "")
    assert lio.configfs.log_in(IQN, ONE, CHAP) == device
    assert lio.configfs.log_in(IQN, OTHER, CHAP) is None


def test_add_initiator_writes_the_credentials_of_one_that_is_let_in_already(lio: LioRig, device: str) -> None:
    """cinder-rtstool leaves the old ones, and the login fails for ever (attach-flow P7)."""
    created(lio, device, ONE)
    changed = new_chap()
    lio.tool.run(("add-initiator", IQN, changed.username, changed.password, ONE.upper().replace("IQN", "iqn")))
    assert lio.configfs.log_in(IQN, ONE, CHAP) is None
    assert lio.configfs.log_in(IQN, ONE, changed) == device


def test_delete_initiator_ends_its_session_and_one_that_is_not_there_is_no_error(lio: LioRig, device: str) -> None:
    created(lio, device, ONE)
    lio.configfs.log_in(IQN, ONE, CHAP)
    assert lio.tool.run(("delete-initiator", IQN, ONE)) == Output(0, "", "")
    assert lio.configfs.sessions(IQN) == set()
    assert lio.configfs.log_in(IQN, ONE, CHAP) is None
    output = lio.tool.run(("delete-initiator", IQN, ONE))
    assert (output.status, output.stdout) == (0, f"delete_initiator: {ONE} ACL not found. Continuing.\n")


@pytest.mark.parametrize(
    "words", [("add-initiator", IQN, "u", "p" * 12, ONE), ("delete-initiator", IQN, ONE)], ids=lambda words: words[0]
)
def test_an_unknown_target_is_an_error(lio: LioRig, words: tuple[str, ...]) -> None:
    output = lio.tool.run(words)
    assert output.status == 1
    assert f"Could not find target {IQN}" in output.stderr


def test_get_targets_prints_a_name_a_line(lio: LioRig, device: str) -> None:
    assert lio.tool.run(("get-targets",)) == Output(0, "", "")
    created(lio, device)
    assert lio.tool.run(("get-targets",)) == Output(0, f"{IQN}\n", "")


def test_get_targets_for_programs_tells_what_there_is_and_no_secret(lio: LioRig, device: str) -> None:
    created(lio, device, ONE, "-a10.0.0.4")
    lio.configfs.log_in(IQN, ONE, CHAP)
    text = lio.tool.run(("get-targets", "--json")).stdout
    assert f'"path":"{device}"' in text
    assert f'"let_in":["{ONE}"],"sessions":["{ONE}"],"portals":["10.0.0.4:3260"]' in text
    assert CHAP.password not in text


def test_delete_takes_target_and_backstore_and_is_silent_about_what_is_gone(lio: LioRig, device: str) -> None:
    empty = lio.configfs.tree()
    created(lio, device, ONE)
    for _ in range(2):
        assert lio.tool.run(("delete", IQN)) == Output(0, "", "")
    assert {name for name in lio.configfs.tree() if name not in empty and not name.startswith(("iscsi/lio", "iscsi/disc"))} == {
        "iscsi/"
    }


def test_verify_needs_no_root_and_says_what_is_missing(lio: LioRig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lio.tool.run(("verify",)) == Output(0, "", "")
    monkeypatch.setattr(lio_tree, "_MEMBERS", (*lio_tree._MEMBERS, "Warp"))
    assert "missing member Warp" in lio.tool.run(("verify",)).stderr


def test_what_was_saved_is_restored_and_what_is_there_is_left_alone(lio: LioRig, device: str, tmp_path: Path) -> None:
    file = str(tmp_path / "saved.json")
    created(lio, device, ONE, "-a10.0.0.4")
    saved = lio.configfs.tree()
    assert lio.tool.run(("save", file)) == Output(0, "", "")
    assert Path(file).stat().st_mode & 0o777 == 0o600
    refused = lio.tool.run(("restore", file))
    assert (refused.status, "exist" in refused.stderr) == (1, True)
    assert lio.configfs.tree() == saved
    lio.tool.run(("delete", IQN))
    assert lio.tool.run(("restore", file)).status == 0
    assert lio.configfs.tree() == saved


@pytest.mark.parametrize(
    "words",
    [(), ("start",), ("create", "/dev/sda", IQN, "u", "p"), ("create", "/dev/sda", IQN, "u", "p", "False", "-pmany"),
     ("create", "/dev/sda", IQN, "u", "p", "False", "-a"), ("create", "/dev/sda", IQN, "u", "p", "False", ONE, "-a1.2.3.4", "-p1", "x"),
     ("add-initiator", IQN, "u", "p"), ("delete-initiator", IQN), ("delete",), ("get-targets", "all"), ("save", "a", "b"), ("verify", "x")],
    ids=" ".join,
)  # fmt: skip
def test_wrong_arguments_are_answered_by_the_usage(lio: LioRig, words: tuple[str, ...]) -> None:
    output = lio.tool.run(words)
    assert (output.status, output.stdout.splitlines()[0]) == (1, "Usage:")
    assert lio.configfs.tree().keys() == {"core/"}


def test_a_machine_without_configfs_is_told_as_such(lio: LioRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FileNotFoundError(2, "No such file or directory", "/proc/modules")

    monkeypatch.setattr("rtslib_fb.root.mount_configfs", refuse)
    output = lio.tool.run(("get-targets",))
    assert (output.status, "configfs mounted at /sys/kernel/config" in output.stderr) == (1, True)


def test_two_tools_at_once_wait_for_one_another(lio: LioRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cinder_lite.targets.rtstool._LOCK_WAIT_S", 0.0)
    with open(lio.tool._lock_file, "w") as held:  # noqa: PTH123
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another rtstool has held" in lio.tool.run(("get-targets",)).stderr
    assert lio.tool.run(("get-targets",)).status == 0


# -- what a dead process left ---------------------------------------------------------------------------------------------


def changes_of(lio: LioRig, device: str, *more: str) -> int:
    before = lio.configfs.changes
    assert created(lio, device, *more).status == 0
    return lio.configfs.changes - before


def test_create_again_changes_nothing_that_can_be_seen(lio: LioRig, device: str) -> None:
    created(lio, device, ONE, "-a10.0.0.4")
    once = lio.configfs.tree()
    created(lio, device, ONE, "-a10.0.0.4")
    assert lio.configfs.tree() == once


@pytest.mark.parametrize("is_block", [True, False], ids=["block device", "plain file"])
def test_a_create_that_died_anywhere_is_mended_by_the_next(tmp_path: Path, is_block: bool) -> None:
    """Every prefix of it; cinder-rtstool takes a backstore without a target for the whole (attach-flow P8)."""
    with lio_rig(tmp_path, is_block=is_block) as whole:
        device = whole.backing("volume-1")
        total = changes_of(whole, device, f"{ONE},{OTHER}", "-a10.0.0.4")
        wanted = whole.configfs.tree()
    assert total > 15
    for number in range(total):
        with lio_rig(tmp_path / str(number), is_block=is_block) as lio:
            lio.configfs.blocks = whole.configfs.blocks
            lio.configfs.dies_after = number
            with pytest.raises(Killed):
                created(lio, device, f"{ONE},{OTHER}", "-a10.0.0.4")
            lio.configfs.dies_after = None
            assert created(lio, device, f"{ONE},{OTHER}", "-a10.0.0.4") == Output(0, "", ""), number
            assert lio.configfs.tree() == wanted, number


def test_a_create_that_died_anywhere_can_be_deleted(tmp_path: Path) -> None:
    with lio_rig(tmp_path) as whole:
        device = whole.backing("volume-1")
        total = changes_of(whole, device, ONE, "-a10.0.0.4")
    for number in range(total):
        with lio_rig(tmp_path / str(number)) as lio:
            lio.configfs.blocks = whole.configfs.blocks
            lio.configfs.dies_after = number
            with pytest.raises(Killed):
                created(lio, device, ONE, "-a10.0.0.4")
            lio.configfs.dies_after = None
            assert lio.tool.run(("get-targets", "--json")).status == 0
            assert lio.tool.run(("delete", IQN)) == Output(0, "", ""), number
            assert not [name for name in lio.configfs.tree() if IQN in name], number


def test_a_delete_that_died_anywhere_goes_on(tmp_path: Path) -> None:
    number = 0
    while True:
        with lio_rig(tmp_path / str(number)) as lio:
            device = lio.backing("volume-1")
            created(lio, device, ONE, "-a10.0.0.4")
            lio.configfs.dies_after = lio.configfs.changes + number
            try:
                lio.tool.run(("delete", IQN))
            except Killed:
                lio.configfs.dies_after = None
                assert lio.tool.run(("delete", IQN)) == Output(0, "", ""), number
                assert not [name for name in lio.configfs.tree() if IQN in name], number
                number += 1
                continue
            break
    assert number > 5


def test_an_add_initiator_that_died_anywhere_is_mended_by_the_next(tmp_path: Path) -> None:
    number = 0
    while True:
        with lio_rig(tmp_path / str(number)) as lio:
            device = lio.backing("volume-1")
            created(lio, device, "-a10.0.0.4")
            lio.configfs.dies_after = lio.configfs.changes + number
            words = ("add-initiator", IQN, CHAP.username, CHAP.password, ONE)
            try:
                lio.tool.run(words)
            except Killed:
                assert lio.configfs.log_in(IQN, ONE, None) is None, number
                lio.configfs.dies_after = None
                assert lio.tool.run(words) == Output(0, "", ""), number
                assert lio.configfs.log_in(IQN, ONE, CHAP) == device, number
                number += 1
                continue
            break
    assert number > 3


@pytest.mark.parametrize("initiators", [(), (ONE,)], ids=["nobody new", "the same again"])
def test_a_disk_that_was_half_given_to_an_initiator_is_no_hindrance_when_the_device_changes(
    lio: LioRig, device: str, initiators: tuple[str, ...]
) -> None:
    """rtslib looks at every mapped disk when it deletes one that is mapped, and stumbles over those that lead nowhere."""
    created(lio, lio.backing("other"), "-a10.0.0.4")
    acl = lio.configfs.root / "iscsi" / IQN / "tpgt_1/acls" / ONE
    acl.mkdir()
    (acl / "lun_0").mkdir()
    assert created(lio, device, *initiators, "-a10.0.0.4") == Output(0, "", "")
    assert lio.configfs.log_in(IQN, ONE, CHAP) == device


def test_a_target_that_serves_another_device_is_made_anew(lio: LioRig, device: str) -> None:
    created(lio, lio.backing("other"), ONE, "-a10.0.0.4")
    created(lio, device, "-a10.0.0.4")
    assert lio.configfs.log_in(IQN, ONE, CHAP) == device


def test_a_second_portal_group_disk_and_portal_are_taken_away(lio: LioRig, device: str) -> None:
    rtslib = pytest.importorskip("rtslib_fb")
    created(lio, device, ONE, "-a10.0.0.4")
    once = lio.configfs.tree()
    target = rtslib.Target(rtslib.FabricModule("iscsi"), IQN)
    tpg = rtslib.TPG(target, 1)
    rtslib.TPG(target, 2)
    rtslib.LUN(tpg, 1, storage_object=next(iter(rtslib.RTSRoot().storage_objects)))
    rtslib.NetworkPortal(tpg, "10.0.0.5")
    tpg.set_attribute("authentication", "0")
    created(lio, device, ONE, "-a10.0.0.4")
    assert lio.configfs.tree() == once


# -- the target -----------------------------------------------------------------------------------------------------------


async def test_the_location_has_lun_0_and_agrees_with_the_connection_info(lio: LioRig) -> None:
    export = new_export(lio)
    location = ProviderLocation.parse(await lio.target.create_export(export))
    info = await lio.target.initialize_connection(export, connector())
    assert (info["data"]["target_iqn"], info["data"]["target_lun"], info["data"]["target_portal"]) == (
        location.iqn, 0, str(OPTIONS.portal),
    )  # fmt: skip
    assert info["data"]["auth_password"] == (export.chap.password if export.chap else None)


async def test_no_secret_is_among_the_words_of_the_tool(lio: LioRig) -> None:
    export = new_export(lio)
    assert export.chap is not None
    await lio.target.create_export(export)
    await lio.target.initialize_connection(export, connector())
    await lio.target.remove_export(export)
    assert len(lio.tool.asked) >= 6
    assert export.chap.password not in str(lio.tool.asked)


async def test_a_name_that_lio_would_change_is_refused_by_its_name(lio: LioRig) -> None:
    for name in ("iqn.1993-08.org.debian:01:CMP1", "iqn.1993-08.org.debian:01:cmp_1"):
        with pytest.raises(InvalidConnectorException, match=name):
            lio.target.validate_connector({**connector(), "initiator": name})


async def test_an_export_without_credentials_is_refused(lio: LioRig) -> None:
    with pytest.raises(ExportFailure, match="CHAP"):
        await lio.target.create_export(replace(new_export(lio), chap=None))
    assert await lio.target.exports() == set()


async def test_a_plain_file_that_nobody_uses_is_served_in_its_new_size(files: LioRig) -> None:
    export = new_export(files)
    await files.target.create_export(export)
    await files.target.initialize_connection(export, connector())
    files.grow(export.path, 2 * MIB)
    await files.target.extend_target(export, 2 * MIB)
    assert await files.capacity(export, connector()) == 2 * MIB


async def test_a_plain_file_in_use_is_not_grown_under_its_host(files: LioRig) -> None:
    export = new_export(files)
    await files.target.create_export(export)
    await files.target.initialize_connection(export, connector())
    async with files.session(export, connector()):
        files.grow(export.path, 2 * MIB)
        with pytest.raises(ExportFailure, match="detach the volume first"):
            await files.target.extend_target(export, 2 * MIB)
        await files.target.create_export(export)
        assert await files.sessions(export) == {"cmp1"}


async def test_a_tool_that_is_not_there_is_told_as_such() -> None:
    target = LioTarget(replace(OPTIONS, rtstool=("/nonexistent/rtstool",)), SystemClock())
    with pytest.raises(TargetUnavailable, match="/nonexistent/rtstool is not on this machine"):
        await target.check_for_setup_error()


async def test_the_command_line_runs_the_tool(tmp_path: Path) -> None:
    """As a program of its own, on a machine whose kernel has no LIO."""
    target = LioTarget(OPTIONS, SystemClock())
    if os.path.exists("/sys/kernel/config/target"):  # noqa: ASYNC240, PTH110
        await target.check_for_setup_error()
        return
    with pytest.raises(TargetUnavailable, match=r"configfs mounted|needs root"):
        await target.check_for_setup_error()
