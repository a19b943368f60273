"""What the command lines of all services share: their options, a connection to the bus, and `run`, which runs a process."""

import asyncio
import getpass
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import structlog
import typer

from common.app.armed import armed
from common.app.config import Overrides, Section
from common.app.logs import configure_logs
from common.app.options import CommonConfig
from common.app.service import OpenBus, Outside, Service, neighbours, open_database, services
from common.app.supervisor import Lifetime, run_service
from common.app.whole import Whole
from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Misconfigured
from common.host.clock import SystemClock
from common.rpc.client import NobodyListens, RpcClient
from common.rpc.contract import Method, Route
from common.rpc.session import client
from common.transport.memory import MemoryBuses
from common.transport.port import Transport
from common.transport.rabbit_settings import RabbitSettings
from common.transport.url import open_transport

if TYPE_CHECKING:  # commands that need no database shall not wait for its libraries
    from common.db.engine import Database

T = TypeVar("T")
C = TypeVar("C")
C_co = TypeVar("C_co", covariant=True)

_RABBIT_DEFAULTS = RabbitSettings()

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config-file",
        envvar="LITE_CONFIG_FILES",
        metavar="FILE",
        help="Configuration file; repeat it for several, later ones win. In the variable, divide them by colons.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Log more, and show tracebacks of our own bugs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress until the state is final.")]


def opener(clock: Clock, buses: MemoryBuses | None = None, *, rabbit: RabbitSettings = _RABBIT_DEFAULTS) -> OpenBus:
    """How this process opens buses."""

    def open_bus(url: str, name: str) -> Awaitable[Transport]:
        return open_transport(url, clock=clock, connection_name=name, rabbit=rabbit, buses=buses)

    return open_bus


class Loader(Protocol[C_co]):
    """A service's own way to read its configuration."""

    def __call__(self, files: Sequence[Path], *, overrides: Overrides, foreign: Sequence[Section]) -> C_co: ...


def load(loader: Loader[C], name: str, files: Sequence[Path] | None, *, debug: bool = False) -> C:
    """The configuration of one service. Raises Misconfigured.

    A file may serve several services. The others' sections are asked for only when something in it is not ours, since
    importing all services takes longer than most commands.
    """
    overrides = {"DEFAULT": {"debug": "true"}} if debug else {}
    try:
        return loader(files or [], overrides=overrides, foreign=())
    except Misconfigured:
        return loader(files or [], overrides=overrides, foreign=neighbours(name, services()))


def run(service: Service, process: str, files: Sequence[Path] | None, *, debug: bool) -> int:
    """Run one process of a service until it is told to stop; its exit code."""
    overrides = {"DEFAULT": {"debug": "true"}} if debug else {}
    config = service.load(files or [], overrides, neighbours(service.name, services()))
    kind = service.process(process)
    configure_logs(service=kind.binary, host=config.common.host, debug=config.common.debug, log_format=config.common.log_format)
    for warning in config.warnings:
        structlog.get_logger(__name__).warning(warning)
    clock = SystemClock()
    failpoints = armed(f"{kind.binary}.{config.common.host}")
    outside = Outside(clock, opener(clock, rabbit=config.common.bus.rabbit), failpoints=failpoints)

    async def body(life: Lifetime) -> None:
        async with kind.run(config, outside):
            life.ready(f"serving as {kind.binary} on {config.common.host}")
            await life.stopped()

    return run_service(kind.binary, body, grace_s=config.common.graceful_shutdown_timeout)


class UsersSender:
    """A sender for people: it asks first whether anybody listens, so that a command fails at once and says what to do."""

    def __init__(self, rpc: RpcClient, *, bus: str) -> None:
        self._rpc = rpc
        self._bus = bus

    async def call(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Any:
        if not route.fanout and await self._rpc.listeners(route) == 0:
            raise NobodyListens(
                f"Nobody listens on {route} at {self._bus}: the service is not running there. "
                "Start it (`lite up` starts them all), or name its bus by --config-file.",
                address=str(route),
            )
        return await self._rpc.call(route, method, ctx, arguments)

    async def cast(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> None:
        await self._rpc.cast(route, method, ctx, arguments)


@asynccontextmanager
async def users_transport(config: CommonConfig, clock: Clock) -> AsyncIterator[Transport]:
    """A connection to the bus for one command."""
    transport = await opener(clock, rabbit=config.bus.rabbit)(config.bus.url, f"cli.{getpass.getuser()}")
    try:
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def users_sender(config: CommonConfig, clock: Clock) -> AsyncIterator[UsersSender]:
    """The same with a client on it."""
    async with users_transport(config, clock) as transport, client(transport, clock=clock, options=config.bus.rpc) as rpc:
        yield UsersSender(rpc, bus=transport.url)


def users_context() -> Context:
    """Who types the command."""
    return Context(user_id=getpass.getuser(), project_id="default", is_admin=True)


def on_bus(config: CommonConfig, work: Callable[[UsersSender, Clock], Awaitable[T]]) -> T:
    """Connect, do `work`, and leave. Logs are warnings on stderr only."""

    async def connected() -> T:
        clock = SystemClock()
        async with users_sender(config, clock) as sender:
            return await work(sender, clock)

    return _quietly(config, connected())


def on_transport(config: CommonConfig, work: Callable[[Transport, Clock], Awaitable[T]]) -> T:
    """The same for those who look at queues and messages themselves."""

    async def connected() -> T:
        clock = SystemClock()
        async with users_transport(config, clock) as transport:
            return await work(transport, clock)

    return _quietly(config, connected())


def on_database(whole: Whole, work: Callable[["Database", Clock], Awaitable[T]]) -> T:
    """The same for those who look at rows. Raises DatabaseUnavailable, DatabaseNotUpgraded."""

    async def opened() -> T:
        clock = SystemClock()
        database = open_database(whole.database.connection, clock=clock, branches=whole.branches)
        try:
            await database.check()
            return await work(database, clock)
        finally:
            await database.close()

    return _quietly(whole.common, opened())


def _quietly(config: CommonConfig, work: Coroutine[Any, Any, T]) -> T:
    configure_logs(service="cli", host=config.host, debug=config.debug, log_format=config.log_format, quiet=True)
    return asyncio.run(work)


def tell(text: str) -> None:
    """A line of progress, on stderr."""
    typer.echo(text, err=True)


def agreed(question: str) -> bool:
    """No answer is no. Ctrl-C at a terminal ends the command."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        tell("")
        return False
