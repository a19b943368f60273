"""What lies in deploy/ is accepted by the programs that it names."""

import json
import re
from pathlib import Path

import pytest
import yaml

from cinder_lite.__main__ import PROCESSES as CINDER
from cinder_lite.config import load_cinder
from common.rpc.options import RpcOptions
from common.rpc.topology import new_reply_queue, server_queues
from nova_lite.__main__ import PROCESSES as NOVA
from nova_lite.config import load_nova

DEPLOY = Path(__file__).parents[3] / "deploy"
DEFINITIONS = json.loads((DEPLOY / "rabbitmq" / "definitions.json").read_text())
PERMISSIONS = {row["user"]: row for row in DEFINITIONS["permissions"]}


def test_the_sample_files_are_read_without_a_complaint() -> None:
    config = DEPLOY / "config"
    assert load_nova([config / "nova.conf", config / "nova-compute.conf"]).warnings == ()
    assert load_cinder([config / "cinder.conf"]).warnings == ()


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*-lite-*.service")), ids=lambda path: path.stem)
def test_a_unit_runs_a_process_that_there_is(unit: Path) -> None:
    [words] = re.findall(r"^ExecStart=\S*/(nova-lite|cinder-lite) run (\w+) (.*)$", unit.read_text(), re.MULTILINE)
    assert words[1] in {"nova-lite": NOVA, "cinder-lite": CINDER}[words[0]]
    assert re.fullmatch(r"(--config-file \S+ ?)+", words[2])


def test_every_process_has_a_unit() -> None:
    units = {path.stem for path in (DEPLOY / "systemd").glob("*.service")}
    assert {f"nova-lite-{name}" for name in NOVA} | {f"cinder-lite-{name}" for name in CINDER} <= units


def test_the_compose_file_runs_processes_that_there_are() -> None:
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    for name, process in [(f"nova-{word}", word) for word in NOVA] + [(f"cinder-{word}", word) for word in CINDER]:
        assert services[name]["command"][:2] == ["run", process]


SERVERS = {
    "nova-api": ("nova", [("nova-api", "host1")]),
    "nova-compute": ("nova", [("compute", "cmp1")]),
    "cinder-api": ("openstack", [("cinder-api", "host1")]),
    "cinder-scheduler": ("openstack", [("cinder-scheduler", "host1")]),
    "cinder-volume": ("openstack", [("cinder-volume", "host1@file"), ("cinder-volume.host1@file", "host1")]),
}


@pytest.mark.parametrize("user", SERVERS)
def test_a_process_may_declare_bind_and_read_its_own_queues_and_no_others(user: str) -> None:
    may = PERMISSIONS[user]
    exchange, own = SERVERS[user]
    for topic, server in own:
        for queue in server_queues(RpcOptions(), exchange=exchange, topic=topic, server=server):
            assert re.search(may["configure"], queue.name), queue.name
            assert re.search(may["write"], queue.name), queue.name
            assert re.search(may["read"], queue.name), queue.name
            for binding in queue.bindings:
                assert re.search(may["configure"], binding.exchange.name), binding.exchange.name
                assert re.search(may["read"], binding.exchange.name), binding.exchange.name
    assert re.search(may["write"], "amq.default")
    for other, (_, foreign) in SERVERS.items():
        for topic, server in foreign if other != user else []:
            for queue in server_queues(RpcOptions(), exchange=exchange, topic=topic, server=server):
                assert not re.search(may["read"], queue.name), queue.name


@pytest.mark.parametrize("user", ["nova-api", "nova-compute", "cinder-api", "lite-cli"])
def test_who_calls_may_have_a_reply_queue(user: str) -> None:
    name = new_reply_queue().name
    assert re.search(PERMISSIONS[user]["configure"], name)
    assert re.search(PERMISSIONS[user]["read"], name)


CALLEES = {
    "nova-api": {("nova", "compute.cmp1"), ("openstack", "cinder-api")},
    "nova-compute": {("openstack", "cinder-api")},
    "cinder-api": {("openstack", "cinder-scheduler"), ("openstack", "cinder-volume.host1@file"), ("openstack", "cinder-volume.host1@file.host1")},
    "cinder-scheduler": {
        ("openstack", "cinder-volume.host1@file"), ("openstack", "cinder-volume.host1@file.host1"), ("fanout", "cinder-volume_fanout"),
    },
    "cinder-volume": {("nova", "nova-api"), ("fanout", "cinder-scheduler_fanout")},
}  # fmt: skip
"""Who publishes requests where, by exchange and key; the contracts' clients say so."""
EVERYWHERE = set[tuple[str, str]]().union(*CALLEES.values()) | {
    ("nova", "nova-api"), ("nova", "compute"), ("nova", "compute.cmp2"), ("openstack", "cinder-volume"),
    ("fanout", "nova-api_fanout"), ("fanout", "compute_fanout"), ("fanout", "cinder-api_fanout"),
}  # fmt: skip


def may_publish(user: str, exchange: str, key: str) -> bool:
    """RabbitMQ's rule: the exchange by permission, and on a topic exchange the key by topic permission, which has to be there."""
    if exchange == "fanout":
        return re.search(PERMISSIONS[user]["write"], key) is not None
    [topic] = [row for row in DEFINITIONS["topic_permissions"] if (row["user"], row["exchange"]) == (user, exchange)] or [None]
    return bool(re.search(PERMISSIONS[user]["write"], exchange)) and (topic is None or bool(re.search(topic["write"], key)))


@pytest.mark.parametrize("user", CALLEES)
def test_a_process_may_publish_to_those_whom_it_calls_and_to_nobody_else(user: str) -> None:
    allowed = {address for address in EVERYWHERE if may_publish(user, *address)}
    # Another compute host is as good an address for nova-api as the first one.
    assert allowed - {("nova", "compute.cmp2")} == CALLEES[user]
    assert (("nova", "compute.cmp2") in allowed) == (user == "nova-api")


def test_no_user_has_a_password_or_a_tag() -> None:
    assert {(row["password_hash"], *row["tags"]) for row in DEFINITIONS["users"]} == {("",)}


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").glob("*-lite-*.service")), ids=lambda path: path.stem)
def test_a_unit_outwaits_the_draining_and_does_not_repeat_a_wrong_configuration(unit: Path) -> None:
    lines = dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))
    assert lines["Type"] == "notify"
    assert int(lines["TimeoutStopSec"]) > load_nova().common.graceful_shutdown_timeout
    assert (lines["Restart"], lines["RestartPreventExitStatus"]) == ("on-failure", "78")
    assert int(lines["WatchdogSec"]) > 0
    assert lines.get("KillMode") == ("process" if unit.stem == "nova-lite-compute" else None)


def test_the_tgtd_of_the_unit_may_write_where_volumes_lie() -> None:
    [backend] = load_cinder([DEPLOY / "config" / "cinder.conf"]).backends
    unit = (DEPLOY / "systemd" / "lite-tgtd.service").read_text()
    [state] = re.findall(r"^StateDirectory=(.*)$", unit, re.MULTILINE)
    assert backend.volumes_dir.is_relative_to(Path("/var/lib") / state)
    assert f"TGT_IPC_SOCKET={backend.tgt_ipc_socket} " in unit


def test_the_lab_is_a_script_that_stops_at_the_first_error() -> None:
    lab = DEPLOY / "lab" / "lab.sh"
    assert lab.stat().st_mode & 0o111
    assert "set -euo pipefail" in lab.read_text()
