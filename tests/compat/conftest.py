"""The real oslo.messaging, once for the run, and a service of ours for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from common.testing.servers import RabbitServer
from tests.compat.sides import OsloPeer, Raw, Us, serving_ours


@pytest.fixture(scope="session")
def oslo(rabbit_server: RabbitServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OsloPeer]:
    peer = OsloPeer(rabbit_server.fresh_url(), tmp_path_factory.mktemp("oslo"))
    try:
        peer.tell("serve", topic="oslo", server="host1")
        yield peer
    finally:
        peer.close()


@pytest.fixture
async def us(oslo: OsloPeer) -> AsyncIterator[Us]:
    """Our service `ours.host1` and client, on the peer's virtual host."""
    async with serving_ours(oslo.url) as found:
        yield found


@pytest.fixture
async def raw(oslo: OsloPeer) -> AsyncIterator[Raw]:
    async with Raw.at(oslo.url) as found:
        yield found
