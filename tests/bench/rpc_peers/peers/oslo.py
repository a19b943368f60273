"""oslo.messaging with threads and its default options."""

import sys
import threading
import time
import warnings

warnings.filterwarnings("ignore", category=DeprecationWarning)

import oslo_messaging  # noqa: E402  # its import warns of eventlet
from oslo_config import cfg  # noqa: E402

from tests.bench.rpc_peers import work  # noqa: E402

CASTERS = 16


class Bench:
    target = oslo_messaging.Target(version="1.0")

    def __init__(self, handled):
        self._handled = handled

    def echo(self, ctxt, instance):
        return instance

    def note(self, ctxt, instance):
        self._handled.note()


class Flooded:
    target = oslo_messaging.Target(version="1.0")

    def __init__(self, handled):
        self._handled = handled

    def note(self, ctxt, instance):
        time.sleep(self._handled.slow_s)


def _transport(url):
    cfg.CONF([], project="bench", default_config_files=[])
    return oslo_messaging.get_rpc_transport(cfg.CONF, url=url)


def serve(url, topics):
    transport = _transport(url)
    handled = work.Handled()
    for topic in topics:
        endpoint = Flooded(handled) if topic == work.FLOODED else Bench(handled)
        target = oslo_messaging.Target(topic=topic, server="host1")
        oslo_messaging.get_rpc_server(transport, target, [endpoint], executor="threading").start()
    handled.tell()
    threading.Event().wait()


def ask(url):
    transport = _transport(url)
    clients = {
        topic: oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(topic=topic, version="1.0"), timeout=int(work.TIMEOUT_S)
        )
        for topic in (work.TOPIC, work.APART, work.FLOODED)
    }
    ctxt = {"user_id": "u1", "project_id": "p1"}
    work.obey_in_threads(
        lambda topic, instance: clients[topic].call(ctxt, "echo", instance=instance),
        lambda topic, instance: clients[topic].cast(ctxt, "note", instance=instance),
        casters=CASTERS,
    )


if __name__ == "__main__":
    ask(sys.argv[2]) if sys.argv[1] == "client" else serve(sys.argv[2], work.SERVED[sys.argv[1]])
