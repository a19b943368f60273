"""Failpoints that files arm."""

import os
import signal
from pathlib import Path

import pytest
import structlog

from common.app.armed import VARIABLE, Armed, armed
from common.base.errors import Misconfigured
from common.base.failpoints import OFF


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that the process sent itself."""
    found: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: found.append(number) if pid == os.getpid() else None)
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_place_that_is_armed_acts_once_and_its_file_is_gone_before(tmp_path: Path, sent: list[int]) -> None:
    failpoints = Armed(tmp_path, "nova-api.h1")
    (tmp_path / "nova-api.h1:s.a.begun").write_text("kill\n")
    (tmp_path / "nova-api.h1:s.b.begun").write_text("stop")
    for name in ("s.a.begun", "s.a.begun", "s.b.begun", "s.c.begun"):
        await failpoints.reach(name)
    assert sent == [signal.SIGKILL, signal.SIGSTOP]
    assert names(tmp_path) == ["nova-api.h1:s.a.begun.reached", "nova-api.h1:s.b.begun.reached"]


async def test_what_is_armed_for_another_process_is_left_to_it(tmp_path: Path, sent: list[int]) -> None:
    (tmp_path / "nova-api.h2:s.a.begun").write_text("kill")
    await Armed(tmp_path, "nova-api.h1").reach("s.a.begun")
    assert sent == []
    assert (tmp_path / "nova-api.h2:s.a.begun").exists()


async def test_a_word_that_is_not_known_is_told_and_does_nothing(tmp_path: Path, sent: list[int]) -> None:
    (tmp_path / "p:a").write_text("explode")
    with structlog.testing.capture_logs() as logged:
        await Armed(tmp_path, "p").reach("a")
    assert [(line["found"], line["wanted"]) for line in logged] == [("explode", "kill or stop")]
    assert sent == []


def test_without_a_word_in_the_environment_they_are_off_and_a_folder_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    assert armed("p", {}) is OFF
    assert armed("p", {VARIABLE: str(tmp_path)}).is_on
    with pytest.raises(Misconfigured, match=VARIABLE):
        armed("p", {VARIABLE: str(tmp_path / "none")})
