"""Notifications over a RabbitMQ that goes away and comes back without its transient queues."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.host.clock import SystemClock
from common.notify import Listener, NotificationOptions, Notifier, Target
from common.testing.servers import RabbitServer
from common.transport.url import open_transport

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(240)]
CLOCK = SystemClock()
OPTIONS = NotificationOptions()


class Endpoint:
    def __init__(self) -> None:
        self.seen: asyncio.Queue[str] = asyncio.Queue()

    async def info(self, ctx: Any, publisher_id: Any, event_type: str, payload: Any, metadata: Any) -> None:
        self.seen.put_nowait(event_type)


async def test_a_broker_that_is_away_delays_within_the_deadline_and_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    async with RabbitServer(tmp_path) as server:
        transport = await open_transport(server.url, clock=CLOCK, connection_name="test")
        impatient = Notifier(transport, clock=CLOCK, options=replace(OPTIONS, timeout_s=1.0))
        patient = Notifier(transport, clock=CLOCK, options=replace(OPTIONS, timeout_s=90.0))
        await asyncio.gather(impatient.info(None, "before", {}), patient.info(None, "before", {}))
        await asyncio.to_thread(server.kill)
        started = CLOCK.monotonic()
        await asyncio.gather(*(impatient.info(None, "lost", {}) for _ in range(50)))
        assert CLOCK.monotonic() - started < 5
        assert (impatient.counts.sent, impatient.counts.failed, impatient.counts.pending) == (1, 50, 0)
        waiting = asyncio.create_task(patient.info(None, "kept", {}))
        await asyncio.to_thread(server.start)
        await waiting
        assert (patient.counts.sent, patient.counts.failed) == (2, 0)
        # Nobody listened so far, and the broker has forgotten the queue that was declared before.
        endpoint = Endpoint()
        async with Listener(transport, [Target()], [endpoint], clock=CLOCK, options=OPTIONS) as listener, asyncio.timeout(30):
            assert await endpoint.seen.get() == "kept"
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await patient.info(None, "again", {})
            while await endpoint.seen.get() != "again":
                pass
        assert listener.counts.refused == 0
        await transport.close()
