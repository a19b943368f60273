"""Real parts for tests: private servers, a fresh database for each test, and a word at the end on what was real."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from cinder_lite.store import tables as cinder_tables
from common.db import migrate, tables as common_tables
from common.db.engine import Database, open_database
from common.host.clock import SystemClock
from common.testing.servers import MariaDbServer, PostgresServer, RabbitServer, RedisServer, Server
from nova_lite.store import tables as nova_tables
from nova_lite.virt.libvirt_client import DEBIANS_PYTHON
from tests.support import ceph, lvm
from tests.support.guests import guest_missing

# A busy machine is no error. What hypothesis itself sets where CI is set stays.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def _program_missing(*programs: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        return ", ".join(name for name in programs if shutil.which(name) is None) or None

    return missing


def _libvirt_missing() -> str | None:
    if missing := _program_missing("libvirtd")():
        return missing
    bound = subprocess.run([DEBIANS_PYTHON, "-c", "import libvirt_qemu"], capture_output=True, timeout=20, check=False)
    return "python3-libvirt" if bound.returncode else None


_SERVERS: dict[str, type[Server]] = {
    "rabbitmq": RabbitServer,
    "postgresql": PostgresServer,
    "mariadb": MariaDbServer,
    "redis": RedisServer,
}
PARTS: dict[str, Callable[[], str | None]] = {
    **{part: server.missing for part, server in _SERVERS.items()},
    "tgt": _program_missing("tgtd", "tgtadm"),
    "qemu": _program_missing("qemu-system-x86_64"),
    "libvirt": _libvirt_missing,
    "lvm": lvm.missing,
    "ceph": ceph.missing,
    "guest": guest_missing,
}
"""Name of a real part and what asks whether this machine has it."""

_VERSION_COMMANDS = {
    "tgt": ("tgtadm", "--version"),
    "qemu": ("qemu-system-x86_64", "--version"),
    "libvirt": ("libvirtd", "--version"),
    "lvm": ("/usr/sbin/lvm", "version"),
    "ceph": ("ceph", "--version"),
}
_SERVER_FIXTURES = {
    "cluster",
    "libvirt_daemon",
    "rabbit_server",
    "postgres_server",
    "mariadb_server",
    "redis_server",
    "database_kind",
}

BRANCHES = (nova_tables.BRANCH, cinder_tables.BRANCH)
_TABLES = [table for found in (common_tables, nova_tables, cinder_tables) for table in found.METADATA.sorted_tables]


@dataclass
class RealParts:
    """What this run used and what it went without."""

    strict: bool
    used: dict[str, str] = field(default_factory=dict)
    lacking: dict[str, str] = field(default_factory=dict)
    tests_skipped: dict[str, int] = field(default_factory=dict)

    def need(self, part: str) -> None:
        """Skip the running test when the part is missing, or fail it where nothing may be missing."""
        if part not in PARTS:
            pytest.fail(f"unknown real part {part!r}; known: {', '.join(PARTS)}", pytrace=False)
        if part not in self.used and part not in self.lacking:
            missing = PARTS[part]()
            if missing is None:
                self.used[part] = _version(part)
            else:
                self.lacking[part] = missing
        if part in self.lacking:
            reason = f"{part} is missing on this machine: {self.lacking[part]}"
            if self.strict:
                pytest.fail(f"{reason} (--strict-real or CI=true forbids to skip)", pytrace=False)
            self.tests_skipped[part] = self.tests_skipped.get(part, 0) + 1
            pytest.skip(reason)


_MINUTES = ("tests/integration/chaos/", "tests/integration/datapath/")
_PARTS_KEY = pytest.StashKey[RealParts]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run what is marked long too: the same again on more adapters")
    parser.addoption("--amqp", action="store_true", help="what says rabbit:// in this process goes over our own engine, amqp://")
    parser.addoption("--strict-real", action="store_true", help="a missing real part is a failure, not a skip (or CI=true)")


def pytest_configure(config: pytest.Config) -> None:
    # A RabbitMQ with one scheduler is up after five seconds of the processor instead of six and a half, and the suite starts many.
    os.environ.setdefault("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1")
    strict = bool(config.getoption("--strict-real")) or os.environ.get("CI", "").lower() in {"true", "1"}
    config.stash[_PARTS_KEY] = RealParts(strict)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes minutes and mostly waits begins first, in one of several processes, so that at the end no process waits for it alone.

    The time limit of a test does not count the start of a server, which has its own.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(_MINUTES))
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if _uses_a_server(item) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(120, func_only=True))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("real"):
        for part in marker.args:
            item.config.stash[_PARTS_KEY].need(part)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """What one of several test processes used and went without."""
    told: dict[str, dict[str, Any]] = getattr(node, "workeroutput", {}).get("real_parts", {})
    parts = node.config.stash[_PARTS_KEY]
    parts.used.update(told.get("used", {}))
    parts.lacking.update(told.get("lacking", {}))
    for part, number in told.get("tests_skipped", {}).items():
        parts.tests_skipped[part] = parts.tests_skipped.get(part, 0) + number


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        parts = session.config.stash[_PARTS_KEY]
        output["real_parts"] = {"used": parts.used, "lacking": parts.lacking, "tests_skipped": parts.tests_skipped}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    parts = config.stash[_PARTS_KEY]
    if not parts.used and not parts.lacking:
        return
    terminalreporter.section("real parts")
    for part, version in sorted(parts.used.items()):
        terminalreporter.write_line(f"used     {part} {version}")
    for part, reason in sorted(parts.lacking.items()):
        terminalreporter.write_line(f"skipped  {part}: {reason} ({parts.tests_skipped.get(part, 0)} tests)")


@pytest.fixture(autouse=True, scope="session")
def _over_amqp(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getoption("--amqp"):
        yield
        return
    from common.transport.amqp import AmqpTransport  # noqa: PLC0415 - no other test needs both
    from common.transport.rabbit import RabbitTransport  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RabbitTransport, "connect", AmqpTransport.connect)
        yield


@pytest.fixture(scope="session")
def real_parts(request: pytest.FixtureRequest) -> RealParts:
    """Lets a fixture say which part it needs."""
    return request.config.stash[_PARTS_KEY]


@pytest.fixture(scope="session")
def rabbit_server(real_parts: RealParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """One private RabbitMQ node for the run. A test that kills a node starts its own `RabbitServer`."""
    real_parts.need("rabbitmq")
    with RabbitServer(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture
def rabbit_url(rabbit_server: RabbitServer) -> str:
    """rabbit://guest:guest@127.0.0.1:<port>/<virtual host that nobody has used>"""
    return rabbit_server.fresh_url()


