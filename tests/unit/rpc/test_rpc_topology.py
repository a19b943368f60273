"""Exchanges and queues as oslo.messaging declares them (oslo-wire 2.1, 2.2): one argument off, and RabbitMQ answers 406."""

import re

import pytest

from common.rpc.contract import Route
from common.rpc.options import RpcOptions
from common.rpc.topology import destination, new_reply_queue, server_queues
from common.transport.port import Binding, Exchange, Queue

OPTIONS = RpcOptions(control_exchange="nova")
EXPIRES = {"x-expires": 1_800_000}


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("auto_delete", [False, True])
def test_a_server_declares_its_three_queues_in_oslo_s_order(durable: bool, auto_delete: bool) -> None:
    options = RpcOptions(control_exchange="nova", durable=durable, auto_delete=auto_delete)
    control = Exchange("nova", "topic", durable=durable, auto_delete=auto_delete)
    shared, own, fanout = server_queues(options, exchange=None, topic="compute", server="cmp1")
    assert shared == Queue("compute", (Binding(control, "compute"),), durable=durable, auto_delete=auto_delete)
    assert own == Queue("compute.cmp1", (Binding(control, "compute.cmp1"),), durable=durable, auto_delete=auto_delete)
    assert re.fullmatch(r"compute_fanout_[0-9a-f]{32}", fanout.name)
    everywhere = Exchange("compute_fanout", "fanout", durable=False, auto_delete=True)
    left = Exchange("compute_cancel", "fanout", auto_delete=True)
    assert fanout == Queue(fanout.name, (Binding(everywhere, "compute"), Binding(left)), arguments=EXPIRES)


def test_a_reply_queue_outlives_a_broken_connection_and_not_its_client_for_long() -> None:
    queue = new_reply_queue()
    assert re.fullmatch(r"reply_[0-9a-f]{32}", queue.name)
    assert queue == Queue(queue.name, durable=False, auto_delete=False, exclusive=False, arguments=EXPIRES)
    assert new_reply_queue().name != queue.name


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
