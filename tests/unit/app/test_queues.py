"""What is wrong with queues."""

from typing import Any

import pytest

from common.app.management import _connection, default_urls, row_of
from common.app.queues import QueueRow, implied, warnings_of
from common.base.errors import Misconfigured
from common.transport.port import QueueDepth
from common.transport.rabbit_url import parse_rabbit_url


def row(name: str = "compute", **words: Any) -> QueueRow:
    return QueueRow(**{"name": name, "ready": 0, "consumers": 1, "kind": "classic", "durable": True, "exclusive": False, **words})


def told(*rows: QueueRow, wanted: tuple[str, ...] = ()) -> list[str]:
    return [str(warning) for warning in warnings_of(rows, wanted=wanted)]


@pytest.mark.parametrize(
    "fine",
    [
        row(),
        row(kind="quorum"),
        row(durable=False, exclusive=True),
        row(kind="folder", durable=True, exclusive=None),
        row(kind=None, durable=None, exclusive=None),
        row("compute_dead_letter", consumers=0),
        row("reply_1", consumers=0),
        row("compute_fanout_1", consumers=0),
        row(consumers=None, ready=5),
    ],
)
def test_what_works_is_no_matter_for_a_warning(fine: QueueRow) -> None:
    assert told(fine) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (row(durable=False), ("transient", "4.3 refuses", "amqp_durable_queues = true", "rabbit_quorum_queue")),
        (row("reply_1", durable=False), ("4.3 refuses", "rabbit_transient_quorum_queue = true")),
        (row("compute_fanout_1", durable=False), ("4.3 refuses", "rabbit_transient_quorum_queue = true")),
        (row(arguments={"x-ha-policy": "all"}), ("x-ha-policy", "rabbit_ha_queues = false")),
        (row(policy="ha", policy_definition={"ha-mode": "all"}), ("mirrored by the policy ha", "clear_policy ha")),
        (row("compute_dead_letter", ready=2, consumers=0), ("dead letters: 2", "lite dlq list compute`")),
        (row(consumers=0), ("nobody consumes it",)),
        (row(consumers=0, ready=7), ("nobody takes: 7",)),
        (row("reply_1", consumers=0, ready=1), ("nobody takes: 1",)),
    ],
)
def test_what_breaks_is_told_with_what_mends_it(wrong: QueueRow, words: tuple[str, ...]) -> None:
    (found,) = told(wrong)
    assert found.startswith(f"{wrong.name}: ")
    assert [word for word in words if word not in found] == []


def test_the_same_of_many_queues_is_told_once() -> None:
    (found,) = told(*(row(f"reply_{number}", durable=False) for number in range(9)))
    assert found.startswith("reply_0, reply_1, reply_2 and 6 more: transient")


def test_a_live_service_without_its_queue_is_told() -> None:
    assert told(row("compute.h1"), wanted=("compute.h1",)) == []
    (found,) = told(row("compute.h1"), wanted=("compute.h1", "compute.h2"))
    assert found.startswith("compute.h2: is not there")


def test_contracts_and_services_imply_queues() -> None:
    assert implied(["compute", "cinder-volume"], [("compute", "h1"), ("cinder-volume", "h1@gold")]) == [
        "cinder-volume", "cinder-volume.h1@gold", "cinder-volume.h1@gold.h1", "cinder-volume_dead_letter",
        "compute", "compute.h1", "compute_dead_letter",
    ]  # fmt: skip


def test_a_transport_s_word_of_a_queue_is_a_row() -> None:
    assert QueueRow.of("q", QueueDepth(1, 2, 3, 4.0), kind="folder", durable=True) == QueueRow(
        "q", 1, 2, 3, "folder", durable=True, oldest_s=4.0
    )


def test_a_queue_of_which_the_broker_has_counted_nothing_yet_is_read() -> None:
    assert row_of({"name": "q"}) == QueueRow("q", 0, 0, 0, "classic", durable=False, exclusive=False)
    full = row_of({"name": "q", "type": "quorum", "durable": True, "messages_ready": 4, "head_message_timestamp": 5, "policy": "p"})
    assert (full.kind, full.durable, full.ready, full.policy) == ("quorum", True, 4, "p")
    assert full.oldest_s is not None
    assert full.oldest_s > 1e9


def test_the_plugin_is_looked_for_on_each_host_of_the_url() -> None:
    where = parse_rabbit_url("rabbit://a:b@one:5673,a:b@[::1]:5672/v")
    assert default_urls(where) == ["http://one:15672", "http://[::1]:15672"]


@pytest.mark.parametrize("url", ["one:15672", "ftp://one", "http://", "http://u:hunter2@one", "http://one:port", ""])
def test_a_url_that_is_none_is_refused_without_its_words(url: str) -> None:
    with pytest.raises(Misconfigured, match="--management-url is not http://HOST:PORT") as caught:
        _connection(url, 1)
    assert "hunter2" not in str(caught.value)
