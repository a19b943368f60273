"""`lite notify` as people run it, on the bus that is there without any configuration."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.app.notify_command import payload_of
from tests.support.processes import Ran, command


def notify(state: Path, *words: str) -> Ran:
    return command("lite", "notify", *words, state=state)


def heard(state: Path, number: int, *words: str) -> list[dict[str, Any]]:
    ran = notify(state, "listen", "--json", "--count", str(number), *words)
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def test_what_was_told_is_printed_once_and_what_was_not_printed_stays(tmp_path: Path) -> None:
    for number in range(3):
        ran = notify(tmp_path, "send", "compute.instance.update", f"n={number}", "a-b=text", "--publisher-id", "compute.host1")
        assert (ran.code, ran.out) == (0, ""), ran.err
        assert "compute.instance.update is on the bus for notifications.info." in ran.err
    first, second = heard(tmp_path, 2)
    assert (first["payload"], second["payload"]) == ({"n": 0, "a-b": "text"}, {"n": 1, "a-b": "text"})
    assert (first["priority"], first["publisher_id"], first["event_type"]) == ("INFO", "compute.host1", "compute.instance.update")
    assert first["context"]["project_id"] == "default"
    (third,) = heard(tmp_path, 1)
    assert third["payload"]["n"] == 2


def test_topics_priorities_and_formats_are_the_user_s_choice(tmp_path: Path) -> None:
    ran = notify(tmp_path, "send", "x.y", "--priority", "error", "--v1", "--topic", "audits", "--topic", "more")
    assert "x.y is on the bus for audits.error, more.error." in ran.err
    found = heard(tmp_path, 2, "--topic", "audits", "--topic", "more")
    assert [item["priority"] for item in found] == ["ERROR", "ERROR"]
    assert len({item["message_id"] for item in found}) == 1


def test_people_get_a_line_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    notify(tmp_path, "send", "x\x1b[2Jy", "a=\x1b[31m", "--publisher-id", "p")
    ran = notify(tmp_path, "listen", "--count", "1")
    assert ran.out.endswith('  INFO  p  x\\x1b[2Jy  {"a": "\\u001b[31m"}\n')


def test_a_reader_who_leaves_takes_no_more_than_it_read(tmp_path: Path) -> None:
    for number in range(2):
        notify(tmp_path, "send", "e", f"n={number}")
    listen = subprocess.Popen(
        [sys.executable, "-m", "common.app", "notify", "listen"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert listen.stdout is not None
    assert listen.stderr is not None
    listen.stdout.close()
    assert listen.wait(30) == 141
    assert "Traceback" not in listen.stderr.read()
    listen.stderr.close()
    assert {item["payload"]["n"] for item in heard(tmp_path, 2)} == {0, 1}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("send", "e", "novalue"), "'novalue' is no part of a payload; wanted: KEY=VALUE"),
        (("send", "e", "a=NaN"), "the payload cannot be sent"),
        (("send", "e", "--priority", "loud"), "'loud' is not one of 'audit'"),
        (("listen", "--count", "0"), "--count"),
    ],
)
def test_what_cannot_be_meant_gives_the_usage(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ran = notify(tmp_path, *words)
    assert ran.code == 64
    assert said in " ".join(ran.err.split())
    assert "Traceback" not in ran.err


def test_a_bus_that_is_not_there_is_told_and_the_password_is_not(tmp_path: Path) -> None:
    conf = tmp_path / "lite.conf"
    conf.write_text("[DEFAULT]\ntransport_url = rabbit://u:hunter2@127.0.0.1:1/v\n")
    for words in (("send", "e"), ("listen",)):
        ran = command("lite", "notify", *words, files=[conf], state=tmp_path)
        assert (ran.code, ran.out) == (69, "")
        assert "127.0.0.1:1" in ran.err
        assert "hunter2" not in ran.err


def test_keys_of_a_payload_are_any_text_and_the_last_of_a_name_counts() -> None:
    assert payload_of(["a-b.c=1", 'd={"e": [null]}', "d=x=y", "f="]) == {"a-b.c": 1, "d": "x=y", "f": ""}
