"""What a user or an operator gets wrong: each is a clear sentence, a code that says what kind it is, and no traceback."""

import socket
from pathlib import Path

import pytest

from tests.support.processes import Ran, command


def check(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code, (ran.out, ran.err)
    assert "Traceback" not in ran.err + ran.out
    for word in words:
        assert word in ran.err


def conf(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lite.conf"
    path.write_text(text.format(tmp=tmp_path))
    return path


def test_nobody_listening_is_told_at_once_with_what_to_do(tmp_path) -> None:
    check(command("nova-lite", "list", state=tmp_path), 3, "Nobody listens on nova-api", "lite up")
    check(command("lite", "rpc", "call", "nobody", "x", state=tmp_path), 3, "Nobody listens on nobody")
    check(command("lite", "rpc", "cast", "nobody", "x", state=tmp_path), 3, "Nobody listens on nobody")
    check(command("lite", "rpc", "fanout", "nobody", "x", state=tmp_path), 3, "Nobody listens on nobody")


@pytest.mark.parametrize("size", ["0", "-5", "abc", "1.5", "¹"])
def test_a_volume_s_size_is_a_whole_number_of_gib(tmp_path, size: str) -> None:
    check(command("cinder-lite", "create", size, state=tmp_path), 1, repr(size), "whole number of GiB")


def test_words_that_do_not_fit_give_the_usage(tmp_path) -> None:
    check(command("nova-lite", "boot", state=tmp_path), 64, "Usage: nova-lite boot")
    check(command("nova-lite", "bot", state=tmp_path), 64, "bot", "boot")
    check(command("nova-lite", "run", "scheduler", state=tmp_path), 64, "'scheduler'", "api, compute")
    check(command("lite", "rpc", "call", "compute", "x", "novalue", state=tmp_path), 64, "'novalue'", "KEY=VALUE")


def test_a_missing_configuration_file_is_named(tmp_path) -> None:
    for words in (("list",), ("run", "api")):
        check(command("nova-lite", *words, files=[tmp_path / "no.conf"]), 78, "no.conf")


def test_an_unknown_key_is_an_error_that_suggests_the_nearest(tmp_path) -> None:
    path = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\ntransport_ur = rabbit://\n")
    check(command("nova-lite", "run", "api", files=[path]), 78, "lite.conf:3", "transport_ur", "transport_url")
    check(command("lite", "config", "check", "--config-file", str(path)), 78, "transport_url")


def test_a_value_of_a_wrong_type_is_named(tmp_path) -> None:
    path = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\nreport_interval = soon\n")
    check(command("cinder-lite", "run", "api", files=[path]), 78, "lite.conf:3", "report_interval", "soon")


def test_a_broker_that_is_down_is_told_without_its_password(tmp_path) -> None:
    path = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\ntransport_url = rabbit://u:hunter2@127.0.0.1:1/v\n")
    for program, words in (("nova-lite", ("list",)), ("lite", ("rpc", "call", "compute", "x"))):
        ran = command(program, *words, files=[path])
        check(ran, 69, "127.0.0.1:1")
        assert "hunter2" not in ran.err
    assert command("lite", "db", "upgrade", files=[path]).code == 0
    ran = command("nova-lite", "run", "api", files=[path])
    check(ran, 69, "127.0.0.1:1")
    assert "hunter2" not in ran.err


def test_a_database_that_is_down_is_told_without_its_password(tmp_path) -> None:
    path = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\n[database]\nconnection = postgresql://u:hunter2@127.0.0.1:1/x\n")
    for program, words in (("nova-lite", ("run", "compute")), ("lite", ("db", "upgrade")), ("lite", ("db", "check"))):
        ran = command(program, *words, files=[path])
        check(ran, 69, "127.0.0.1:1")
        assert "hunter2" not in ran.err


def test_a_database_without_tables_says_what_to_run(tmp_path) -> None:
    path = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\n")
    for program, process in (("nova-lite", "api"), ("cinder-lite", "scheduler")):
        check(command(program, "run", process, files=[path]), 78, "lite db upgrade")
    check(command("lite", "db", "check", files=[path]), 78, "lite db upgrade")


def test_a_doctor_who_cannot_look_says_why(tmp_path) -> None:
    away = "[DEFAULT]\nstate_path = {tmp}\n[database]\nconnection = postgresql://u:hunter2@127.0.0.1:1/x\n"
    deaf = "[DEFAULT]\nstate_path = {tmp}\ntransport_url = rabbit://u:hunter2@127.0.0.1:1/v\n"
    for text in (away, deaf):
        ran = command("lite", "doctor", files=[conf(tmp_path, text)])
        check(ran, 69, "127.0.0.1:1")
        assert "hunter2" not in ran.err
    path = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\n")
    check(command("lite", "doctor", files=[path]), 78, "lite db upgrade")
    for seconds in ("-1", "nan", "soon"):
        check(command("lite", "doctor", "--older-than", seconds, files=[path]), 64, "--older-than")
    assert command("lite", "db", "upgrade", files=[path]).code == 0
    check(command("lite", "doctor", "--strict", files=[path]), 0, "Nothing is wrong", "services: 0")


def test_the_article_s_stanza_is_read_and_what_the_machine_lacks_is_said(tmp_path) -> None:
    path = conf(
        tmp_path,
        "[DEFAULT]\nstate_path = {tmp}\nenabled_backends = lvm\n[lvm]\niscsi_helper=lioadm\n"
        "volume_driver=cinder.volume.drivers.lvm.LVMVolumeDriver\nvolume_backend_name=lvm\nvolume_group=cinder-volumes\n",
    )
    ran = command("lite", "config", "check", files=[path])
    check(ran, 0, "iscsi_helper", "target_helper")
    assert command("lite", "db", "upgrade", files=[path]).code == 0
    check(command("cinder-lite", "run", "volume", files=[path]), 69, "Volume driver of backend lvm is not ready")


@pytest.mark.real("tgt")
def test_a_portal_that_cannot_be_bound_is_found_out(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = conf(
            tmp_path,
            f"[DEFAULT]\nstate_path = {{tmp}}\nenabled_backends = a\n[a]\ntgtd_managed = true\ntgt_ipc_socket = {{tmp}}/s\n"
            f"target_ip_address = 127.0.0.1\ntarget_port = {port}\n",
        )
        assert command("lite", "db", "upgrade", files=[path]).code == 0
        ran = command("cinder-lite", "run", "volume", files=[path])
    check(ran, 69, f"127.0.0.1:{port}")


def test_what_an_operator_mistypes_is_told_in_a_sentence(tmp_path) -> None:
    check(command("lite", "dlq", "show", "nope", state=tmp_path), 1, "No dead letter nope", "lite dlq list")
    check(command("lite", "dlq", "drop", state=tmp_path), 64, "--all")
    check(command("lite", "dlq", "drop", "--all", "compute", "twice", state=tmp_path), 64, "with --all there is no ID")
    check(command("lite", "rpc", "ping", "compute", "--count", "0", state=tmp_path), 64, "count")
    bad = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\nmetrics_listen = there\n")
    check(command("nova-lite", "run", "api", files=[bad]), 78, "lite.conf:3", "metrics_listen", "HOST:PORT")
    down = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\ntransport_url = rabbit://u:hunter2@127.0.0.1:1/v\n")
    for words in (("dlq", "list"), ("bus", "inspect"), ("rpc", "ping", "compute"), ("rpc", "listen", "compute")):
        ran = command("lite", *words, files=[down])
        check(ran, 69, "127.0.0.1:1")
        assert "hunter2" not in ran.err
    up = conf(tmp_path, "[DEFAULT]\nstate_path = {tmp}\n")
    check(command("lite", "bus", "inspect", "--strict", files=[up]), 0)


def test_what_a_user_of_volumes_mistypes_is_told_in_a_sentence(tmp_path) -> None:
    check(command("cinder-lite", "extend", "v1", "much", state=tmp_path), 1, "NEW_SIZE is 'much'", "whole number of GiB")
    check(command("cinder-lite", "create", state=tmp_path), 1, "SIZE is missing", "--snapshot")
    used = command("cinder-lite", "rtstool", "create", "/dev/sda", "-p3260", state=tmp_path)
    assert (used.code, used.out.splitlines()[0]) == (1, "Usage:")
