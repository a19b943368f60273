"""Notifications, what services tell whoever listens: oslo.messaging's notifier and listeners, native to asyncio."""

from common.notify.batch import BatchListener
from common.notify.dispatch import NotificationResult, Received
from common.notify.filter import NotificationFilter
from common.notify.listener import Listener
from common.notify.notifier import Notifier
from common.notify.options import NotificationOptions
from common.notify.topology import Target

__all__ = [
    "BatchListener",
    "Listener",
    "NotificationFilter",
    "NotificationOptions",
    "NotificationResult",
    "Notifier",
    "Received",
    "Target",
]
