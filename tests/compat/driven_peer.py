"""A real oslo.messaging process that does what it is told: `python driven_peer.py URL`.

For each JSON line on stdin it prints one with the same `id`: {"id", "do": "serve" | "call" | "cast" | "release" | "reply_queue", ...}.
Lines without an id tell what its endpoints saw. Orders run side by side, each in a thread.
"""

import json
import logging
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache

warnings.filterwarnings("ignore", category=DeprecationWarning)

import oslo_messaging  # noqa: E402  # its import warns of eventlet
from oslo_config import cfg  # noqa: E402
from oslo_messaging.rpc import dispatcher  # noqa: E402

from tests.compat import exceptions  # noqa: E402

_OUT = threading.Lock()
_HELD: dict[str, threading.Event] = {}
_HELD_LOCK = threading.Lock()
DEFAULT_URL = sys.argv[1]


def say(**words):
    text = json.dumps(words, default=str)
    with _OUT:
        print(text, flush=True)


def gate(key):
    with _HELD_LOCK:
        return _HELD.setdefault(key, threading.Event())


class At:
    """An endpoint of the server that `at` names."""

    def __init__(self, at):
        self.at = at


class Newest(At):
    """What most tests ask."""

    target = oslo_messaging.Target(version="6.5")

    def which(self, ctxt):
        return "6.5"

    def echo(self, ctxt, x):
        return {"x": x, "ctxt": ctxt, "at": self.at}

    def nothing(self, ctxt):
        return None

    def note(self, ctxt, word):
        say(seen="note", word=word, at=self.at)

    def hold(self, ctxt, key):
        say(seen="began", word=key, at=self.at)
        gate(key).wait(60)
        return key

    def last(self, ctxt, seconds):
        time.sleep(seconds)
        return "lasted"

    @oslo_messaging.expected_exceptions(ValueError)
    def expected(self, ctxt):
        raise ValueError("expected", 42)

    def fail(self, ctxt, how):
        match how:
            case "key":
                raise KeyError("volume-1")
            case "value":
                raise ValueError("bad", 42)
            case "host":
                raise exceptions.HostNotFound(instance_id="i-1", code=404)
            case "flavor":
                raise exceptions.FlavorNotFound(instance_id="v-1", code=404)

    @oslo_messaging.expose
    def exposed(self, ctxt):
        return "exposed"

    def _private(self, ctxt):
        return "private"


class Older(At):
    target = oslo_messaging.Target(version="5.13")

    def which(self, ctxt):
        return "5.13"


class Spaced(At):
    target = oslo_messaging.Target(namespace="baseapi", version="1.1", legacy_namespaces=["base"])

    def which(self, ctxt):
        return "baseapi"


class Plain(At):
    """Without a target: no namespace, version 1.0."""

    def which(self, ctxt):
        return "1.0"


class Wrapping(oslo_messaging.Serializer):  # type: ignore[misc]  # the library has no types
    """A serializer as services have: entities in envelopes, and a context of its own."""

    def serialize_entity(self, ctxt, entity):
        return {"wrapped": entity, "by": ctxt["user_id"]}

    def deserialize_entity(self, ctxt, entity):
        return entity["wrapped"]

    def serialize_context(self, ctxt):
        return {**ctxt, "resource_uuid": "from the serializer"}

    def deserialize_context(self, ctxt):
        return ctxt


SERIALIZERS = {None: None, "wrapping": Wrapping()}
POLICIES = {None: None, "explicit": oslo_messaging.ExplicitRPCAccessPolicy}


@cache
def transport(url):
    return oslo_messaging.get_rpc_transport(cfg.CONF, url=url, allowed_remote_exmods=["tests.compat.exceptions"])


def serve(topic, server, *, exchange="nova", url=DEFAULT_URL, policy=None, serializer=None):
    at = f"{topic}.{server}"
    target = oslo_messaging.Target(exchange=exchange, topic=topic, server=server)
    service = oslo_messaging.get_rpc_server(
        transport(url), target, [Newest(at), Older(at), Spaced(at), Plain(at)], executor="threading",
        access_policy=POLICIES[policy], serializer=SERIALIZERS[serializer],
    )  # fmt: skip
    service.start()


def client(target, url=DEFAULT_URL, serializer=None, at_least_once=False, prepare=None, **words):
    target = oslo_messaging.Target(**{"exchange": "nova", **target})
    options = oslo_messaging.TransportOptions(at_least_once=True) if at_least_once else None
    made = oslo_messaging.get_rpc_client(
        transport(url), target, serializer=SERIALIZERS[serializer], transport_options=options, **{"timeout": 20, **words}
    )
    return made.prepare(**prepare) if prepare else made


def call(method, ctxt, args, **words):
    return client(**words).call(ctxt, method, **args)


def cast(method, ctxt, args, **words):
    client(**words).cast(ctxt, method, **args)


def can_send_version(version, **words):
    return client(**words).can_send_version(version)


def reply_queue():
    return transport(DEFAULT_URL)._driver._get_reply_q()


def release(key):
    gate(key).set()


DOES = {work.__name__: work for work in (serve, call, cast, can_send_version, release, reply_queue)}


def carry_out(order):
    number, do = order.pop("id"), DOES[order.pop("do")]
    began = time.monotonic()
    try:
        found = {"result": do(**order)}
    except oslo_messaging.RemoteError as exc:
        found = {"remote": exc.exc_type, "value": exc.value}
    except Exception as exc:  # noqa: BLE001  # whatever comes is what the test wants to see
        names = [f"{cls.__module__}.{cls.__name__}" for cls in type(exc).__mro__]
        found = {"raised": names, "said": str(exc), "args": exc.args, "kwargs": getattr(exc, "kwargs", None)}
    say(id=number, took_s=time.monotonic() - began, **found)


def main():
    logging.basicConfig(level=logging.WARNING)
    conf = cfg.CONF
    conf([], project="peer", default_config_files=[])
    conf.register_opts(dispatcher._dispatcher_opts)
    conf.set_override("rpc_ping_enabled", True)
    with ThreadPoolExecutor(16) as pool:
        for line in sys.stdin:
            pool.submit(carry_out, json.loads(line))


main()
