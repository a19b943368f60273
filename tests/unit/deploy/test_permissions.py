"""Who may do what at RabbitMQ, as definitions.json says it: every user against every name on the bus, nothing granted beyond need.

Sources: oslo-wire 2 for the names, made here by the code that declares them; the broker's rules from https://www.rabbitmq.com/docs/access-control:
declare or delete is configure; bind is write on the queue and read on the exchange; publish is write on the exchange; consume is read on
the queue; on a topic exchange the routing key must match too. Patterns are searched, not matched, and the default exchange is amq.default.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from common.rpc.options import RpcOptions
from common.rpc.topology import new_reply_queue, server_queues
from common.wire.address import fanout_exchange

DEFINITIONS = json.loads((Path(__file__).parents[3] / "deploy" / "rabbitmq" / "definitions.json").read_text())
DEFAULT_EXCHANGE = "amq.default"
REPLY = new_reply_queue().name

SERVERS = {
    "nova-api": ("nova", [("nova-api", "ctl1.example.org")]),
    "nova-compute": ("nova", [("compute", "cmp1")]),
    "cinder-api": ("openstack", [("cinder-api", "ctl1")]),
    "cinder-scheduler": ("openstack", [("cinder-scheduler", "ctl1")]),
    "cinder-volume": ("openstack", [("cinder-volume", "block1@file"), ("cinder-volume.block1@file", "block1")]),
}
"""User -> the control exchange that its process serves on, and what it serves there."""

CALLS = {
    "nova-api": {"nova": ["compute.cmp1"], "openstack": ["cinder-api"]},
    "nova-compute": {"openstack": ["cinder-api"]},
    "cinder-api": {"openstack": ["cinder-scheduler", "cinder-volume.block1@file", "cinder-volume.block1@file.block1"]},
    "cinder-scheduler": {"openstack": ["cinder-volume.block1@file", "cinder-volume.block1@file.block1"]},
    "cinder-volume": {"nova": ["nova-api"]},
}
"""User -> exchange -> routing keys of the requests that it sends."""

FANOUTS = {"cinder-scheduler": ["cinder-volume_fanout"], "cinder-volume": ["cinder-scheduler_fanout"]}
WAITS_FOR_REPLIES = {"nova-api", "nova-compute", "cinder-api"}


def queues(user: str) -> set[str]:
    """The queues of a process; the random part of its fanout queues is as any."""
    exchange, served = SERVERS[user]
    return {
        queue.name
        for topic, server in served
        for queue in server_queues(RpcOptions(), exchange=exchange, topic=topic, server=server)
    }


OWN = {user: queues(user) for user in SERVERS}
OWN_FANOUTS = {user: {fanout_exchange(topic) for topic, _ in served} for user, (_, served) in SERVERS.items()}
PLAIN = {"nova", "openstack", DEFAULT_EXCHANGE, REPLY, "nova-api", "compute", "cinder-api", "cinder-scheduler", "cinder-volume"}
FANOUT_EXCHANGES = {name for names in OWN_FANOUTS.values() for name in names}
FANOUT_QUEUES = {name for names in OWN.values() for name in names if "_fanout_" in name and "." not in name}
NEAR_MISSES = {f"x{name}" for name in PLAIN | FANOUT_EXCHANGES | FANOUT_QUEUES} | {
    f"{name}x" for name in PLAIN | FANOUT_QUEUES | {fanout for fanout in FANOUT_EXCHANGES if "." not in fanout}
}
STRANGERS = {"amq.topic", "amq.fanout", "amq.rabbitmq.trace", "amq.gen-x", "notifications.info", "neutron", "reply_", *NEAR_MISSES}
"""Names that nobody may touch."""

NAMES = set().union(*OWN.values(), *OWN_FANOUTS.values(), {"nova", "openstack", DEFAULT_EXCHANGE, REPLY}, STRANGERS)
KEYS = {key for calls in CALLS.values() for keys in calls.values() for key in keys} | set().union(*OWN.values()) | {"#", "*"}


def granted(user: str, action: str) -> set[str]:
    [row] = [row for row in DEFINITIONS["permissions"] if row["user"] == user]
    return {name for name in NAMES if re.search(row[action], name)}


def granted_keys(user: str, exchange: str, action: str) -> set[str]:
    """Without a row the broker lets every key pass on an exchange that the user may use."""
    if exchange not in granted(user, "configure"):
        return set()
    rows = [row for row in DEFINITIONS["topic_permissions"] if (row["user"], row["exchange"]) == (user, exchange)]
    return {key for key in KEYS if all(re.search(row[action], key) for row in rows)}


@pytest.mark.parametrize("user", SERVERS)
def test_a_process_declares_its_own_queues_and_the_exchanges_that_it_uses_and_nothing_else(user: str) -> None:
    exchange, _ = SERVERS[user]
    replies = {REPLY} if user in WAITS_FOR_REPLIES else set()
    wanted = OWN[user] | OWN_FANOUTS[user] | {exchange, *CALLS[user], *FANOUTS.get(user, [])} | replies
    assert granted(user, "configure") - _own_pattern(user) == wanted - _own_pattern(user)
    assert wanted <= granted(user, "configure")


@pytest.mark.parametrize("user", SERVERS)
def test_a_process_publishes_to_whom_it_calls_and_replies_and_binds_its_own_queues(user: str) -> None:
    wanted = OWN[user] | {DEFAULT_EXCHANGE, *CALLS[user], *FANOUTS.get(user, [])}
    assert granted(user, "write") - _own_pattern(user) == wanted - _own_pattern(user)
    assert wanted <= granted(user, "write")


@pytest.mark.parametrize("user", SERVERS)
def test_a_process_reads_its_own_queues_and_from_its_own_exchanges_only(user: str) -> None:
    exchange, _ = SERVERS[user]
    wanted = OWN[user] | OWN_FANOUTS[user] | {exchange} | ({REPLY} if user in WAITS_FOR_REPLIES else set())
    assert granted(user, "read") - _own_pattern(user) == wanted - _own_pattern(user)
    assert wanted <= granted(user, "read")


def _own_pattern(user: str) -> set[str]:
    """Fanout exchanges of a process's own per-backend topic look like its queues to any pattern; they are nobody else's."""
    return {name for name in OWN_FANOUTS[user] if "." in name}


@pytest.mark.parametrize("user", SERVERS)
@pytest.mark.parametrize("exchange", ["nova", "openstack"])
def test_a_process_sends_only_the_routing_keys_of_its_requests(user: str, exchange: str) -> None:
    wanted = set(CALLS[user].get(exchange, []))
    found = granted_keys(user, exchange, "write")
    assert found - _siblings(wanted) == wanted - _siblings(wanted)
    assert wanted <= found


def _siblings(wanted: Iterable[str]) -> set[str]:
    """Whoever may address one server of a topic may address each of its servers, and so its fanout queues by name, which no key reaches."""
    topics = {key.partition(".")[0] for key in wanted if "." in key}
    return {key for key in KEYS if key.partition(".")[0] in topics and "." in key}


@pytest.mark.parametrize("user", SERVERS)
@pytest.mark.parametrize("exchange", ["nova", "openstack"])
def test_a_process_binds_its_queues_to_its_own_keys_only(user: str, exchange: str) -> None:
    keys = {queue for queue in OWN[user] if "_fanout_" not in queue} if exchange == SERVERS[user][0] else set()
    found = granted_keys(user, exchange, "read")
    assert keys <= found
    assert found <= {key for key in KEYS if any(key == own or key.startswith(f"{own.partition('.')[0]}.") for own in keys)}


def test_every_user_of_a_topic_exchange_is_bound_to_keys() -> None:
    """A user without a row of topic permissions may use every key."""
    rows = {(row["user"], row["exchange"]) for row in DEFINITIONS["topic_permissions"]}
    for user in [row["name"] for row in DEFINITIONS["users"]]:
        for exchange in {"nova", "openstack"} & (granted(user, "write") | granted(user, "read")):
            assert (user, exchange) in rows


def test_an_operator_asks_everybody_reads_replies_only_and_answers_nobody() -> None:
    assert granted("lite-cli", "read") == {REPLY}
    assert granted("lite-cli", "write") == {"nova", "openstack"} | FANOUT_EXCHANGES
    assert granted("lite-cli", "configure") == {"nova", "openstack", REPLY} | FANOUT_EXCHANGES
    for exchange in ("nova", "openstack"):
        topics = {topic for own, served in SERVERS.values() if own == exchange for topic, _ in served if "." not in topic}
        assert (
            granted_keys("lite-cli", exchange, "write")
            == {key for key in KEYS if re.split(r"[.]|_fanout_", key)[0] in topics} - FANOUT_QUEUES
        )
        assert granted_keys("lite-cli", exchange, "read") == set()


@pytest.mark.parametrize("user", [*SERVERS, "lite-cli"])
@pytest.mark.parametrize("action", ["configure", "write", "read"])
def test_near_misses_and_the_brokers_own_exchanges_are_nobodys(user: str, action: str) -> None:
    assert not granted(user, action) & STRANGERS


def test_no_user_has_a_tag_and_no_password_is_in_the_file() -> None:
    assert {row["name"] for row in DEFINITIONS["users"]} == {*SERVERS, "lite-cli"}
    for row in DEFINITIONS["users"]:
        assert row["tags"] == []
        assert row["password_hash"] == ""