@pytest.fixture(scope="session")
def postgres_server(real_parts: RealParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """One private PostgreSQL for the run."""
    real_parts.need("postgresql")
    with PostgresServer(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server(real_parts: RealParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """One private MariaDB for the run."""
    real_parts.need("mariadb")
    with MariaDbServer(tmp_path_factory.mktemp("maria")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(real_parts: RealParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One private redis for the run. A test that kills one starts its own `RedisServer`."""
    real_parts.need("redis")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def volume_group(real_parts: RealParts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[lvm.PrivateGroup]:
    """One private volume group for the run; a test takes away what it made there."""
    real_parts.need("lvm")
    with lvm.private_group(tmp_path_factory.mktemp("lvm")) as group:
        yield group


@pytest.fixture(scope="session")
def ceph_cluster(real_parts: RealParts) -> Iterator[ceph.CephCluster]:
    """One private Ceph cluster for the run; a test takes away what it made there, and starts what it killed."""
    real_parts.need("ceph")
    with ceph.ceph_cluster() as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each database."""
    return str(request.param)


@pytest.fixture
def empty_database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An operator's URL of a database without tables."""
    name = f"empty_{next(_NUMBERS)}"
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path}/lite.sqlite"
        return
    server: PostgresServer | MariaDbServer = request.getfixturevalue(_DATABASE_SERVERS[database_kind])
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """An operator's URL of an upgraded database without rows, the test's own."""
    maker: Callable[[], Iterator[str]] = request.getfixturevalue(f"_{database_kind}_databases")
    yield from maker()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An upgraded database without rows, open."""
    db = open_database(database_url, clock=SystemClock(), branches=BRANCHES)
    yield db
    await db.close()


@pytest.fixture
async def sqlite_database(_sqlite_databases: Callable[[], Iterator[str]]) -> AsyncIterator[Database]:
    """As `database`, on SQLite alone: for tests whose subject is not the database."""
    for url in _sqlite_databases():
        db = open_database(url, clock=SystemClock(), branches=BRANCHES)
        yield db
        await db.close()


@pytest.fixture(scope="session")
def _sqlite_databases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Iterator[str]]:
    """Each is a copy of one upgraded file."""
    folder = tmp_path_factory.mktemp("sqlite")
    _elsewhere(migrate.upgrade(f"sqlite:///{folder}/template.sqlite", BRANCHES, clock=SystemClock()))

    def make() -> Iterator[str]:
        path = folder / f"{next(_NUMBERS)}.sqlite"
        shutil.copy(folder / "template.sqlite", path)
        yield f"sqlite:///{path}"
        path.unlink()

    return make


@pytest.fixture(scope="session")
def _postgresql_databases(postgres_server: PostgresServer) -> Callable[[], Iterator[str]]:
    """Each is made from one upgraded template."""
    _elsewhere(migrate.upgrade(postgres_server.create_database("template_lite"), BRANCHES, clock=SystemClock()))

    def make() -> Iterator[str]:
        name = f"lite_{next(_NUMBERS)}"
        yield postgres_server.create_database(name, template="template_lite")
        postgres_server.drop_database(name)

    return make


@pytest.fixture(scope="session")
def _mariadb_databases(mariadb_server: MariaDbServer) -> Callable[[], Iterator[str]]:
    """One upgraded database, emptied after each test: MariaDB has no templates and is slow to make tables."""
    url = mariadb_server.create_database("lite")
    _elsewhere(migrate.upgrade(url, BRANCHES, clock=SystemClock()))
    emptied = "; ".join(f"DELETE FROM lite.{table.name}" for table in _TABLES)

    def make() -> Iterator[str]:
        yield url
        mariadb_server.execute(f"SET FOREIGN_KEY_CHECKS = 0; {emptied}")

    return make


_NUMBERS = count(1)
_DATABASE_SERVERS = {"postgresql": "postgres_server", "mariadb": "mariadb_server"}


def _elsewhere(work: Coroutine[Any, Any, object]) -> None:
    """Runs the coroutine to its end in a thread, so that the loop of the tests is not disturbed."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def _uses_a_server(item: pytest.Item) -> bool:
    names: list[str] = getattr(item, "fixturenames", [])
    return not _SERVER_FIXTURES.isdisjoint(names)


def _version(part: str) -> str:
    if part in _SERVERS:
        return _SERVERS[part].version()
    if part not in _VERSION_COMMANDS:
        return "(made here)"
    done = subprocess.run(_VERSION_COMMANDS[part], capture_output=True, text=True, timeout=20, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0] or "(version unknown)"
