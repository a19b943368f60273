"""What a service tells the world: `await notifier.info(ctx, "compute.instance.create.end", payload)`.

Telling is never the caller's failure (oslo.messaging's rule): what goes wrong is logged and counted. Nor does it hold the caller
longer than `timeout_s`, or keep more than a bounded number of notifications while a bus is away.
"""

import asyncio
import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Fault
from common.base.ids import new_uuid
from common.base.limits import NOTIFICATIONS_PENDING_MAX
from common.host.lean import structlog
from common.notify.driver import Driver, DriverSetup, load_driver
from common.notify.options import NotificationOptions
from common.transport.port import Transport
from common.wire.notification import Notification, Priority, redacted
from common.wire.values import WrongValue

_CUT_OFF_AFTER_S = 1.0
"""A driver that keeps no deadline of its own is ended so long after the one that it had."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Counts:
    """What became of notifications, counted for each driver that they went to; `dropped`: too many were waiting."""

    sent: int = 0
    failed: int = 0
    dropped: int = 0
    pending: int = 0


class Notifier:
    """Sends notifications by all of its drivers at once. Raises Misconfigured for a driver that there is not.

    publisher_id    who tells: `compute.host1`
    What is None is taken from `options`.
    """

    def __init__(
        self, transport: Transport, *, clock: Clock, publisher_id: str | None = None, topics: tuple[str, ...] | None = None,
        driver: tuple[str, ...] | None = None, control_exchange: str | None = None, retry: int | None = None,
        options: NotificationOptions | None = None,
    ) -> None:  # fmt: skip
        given = {"topics": topics, "driver": driver, "control_exchange": control_exchange, "retry": retry}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._options = replace(options or NotificationOptions(), **changes)
        self._clock = clock
        self._publisher_id = publisher_id
        self._retry = self._options.retry
        setup = DriverSetup(transport, self._options, clock)
        self.drivers: Mapping[str, Driver] = {name: load_driver(name, setup) for name in self._options.driver}
        self.counts = Counts()

    def prepare(self, *, publisher_id: str | None = None, retry: int | None = None) -> Self:
        """The same notifier for another publisher or number of tries; both share drivers, limits and counts."""
        other = copy.copy(self)
        other._publisher_id = self._publisher_id if publisher_id is None else publisher_id
        other._retry = self._retry if retry is None else retry
        return other

    def is_enabled(self) -> bool:
        """False when nothing is sent whatever is told."""
        return not self.drivers.keys() <= {"noop"}

    async def audit(self, ctx: Context | None, event_type: str, payload: Any) -> None:
        await self._notify(ctx, event_type, payload, Priority.AUDIT)

    async def debug(self, ctx: Context | None, event_type: str, payload: Any) -> None:
        await self._notify(ctx, event_type, payload, Priority.DEBUG)

    async def info(self, ctx: Context | None, event_type: str, payload: Any) -> None:
        await self._notify(ctx, event_type, payload, Priority.INFO)

    async def warn(self, ctx: Context | None, event_type: str, payload: Any) -> None:
        await self._notify(ctx, event_type, payload, Priority.WARN)

    warning = warn

    async def error(self, ctx: Context | None, event_type: str, payload: Any) -> None:
        await self._notify(ctx, event_type, payload, Priority.ERROR)

    async def critical(self, ctx: Context | None, event_type: str, payload: Any) -> None:
        await self._notify(ctx, event_type, payload, Priority.CRITICAL)

    async def sample(self, ctx: Context | None, event_type: str, payload: Any) -> None:
        """For frequent events with small payloads; the drivers may treat it as unimportant."""
        await self._notify(ctx, event_type, payload, Priority.SAMPLE)

    async def _notify(self, ctx: Context | None, event_type: str, payload: Any, priority: Priority) -> None:
        if self.counts.pending >= NOTIFICATIONS_PENDING_MAX:
            self.counts.dropped += 1
            _log.error("notification dropped: too many wait", event_type=event_type, limit=NOTIFICATIONS_PENDING_MAX)
            return
        notification = self.notification(ctx, event_type, payload, priority)
        self.counts.pending += 1
        try:
            async with asyncio.TaskGroup() as group:
                for name, driver in self.drivers.items():
                    group.create_task(self._send(name, driver, notification), name=f"notify {name}")
        finally:
            self.counts.pending -= 1

    def notification(self, ctx: Context | None, event_type: str, payload: Any, priority: Priority) -> Notification:
        """What the methods of the priorities send, for whoever hands it to a driver and wants to hear of its failure."""
        return Notification(
            event_type=event_type,
            priority=priority,
            payload=payload,
            publisher_id=self._publisher_id,
            message_id=new_uuid(),
            timestamp=str(self._clock.utcnow()),
            # As with oslo.messaging: what is no context object, a dict for instance, is not known to be free of secrets.
            context=redacted(ctx.to_dict()) if isinstance(ctx, Context) else {},
        )

    async def _send(self, name: str, driver: Driver, notification: Notification) -> None:
        try:
            async with asyncio.timeout(self._options.timeout_s + _CUT_OFF_AFTER_S):
                await driver.notify(notification, retry=self._retry)
        except (Fault, WrongValue) as exc:
            self._failed(name, notification, str(exc))
        except TimeoutError:
            self._failed(name, notification, f"the driver did not end within {self._options.timeout_s:g} s")
        except Exception as exc:
            _log.exception("notification driver failed", driver=name, event_type=notification.event_type)
            self._failed(name, notification, type(exc).__name__)
        else:
            self.counts.sent += 1

    def _failed(self, name: str, notification: Notification, reason: str) -> None:
        self.counts.failed += 1
        event_type, message_id = notification.event_type, notification.message_id
        _log.error("notification not sent", driver=name, event_type=event_type, message_id=message_id, reason=reason)
