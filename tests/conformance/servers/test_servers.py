"""What every private server promises to the tests that use it."""

import os
import signal
import socket
from pathlib import Path

import asyncpg
import pytest

from common.testing.servers import MariaDbServer, PostgresServer, RabbitServer, RedisServer, Server, ServerFailed, free_port

SERVERS = [
    pytest.param(PostgresServer, marks=pytest.mark.real("postgresql")),
    pytest.param(MariaDbServer, marks=pytest.mark.real("mariadb")),
    pytest.param(RedisServer, marks=pytest.mark.real("redis")),
    pytest.param(RabbitServer, marks=[pytest.mark.real("rabbitmq"), pytest.mark.timeout(180)]),
]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def runs(server: Server) -> bool:
    return server.is_running


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_starts_survives_a_power_cut_and_stops_without_a_trace(kind: type[Server], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        port, folder = server.port, server.folder
        assert runs(server)
        assert answers(port)
        server.start()
        server.kill()
        assert not runs(server)
        assert not answers(port)
        server.start()
        assert server.port == port
        assert answers(port)
    assert not runs(server)
    assert not answers(port)
    assert folder == tmp_path or not folder.exists()


@pytest.mark.real("postgresql", "mariadb")
async def test_what_was_made_before_a_power_cut_is_there_after_it(tmp_path: Path) -> None:
    for kind in (PostgresServer, MariaDbServer):
        async with kind(tmp_path / kind.__name__) as server:
            server.create_database("kept")
            server.kill()
            server.start()
            with pytest.raises(ServerFailed, match="exists"):
                server.create_database("kept")
            server.drop_database("kept")
            server.drop_database("kept")


@pytest.mark.real("postgresql")
async def test_a_power_cut_ends_a_backend_that_has_not_noticed_it(tmp_path: Path) -> None:
    async with PostgresServer(tmp_path) as server:
        connection = await asyncpg.connect(server.url())
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        os.kill(backend, signal.SIGSTOP)
        server.kill()
        with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
            await connection.fetchval("SELECT 1", timeout=10)
        connection.terminate()


def test_every_test_gets_a_virtual_host_of_its_own(rabbit_server: RabbitServer) -> None:
    urls = {rabbit_server.fresh_url() for _ in range(25)} | {rabbit_server.vhost_url("named")}
    assert len(urls) == 26
    known = rabbit_server.ctl("list_vhosts").split()
    assert all(url.rpartition("/")[2] in known for url in urls)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="no such thing"), Unstartable(tmp_path):
        pass


class Unstartable(RabbitServer):
    """Its program complains and ends."""

    spawns_max = 2

    def _command(self) -> tuple[list[str], dict[str, str]]:
        return ["/bin/sh", "-c", "echo no such thing; exit 3"], {}


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
