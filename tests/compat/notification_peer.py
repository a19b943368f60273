"""oslo.messaging's own notifiers and listeners as a process: `python notification_peer.py KIND URL`. It prints one JSON line for each thing seen."""

import json
import sys
import warnings
from datetime import datetime
from decimal import Decimal

warnings.filterwarnings("ignore", category=DeprecationWarning)

import oslo_messaging  # noqa: E402  # its import warns of eventlet
from oslo_config import cfg  # noqa: E402
from oslo_context.context import RequestContext  # noqa: E402

REQUEUE = oslo_messaging.NotificationResult.REQUEUE


class ContextSerializer(oslo_messaging.NoOpSerializer):  # type: ignore[misc]
    """As nova's and cinder's: the context travels as its dict."""

    def serialize_context(self, ctxt):
        return ctxt.to_dict() if isinstance(ctxt, RequestContext) else ctxt


def say(**what):
    print(json.dumps(what, default=repr), flush=True)


class Endpoint:
    """Says what it gets; asks back what `asked_back` names, once each."""

    def __init__(self, *asked_back):
        self.asked_back = list(asked_back)

    def _take(self, priority, ctxt, publisher_id, event_type, payload, metadata):  # noqa: PLR0917
        say(
            priority=priority, event=event_type, publisher=publisher_id, payload=payload, user=ctxt.get("user"),
            token=ctxt.get("auth_token"), metadata=sorted(metadata),
        )  # fmt: skip
        if event_type in self.asked_back:
            self.asked_back.remove(event_type)
            return REQUEUE
        return oslo_messaging.NotificationResult.HANDLED

    def info(self, *given):
        return self._take("info", *given)

    def error(self, *given):
        return self._take("error", *given)


class BatchEndpoint:
    """Says what it gets of each priority."""

    def info(self, messages):
        say(priority="info", events=[message["event_type"] for message in messages])

    def error(self, messages):
        say(priority="error", events=[message["event_type"] for message in messages])


def transport(url):
    conf = cfg.CONF
    conf([], project="peer", default_config_files=[])
    oslo_messaging.set_transport_defaults("nova")
    return oslo_messaging.get_notification_transport(conf, url=url)


def until_told(listener):
    listener.start()
    say(ready=True)
    sys.stdin.read()
    listener.stop()
    listener.wait()


def listen(url):
    target = oslo_messaging.Target(topic="notifications")
    until_told(
        oslo_messaging.get_notification_listener(
            transport(url), [target], [Endpoint("again")], executor="threading", allow_requeue=True
        )
    )


def pool(url):
    target = oslo_messaging.Target(topic="notifications")
    until_told(oslo_messaging.get_notification_listener(transport(url), [target], [Endpoint()], executor="threading", pool="usage"))


def batch(url):
    target = oslo_messaging.Target(topic="notifications")
    until_told(
        oslo_messaging.get_batch_notification_listener(
            transport(url), [target], [BatchEndpoint()], executor="threading", batch_size=4, batch_timeout=10
        )
    )


def notify(url):
    """Both formats, with and without a context that has a token."""
    found = transport(url)
    ctxt = RequestContext(user_id="u1", project_id="p1", auth_token="SECRET")
    for driver in ("messagingv2", "messaging"):
        notifier = oslo_messaging.Notifier(found, "compute.host1", driver=driver, serializer=ContextSerializer())
        notifier.info(ctxt, f"{driver}.one", {"x": 1, "é": [None, 1.5]})
        notifier.prepare(publisher_id="compute.host2").error({"user": "u2"}, f"{driver}.two", "text")
    typed = oslo_messaging.Notifier(found, "compute.host1", driver="messaging")
    typed.info({}, "typed", {"at": datetime(2026, 11, 23, 3, 13), "sum": Decimal("1.50")})  # noqa: DTZ001  # naive UTC, as OpenStack has it
    say(sent=True)
    sys.stdin.read()
    found.cleanup()


{"listener": listen, "pool": pool, "batch": batch, "notifier": notify}[sys.argv[1]](sys.argv[2])
