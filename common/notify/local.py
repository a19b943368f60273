"""Drivers that reach nobody outside of this process: `log`, `noop`, `test`."""

import logging
from collections import deque

from common.base.limits import NOTIFICATIONS_TESTED_MAX
from common.host.lean import structlog
from common.notify.driver import DriverSetup
from common.wire.notification import Notification, Priority, redacted

_log = structlog.get_logger("oslo.messaging.notification")

_LEVELS = {
    Priority.AUDIT: logging.INFO,
    Priority.DEBUG: logging.DEBUG,
    Priority.INFO: logging.INFO,
    Priority.WARN: logging.WARNING,
    Priority.ERROR: logging.ERROR,
    Priority.CRITICAL: logging.CRITICAL,
    Priority.SAMPLE: logging.DEBUG,
}


class LogDriver:
    """Implements `Driver`: a line of this process's log, at the priority's level, without secrets as every line is."""

    def __init__(self, setup: DriverSetup) -> None:
        del setup

    async def notify(self, notification: Notification, *, retry: int) -> None:
        del retry  # a log does not fail
        _log.log(
            _LEVELS[notification.priority],
            "notification",
            event_type=notification.event_type,
            priority=notification.priority.upper(),
            publisher_id=notification.publisher_id,
            message_id=notification.message_id,
            payload=notification.payload,
            context=redacted(notification.context),
        )


class NoopDriver:
    """Implements `Driver`: nothing is sent."""

    def __init__(self, setup: DriverSetup) -> None:
        del setup

    async def notify(self, notification: Notification, *, retry: int) -> None:
        del notification, retry


class TestDriver:
    """Implements `Driver`: keeps the last notifications for a test to look at."""

    __test__ = False  # no test of its own, whatever pytest makes of the name

    def __init__(self, setup: DriverSetup) -> None:
        del setup
        self.notifications: deque[Notification] = deque(maxlen=NOTIFICATIONS_TESTED_MAX)

    async def notify(self, notification: Notification, *, retry: int) -> None:
        del retry
        self.notifications.append(notification)
