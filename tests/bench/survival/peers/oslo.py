"""oslo.messaging with threads."""

import os
import sys
import threading
import time
import warnings

warnings.filterwarnings("ignore", category=DeprecationWarning)

import oslo_messaging  # noqa: E402  # its import warns of eventlet
from oslo_config import cfg  # noqa: E402

from tests.bench.survival import job as orders  # noqa: E402
from tests.bench.survival.job import READY, REQUEST_QUEUE, Executions, Job, expected, say  # noqa: E402


class Worker:
    target = oslo_messaging.Target(version="1.0")

    def __init__(self, job):
        self._executions = Executions(job.record)
        self._handler_s = job.handler_s

    def work(self, ctxt, number):
        self._executions.begin(number)
        time.sleep(self._handler_s)
        self._executions.end(number)
        return expected(number)


def _transport(job):
    conf = cfg.CONF
    conf([], project="survival", default_config_files=[])
    # Registers [oslo_messaging_rabbit], which can be set only then.
    found = oslo_messaging.get_rpc_transport(conf, url=job.url)
    found.cleanup()
    conf.set_override("heartbeat_timeout_threshold", job.heartbeat_s, group="oslo_messaging_rabbit")
    conf.set_override("amqp_durable_queues", job.durable, group="oslo_messaging_rabbit")
    conf.set_override("rpc_conn_pool_size", job.in_flight, group="oslo_messaging_rabbit")
    conf.register_opts(oslo_messaging.server._pool_opts)
    conf.set_override("executor_thread_pool_size", job.prefetch)
    return oslo_messaging.get_rpc_transport(conf, url=job.url)


def serve(job):
    target = oslo_messaging.Target(topic=REQUEST_QUEUE, server="host1")
    server = oslo_messaging.get_rpc_server(_transport(job), target, [Worker(job)], executor="threading")
    server.start()
    say(READY)
    threading.Event().wait()


def ask(job):
    target = oslo_messaging.Target(topic=REQUEST_QUEUE, version="1.0")
    client = oslo_messaging.get_rpc_client(_transport(job), target, timeout=job.timeout_s)
    orders.ask_all_in_threads(job, lambda number: client.call({"user_id": "u1"}, "work", number=number))


if __name__ == "__main__":
    orders.die_with_stdin()
    {"client": ask, "server": serve}[sys.argv[1]](Job.from_json(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # its threads would take a while to notice
