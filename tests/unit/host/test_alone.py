"""Names that processes of one machine hold by locks, and what is known of those that are gone."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import Misconfigured
from common.host.alone import RunsAlready, hold_name

_HOLD = """
import sys
from pathlib import Path
from common.host.alone import hold_name
with hold_name(Path(sys.argv[1]), sys.argv[2], boot=sys.argv[3] or None):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, name: str, boot: str = "") -> "subprocess.Popen[bytes]":
    """Another process that has the name when this returns."""
    argv = [sys.executable, "-c", _HOLD, str(folder), name, boot]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def killed(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)


def test_a_second_process_of_a_name_is_told_who_has_it_and_the_name_is_free_once_that_one_is_killed(tmp_path: Path) -> None:
    other = holder(tmp_path, "nova-compute.cmp1")
    try:
        with (
            pytest.raises(RunsAlready, match=f"nova-compute.cmp1 runs .*pid {other.pid}"),
            hold_name(tmp_path, "nova-compute.cmp1"),
        ):
            pass
        with hold_name(tmp_path, "nova-compute.cmp2") as dead:
            assert dead == frozenset()
    finally:
        killed(other)
    with hold_name(tmp_path, "nova-compute.cmp1"):
        pass


def test_the_dead_of_a_name_are_told_once_and_the_living_are_not(tmp_path: Path) -> None:
    gone, alive = holder(tmp_path, "nova-api.h/1", "b1"), holder(tmp_path, "nova-api.h/1", "b2")
    killed(gone)
    try:
        with hold_name(tmp_path, "nova-api.h", boot="x") as dead:
            assert dead == frozenset()
        with hold_name(tmp_path, "nova-api.h/1", boot="b3") as dead:
            assert dead == {"b1"}
        with hold_name(tmp_path, "nova-api.h/1", boot="b4") as dead:
            assert dead == frozenset()
    finally:
        killed(alive)


def test_a_name_that_was_given_back_leaves_nobody_dead(tmp_path: Path) -> None:
    for boot in ("b1", "b2"):
        with hold_name(tmp_path, "nova-api.h1", boot=boot) as dead:
            assert dead == frozenset()
    with hold_name(tmp_path, "nova-compute.h1"), pytest.raises(RunsAlready), hold_name(tmp_path, "nova-compute.h1"):
        pass


def test_a_process_that_takes_its_lock_at_this_moment_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    told: list[frozenset[str]] = []

    def beside(file: int, how: int) -> Any:
        if not told:
            told.append(frozenset({"not told"}))
            with hold_name(tmp_path, "nova-api.h1", boot="other") as dead:
                told[0] = dead
        return real(file, how)

    monkeypatch.setattr(fcntl, "flock", beside)
    with hold_name(tmp_path, "nova-api.h1", boot="mine"):
        assert told == [frozenset()]
        with hold_name(tmp_path, "nova-api.h1", boot="third") as dead:
            assert dead == frozenset()


def test_a_folder_that_cannot_be_used_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="state_path"), hold_name(tmp_path / "file", "x"):
        pass
