"""tgtadm's odd endings, played by a program in its place."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cinder_lite.errors import PortalNotBound, TargetUnavailable
from cinder_lite.ports.target import Chap
from cinder_lite.targets.iscsi_names import Portal
from cinder_lite.targets.tgt import TgtOptions, TgtTarget
from cinder_lite.targets.tgt_text import Refusal
from cinder_lite.targets.tgtadm import Tgtadm, TgtRefused
from common.base.errors import Broken, Timeout
from common.host.clock import SystemClock

Play = Callable[[str], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Puts a shell script in the place of tgtadm."""

    def put(script: str) -> None:
        program = tmp_path / "tgtadm"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return put


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("echo 'tgtadm: tgtd closed the socket' >&2; exit 0", id="tgtd died while it was asked"),
        pytest.param("echo 'tgtadm: a partial response' >&2; exit 0", id="tgtd died while it answered"),
        pytest.param("echo 'tgtadm: failed to send request hdr to tgt daemon' >&2; exit 107", id="no tgtd"),
        pytest.param("kill -PIPE $$", id="tgtd of another user"),
    ],
)
async def test_a_tgtd_that_does_not_answer_is_not_available(play: Play, script: str) -> None:
    play(script)
    with pytest.raises(TargetUnavailable, match=r"tgtd at /var/run/tgtd/socket\.7"):
        await Tgtadm(control_port=7).targets()


async def test_a_refusal_carries_tgtds_words(play: Play) -> None:
    play('echo "tgtadm: can\'t find the target" >&2; exit 22')
    with pytest.raises(TgtRefused, match="can't find the target") as caught:
        await Tgtadm().ask("delete", "target", "--tid", "1")
    assert caught.value.refusal is Refusal.NO_TARGET
    assert await Tgtadm().connections(1) == ()


async def test_an_unknown_refusal_is_no_reason_to_act(play: Play) -> None:
    play("echo 'tgtadm: invalid request' >&2; exit 22")
    with pytest.raises(TgtRefused) as caught:
        await Tgtadm().targets()
    assert caught.value.refusal is None


async def test_an_answer_that_does_not_come_is_a_timeout(play: Play) -> None:
    play("exec tail -f /dev/null")
    with pytest.raises(Timeout):
        await Tgtadm(timeout_s=0.05).targets()


@pytest.mark.parametrize(
    "script", ["echo 'Target x: iqn'", "printf 'Target 1: iqn\\n    LUN information:\\n        Type: disk\\n'"]
)
async def test_an_answer_in_another_form_is_not_read_as_no_targets(play: Play, script: str) -> None:
    play(script)
    with pytest.raises(Broken, match="not in the form of tgt"):
        await Tgtadm().targets()


async def test_an_answer_that_was_cut_off_is_not_read(play: Play) -> None:
    play("head -c 2000000 /dev/zero | tr '\\0' '\\n'")
    with pytest.raises(Broken, match="too many targets"):
        await Tgtadm().targets()


@pytest.mark.parametrize(
    ("ip", "port", "shown", "is_bound"),
    [
        ("10.0.0.4", 3260, "Portal: [::]:3260,1\nPortal: 0.0.0.0:3260,1", True),
        ("fd00::4", 3260, "Portal: [::]:3260,1\nPortal: 0.0.0.0:3260,1", True),
        ("fd00::4", 3260, "Portal: [fd00::4]:3260,1", True),
        ("10.0.0.4", 3261, "Portal: [::]:3260,1\nPortal: 0.0.0.0:3260,1", False),
        ("10.0.0.4", 3260, "Portal: [::]:3260,1", False),
        ("10.0.0.4", 3260, "", False),
    ],
)
async def test_a_tgtd_that_listens_at_every_address_listens_at_ours(
    play: Play, ip: str, port: int, shown: str, is_bound: bool
) -> None:
    play(f"cat <<'.'\n{shown}\n.")
    target = TgtTarget(TgtOptions(ip, port), SystemClock())
    if is_bound:
        await target.check_for_setup_error()
    else:
        with pytest.raises(PortalNotBound, match=f"{port}: it listens on"):
            await target.check_for_setup_error()


async def test_a_missing_tgtadm_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("cinder_lite.targets.tgtadm.SYSTEM_FOLDERS", str(tmp_path))
    with pytest.raises(TargetUnavailable, match="tgtadm is not on this machine"):
        await Tgtadm().portals()


@pytest.mark.parametrize("answer", [b"", b"\0\0\0"])
async def test_a_tgtd_that_hangs_up_on_a_new_account_is_not_available(tmp_path: Path, answer: bytes) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    tgtadm = Tgtadm(control_port=1, socket=tmp_path / "s")
    async with await asyncio.start_unix_server(hang_up, tgtadm.socket_path):
        with pytest.raises(TargetUnavailable) as caught:
            await tgtadm.new_account(Chap("user", "topsecret1234"))
    assert "topsecret1234" not in str(caught.value)


async def test_no_tgtd_makes_no_account(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable, match="No such file"):
        await Tgtadm(socket=tmp_path / "s").new_account(Chap("user", "topsecret1234"))


def test_a_portal_is_shown_as_tgtd_takes_it() -> None:
    assert str(Portal("fd00::4")) == "[fd00::4]:3260"
