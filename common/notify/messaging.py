"""The drivers `messagingv2` and `messaging`: over the bus, in format 2.0 or 1.0."""

from dataclasses import replace

from common.base.errors import Fault, Unavailable
from common.base.ids import new_hex
from common.notify.driver import DriverSetup
from common.notify.publisher import Publisher
from common.wire.notification import Notification, encode_notification


class NotSent(Unavailable):
    """Notification {event_type} was not sent to {topics}: {reason}"""


class MessagingDriver:
    """Implements `Driver`. Each topic gets a copy with an id of its own; a topic that fails keeps none of the others."""

    def __init__(self, setup: DriverSetup, *, envelope: bool) -> None:
        self._topics = setup.options.topics
        self._publisher = Publisher(setup.transport, options=setup.options, clock=setup.clock)
        self._envelope = envelope

    async def notify(self, notification: Notification, *, retry: int) -> None:
        """Raises WrongValue for a payload that cannot be sent, NotSent when some topic did not get it."""
        failed: dict[str, Fault] = {}
        for topic in self._topics:
            body = encode_notification(replace(notification, unique_id=new_hex()), envelope=self._envelope)
            try:
                await self._publisher.publish(topic, notification.priority, body, retry=retry)
            except Fault as exc:
                failed[topic] = exc
        if failed:
            reason = "; ".join(dict.fromkeys(str(exc) for exc in failed.values()))
            raise NotSent(event_type=notification.event_type, topics=", ".join(failed), reason=reason)


def messaging_v2(setup: DriverSetup) -> MessagingDriver:
    """In an envelope."""
    return MessagingDriver(setup, envelope=True)


def messaging_v1(setup: DriverSetup) -> MessagingDriver:
    """Without an envelope, for listeners that know no other format."""
    return MessagingDriver(setup, envelope=False)
