"""The buses that the suite runs on."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.host.clock import SystemClock
from common.transport.memory import MemoryBuses
from common.transport.port import Transport
from common.transport.url import open_transport
from tests.conformance.transport.support import Bus

KINDS = [
    "memory",
    "kombu-memory",
    "kombu-filesystem",
    pytest.param("rabbit", marks=pytest.mark.real("rabbitmq")),
]


@pytest.fixture(params=KINDS)
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    """A bus of each kind."""
    clock = SystemClock()
    buses = MemoryBuses(clock)
    match request.param:
        case "memory":
            url = "memory://test"
        case "kombu-memory":
            url = "kombu+memory://"
        case "kombu-filesystem":
            url = f"kombu+filesystem://{tmp_path}/bus"
        case _:
            url = request.getfixturevalue("rabbit_url")

    async def make() -> Transport:
        return await open_transport(url, clock=clock, connection_name="suite", buses=buses)

    bus = Bus(request.param, clock, make)
    yield bus
    await bus.close()
