"""Exchanges and queues as oslo.messaging declares them (oslo-wire 2.1, 2.2): one argument off, and RabbitMQ answers 406."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from common.rpc.contract import Route
from common.rpc.options import RpcOptions
from common.rpc.topology import destination, new_reply_queue, server_queues
from common.transport.port import Binding, Exchange, Queue

OPTIONS = RpcOptions(control_exchange="nova", own_name=lambda: "mine")
EXPIRES = {"x-expires": 1_800_000}
QUORUM = {"x-queue-type": "quorum"}


@dataclass(frozen=True)
class Declared:
    """A row of the table of 2.2: (durable, auto-delete) of exchanges, and arguments of queues."""

    options: RpcOptions
    topic: tuple[bool, bool] = (False, False)
    topic_arguments: dict[str, Any] = field(default_factory=dict)
    fanout_durable: bool = False
    fanout_arguments: dict[str, Any] = field(default_factory=lambda: EXPIRES)
    reply_arguments: dict[str, Any] = field(default_factory=lambda: EXPIRES)
    fanout_name: str = "compute_fanout_mine"
    consume: dict[str, Any] = field(default_factory=dict)
    fanout_consume: dict[str, Any] | None = None


TRANSIENT_QUORUM = replace(
    OPTIONS, quorum_queue=True, quorum_delivery_limit=3, transient_quorum_queue=True, transient_queues_ttl_s=60
)
LIMITED = {**QUORUM, "x-delivery-limit": 3}

TABLE = {
    "defaults": Declared(OPTIONS),
    "durable, auto-delete": Declared(replace(OPTIONS, durable=True, auto_delete=True), (True, True)),
    "quorum": Declared(replace(OPTIONS, quorum_queue=True, quorum_delivery_limit=3), (True, False), LIMITED),
    "transient quorum": Declared(
        TRANSIENT_QUORUM, (True, False), LIMITED, fanout_durable=True,
        fanout_arguments={**LIMITED, "x-expires": 60_000}, reply_arguments={**LIMITED, "x-expires": 60_000},
    ),
    "stream": Declared(
        replace(TRANSIENT_QUORUM, stream_fanout=True), (True, False), LIMITED, fanout_durable=True,
        fanout_arguments={"x-queue-type": "stream", "x-max-age": "60s"}, reply_arguments={**LIMITED, "x-expires": 60_000},
        fanout_name="compute_fanout", fanout_consume={"x-stream-offset": "last"},
    ),
    "stream without a ttl": Declared(
        replace(OPTIONS, transient_quorum_queue=True, stream_fanout=True, transient_queues_ttl_s=0), fanout_durable=True,
        fanout_arguments={"x-queue-type": "stream"}, reply_arguments=QUORUM,
        fanout_name="compute_fanout", fanout_consume={"x-stream-offset": "last"},
    ),
    "mirrored": Declared(
        replace(OPTIONS, ha_queues=True), (False, False), {"x-ha-policy": "all"},
        fanout_arguments={"x-ha-policy": "all", **EXPIRES}, reply_arguments={"x-ha-policy": "all", **EXPIRES},
    ),
    "limits of memory": Declared(
        replace(OPTIONS, quorum_queue=True, quorum_max_memory_length=10, quorum_max_memory_bytes=20), (True, False),
        {**QUORUM, "x-max-in-memory-length": 10, "x-max-in-memory-bytes": 20},
    ),
    "limits without quorum queues": Declared(replace(OPTIONS, quorum_delivery_limit=3, quorum_max_memory_length=10)),
    "without a ttl": Declared(replace(OPTIONS, transient_queues_ttl_s=0), fanout_arguments={}, reply_arguments={}),
    "cancel on failover": Declared(replace(OPTIONS, cancel_on_failover=True), consume={"x-cancel-on-ha-failover": True}),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_what_is_declared_with_each_set_of_options(row: Declared) -> None:
    durable, auto_delete = row.topic
    control = Exchange("nova", "topic", durable=durable, auto_delete=auto_delete)
    everywhere = Exchange("compute_fanout", "fanout", durable=row.fanout_durable, auto_delete=True)

    def on_topic(key: str) -> Queue:
        return Queue(
            key, (Binding(control, key),), durable=durable, auto_delete=auto_delete, arguments=row.topic_arguments,
            consume_arguments=row.consume,
        )  # fmt: skip

    left = Binding(Exchange("compute_cancel", "fanout", auto_delete=True))
    queues = server_queues(row.options, exchange=None, topic="compute", server="cmp1")
    assert queues[:3] == (
        on_topic("compute"),
        on_topic("compute.cmp1"),
        Queue(
            row.fanout_name,
            (Binding(everywhere, "compute"), *(() if row.options.stream_fanout else (left,))),
            durable=row.fanout_durable,
            arguments=row.fanout_arguments,
            consume_arguments=row.consume if row.fanout_consume is None else row.fanout_consume,
        ),
    )
    if row.options.stream_fanout:
        hears = replace(new_reply_queue(row.options), name="compute_cancel_mine", bindings=(left,))
        assert queues[3:] == (hears,), "peers that read the stream would not know what a caller is that left"
    else:
        assert queues[3:] == ()
    assert new_reply_queue(row.options) == Queue(
        "reply_mine", durable=row.options.transient_quorum_queue, arguments=row.reply_arguments, consume_arguments=row.consume
    )
    assert destination(row.options, Route("compute", "6.5", fanout=True)) == (everywhere, "")
    assert destination(row.options, Route("compute", "6.5")) == (control, "compute")


def test_a_fanout_and_a_reply_queue_have_names_that_nobody_else_has() -> None:
    options = RpcOptions()
    *_, fanout = server_queues(options, exchange=None, topic="compute", server="cmp1")
    assert re.fullmatch(r"compute_fanout_[0-9a-f]{32}", fanout.name)
    assert re.fullmatch(r"reply_[0-9a-f]{32}", new_reply_queue(options).name)
    assert new_reply_queue(options).name != new_reply_queue(options).name


def test_only_names_that_come_back_are_worth_keeping_a_queue_for() -> None:
    assert not RpcOptions(stream_fanout=True).names_come_back
    assert RpcOptions(own_name=lambda: "cmp1:nova-compute:1").names_come_back


@pytest.mark.parametrize(
    ("route", "exchange", "key"),
    [
        (Route("compute", "6.5"), Exchange("nova", "topic"), "compute"),
        (Route("compute", "6.5", server="cmp1"), Exchange("nova", "topic"), "compute.cmp1"),
        (Route("compute", "6.5", exchange="other"), Exchange("other", "topic"), "compute"),
        (Route("compute", "6.5", server="cmp1", fanout=True), Exchange("compute_fanout", "fanout", auto_delete=True), ""),
    ],
)
def test_a_request_goes_where_oslo_sends_it(route: Route, exchange: Exchange, key: str) -> None:
    assert destination(OPTIONS, route) == (exchange, key)
