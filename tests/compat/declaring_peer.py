"""A real oslo.messaging service, run as a process of its own: `python declaring_peer.py CONFIG_FILE EXCHANGE TOPIC SERVER`.

Its options are those of the file. It serves, and for each JSON line on stdin, {"server": NAME or null, "x": VALUE}, it calls `echo`
on that server of its topic; {"fanout": VALUE} casts `note` to all of them. Each answer, and each note that comes, is one JSON line.
"""

import json
import sys
import warnings

warnings.filterwarnings("ignore", category=DeprecationWarning)

import oslo_messaging  # noqa: E402  # its import warns of eventlet
from oslo_config import cfg  # noqa: E402


def say(**words):
    print(json.dumps(words), flush=True)


class Endpoint:
    """What the service offers."""

    target = oslo_messaging.Target(version="1.0")

    def echo(self, ctxt, x):
        return {"oslo": x}

    def note(self, ctxt, word):
        say(note=word)


def main(file, exchange, topic, server):
    conf = cfg.CONF
    conf([], project="peer", default_config_files=[file])
    try:
        transport = oslo_messaging.get_rpc_transport(conf)
        target = oslo_messaging.Target(exchange=exchange, topic=topic, server=server)
        service = oslo_messaging.get_rpc_server(transport, target, [Endpoint()], executor="threading")
        service.start()
    except Exception as exc:  # noqa: BLE001  # whatever comes is what the test wants to see
        say(failed=f"{type(exc).__name__}: {exc}")
        return
    client = oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(exchange=exchange, topic=topic, version="1.0"), timeout=20
    )
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "fanout" in order:
                client.prepare(fanout=True).cast({}, "note", word=order["fanout"])
                say(sent=True)
            else:
                prepared = client.prepare(server=order["server"]) if order["server"] else client
                say(result=prepared.call({}, "echo", x=order["x"]))
        except Exception as exc:  # noqa: BLE001  # as above
            say(failed=f"{type(exc).__name__}: {exc}")
    service.stop()
    service.wait()
    transport.cleanup()


main(*sys.argv[1:])
