"""The buses that the suite runs on."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from common.host.clock import SystemClock
from common.testing.servers import PostgresServer
from common.transport.memory import MemoryBuses
from common.transport.port import Transport
from common.transport.url import open_transport
from tests.conformance.transport.support import Bus

KINDS = [
    "memory",
    "kombu-memory",
    "kombu-filesystem",
    "kombu-sqlite",
    pytest.param("kombu-postgresql", marks=pytest.mark.real("postgresql")),
    pytest.param("kombu-redis", marks=pytest.mark.real("redis")),
    pytest.param("rabbit", marks=pytest.mark.real("rabbitmq")),
    pytest.param("amqp", marks=pytest.mark.real("rabbitmq")),
]


@pytest.fixture
def postgres_bus_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the run's PostgreSQL, of this test alone."""
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"bus_{secrets.token_hex(4)}"
    yield f"kombu+sqla+{server.create_database(name)}"
    server.drop_database(name)


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
        case "kombu-sqlite":
            url = f"kombu+sqla+sqlite:///{tmp_path}/bus.sqlite"
        case "kombu-postgresql":
            url = request.getfixturevalue("postgres_bus_url")
        case "kombu-redis":
            url = request.getfixturevalue("redis_server").fresh_url()
        case scheme:
            url = f"{scheme}://{request.getfixturevalue('rabbit_url').removeprefix('rabbit://')}"

    async def make() -> Transport:
        return await open_transport(url, clock=clock, connection_name="suite", buses=buses)

    bus = Bus(request.param, clock, make, url)
    yield bus
    await bus.close()
