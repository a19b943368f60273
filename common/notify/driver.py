"""The ways that a notification can go. A third party adds one by an entry point of the group `lite.notify.drivers`."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from common.base.clock import Clock
from common.base.errors import Misconfigured
from common.notify.options import NotificationOptions
from common.transport.port import Transport
from common.wire.notification import Notification

GROUP = "lite.notify.drivers"

_OURS = {
    name: EntryPoint(name, value, GROUP)
    for name, value in {
        "messagingv2": "common.notify.messaging:messaging_v2",
        "messaging": "common.notify.messaging:messaging_v1",
        "routing": "common.notify.routing:RoutingDriver",
        "log": "common.notify.local:LogDriver",
        "noop": "common.notify.local:NoopDriver",
        "test": "common.notify.local:TestDriver",
    }.items()
}
"""Loaded when they are chosen: `routing` needs a package that may not be installed."""


class Driver(Protocol):
    """One way. The notifier reports what it raises, and cuts it off when it keeps no deadline of its own."""

    async def notify(self, notification: Notification, *, retry: int) -> None:
        """Returns when the notification is where it goes. `retry` as in NotificationOptions."""
        ...


@dataclass(frozen=True, slots=True)
class DriverSetup:
    """What a driver is made of."""

    transport: Transport
    options: NotificationOptions
    clock: Clock


def load_driver(name: str, setup: DriverSetup) -> Driver:
    """The driver of that name. Raises Misconfigured when there is none, or when it cannot be used here."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)} | _OURS
    if name not in known:
        raise Misconfigured(reason=f"there is no notification driver {name!r}; known: {', '.join(sorted(known))}")
    try:
        make: Callable[[DriverSetup], Driver] = known[name].load()
    except (ImportError, AttributeError) as exc:
        hint = "; pip install 'nova-cinder-lite[routing]'" if name == "routing" else ""
        raise Misconfigured(reason=f"the notification driver {name!r} cannot be loaded: {exc}{hint}") from exc
    return make(setup)
