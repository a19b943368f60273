"""A real oslo.messaging peer, run as a process of its own: `python peer.py client|server URL`. It prints one JSON line for each thing seen."""

import json
import sys
import warnings

warnings.filterwarnings("ignore", category=DeprecationWarning)

import oslo_messaging  # noqa: E402  # its import warns of eventlet
from oslo_config import cfg  # noqa: E402


class Endpoint:
    """What the server offers."""

    target = oslo_messaging.Target(version="6.5")

    def echo(self, ctxt, x):
        return {"x": x, "user": ctxt.get("user_id")}

    def fail(self, ctxt):
        raise ValueError("bad")

    def note(self, ctxt, word):
        print(json.dumps({"note": word}), flush=True)


def transport(url):
    conf = cfg.CONF
    conf([], project="peer", default_config_files=[])
    return oslo_messaging.get_rpc_transport(conf, url=url, allowed_remote_exmods=["tests.compat.exceptions"])


def serve(url):
    target = oslo_messaging.Target(exchange="nova", topic="oslo", server="host1")
    server = oslo_messaging.get_rpc_server(transport(url), target, [Endpoint()], executor="threading")
    server.start()
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.read()
    server.stop()
    server.wait()


def tried(work):
    try:
        return {"result": work()}
    except oslo_messaging.RemoteError as exc:
        return {"remote": exc.exc_type, "value": exc.value}
    except Exception as exc:  # noqa: BLE001  # whatever comes is what the test wants to see
        return {"raised": [cls.__name__ for cls in type(exc).__mro__], "said": str(exc).split("\n", 1)[0]}


def ask(url):
    found = transport(url)
    target = oslo_messaging.Target(exchange="nova", topic="ours", version="1.0")
    client = oslo_messaging.get_rpc_client(found, target, timeout=20)
    ctxt = {"user_id": "u1", "request_id": "req-1"}
    for answer in (
        tried(lambda: client.call(ctxt, "greet", name="oslo")),
        tried(lambda: client.prepare(server="host1").call(ctxt, "greet", name="one")),
        tried(lambda: client.call(ctxt, "fail")),
        tried(lambda: client.call(ctxt, "nope")),
        tried(lambda: client.prepare(version="2.0").call(ctxt, "greet", name="x")),
        tried(lambda: client.call(ctxt, "greet", nam="x")),
        tried(lambda: client.cast(ctxt, "note", word="cast")),
        tried(lambda: client.prepare(fanout=True).cast(ctxt, "note", word="fanout")),
    ):
        print(json.dumps(answer), flush=True)
    found.cleanup()


{"client": ask, "server": serve}[sys.argv[1]](sys.argv[2])
