"""What every service process stands on: its bus, its database, its flows' journal, its heartbeat."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from common.app.observing import Observed, observing
from common.app.options import CommonConfig, DatabaseConfig
from common.app.service import Outside
from common.base.clock import Clock
from common.base.errors import Fault
from common.base.limits import INBOX_SWEEP_S
from common.db.branch import Branch
from common.db.engine import Database
from common.db.hosts import Hosts
from common.db.inbox import SqlInbox
from common.db.journal import Journal
from common.flow.runner import Runner
from common.rpc.client import RpcClient
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.port import Transport

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """The parts that every process has. `runner` is drained before the bus and the database close."""

    config: CommonConfig
    clock: Clock
    transport: Transport
    rpc: RpcClient
    options: RpcOptions
    database: Database
    hosts: Hosts
    runner: Runner
    observed: Observed
    inbox: SqlInbox

    @asynccontextmanager
    async def serve(self, *servers: Serving, binary: str, topic: str, host: str) -> AsyncIterator[None]:
        """Serve and report being alive inside the block, under the row (binary, host) of services."""
        await self.hosts.register(binary=binary, host=host, topic=topic, availability_zone="nova")
        async with (
            serving(
                self.transport,
                *servers,
                clock=self.clock,
                options=self.options,
                grace_s=self.config.graceful_shutdown_timeout,
                middleware=self.observed.servers,
                counts=self.observed.counts,
                inbox=self.inbox,
            ),
            alongside(self._report(binary, host)),
            alongside(_sweep(self.inbox, self.clock)),
        ):
            _log.info("serving", binary=binary, host=host, topic=topic, bus=self.transport.url)
            yield

    async def _report(self, binary: str, host: str) -> None:
        """The heartbeat. It never dies: a database that is away is logged once, and the next beat tries again."""
        is_failing = False
        while True:
            try:
                await self.hosts.report_state(binary=binary, host=host)
                is_failing = False
            except Fault as exc:
                if not is_failing:
                    _log.warning("heartbeat not written", binary=binary, host=host, reason=str(exc))
                is_failing = True
            await self.clock.sleep(self.config.report_interval)


@asynccontextmanager
async def ground(
    config: CommonConfig, database: DatabaseConfig, *, name: str, migrations: Branch, outside: Outside
) -> AsyncIterator[Ground]:
    """Open bus and database for the process `name` ("nova-compute.cmp1").

    Raises DatabaseUnavailable, DatabaseNotUpgraded, BusUnavailable, Misconfigured.
    """
    options, clock = config.bus.rpc, outside.clock
    async with AsyncExitStack() as stack:
        tables = outside.open_database(database.connection, clock=clock, branches=(migrations,))
        stack.push_async_callback(tables.close)
        await tables.check()
        transport = await outside.open_bus(config.bus.url, name)
        stack.push_async_callback(transport.close)
        observed = await stack.enter_async_context(observing(config, name=name, bus=transport.url, clock=clock))
        rpc = await stack.enter_async_context(
            client(transport, clock=clock, options=options, middleware=observed.clients, counts=observed.counts)
        )
        inbox = SqlInbox(tables, clock)
        runner = await stack.enter_async_context(Runner(Journal(tables, clock), clock=clock, owner=name))
        yield Ground(
            config=config,
            clock=clock,
            transport=transport,
            rpc=rpc,
            options=options,
            database=tables,
            hosts=Hosts(tables, clock),
            runner=runner,
            observed=observed,
            inbox=inbox,
        )


async def _sweep(inbox: SqlInbox, clock: Clock) -> None:
    """Keeps the inbox small. A database that is away is no reason to stop: the next hour tries again."""
    while True:
        await clock.sleep(INBOX_SWEEP_S)
        try:
            swept = await inbox.sweep()
        except Fault as exc:
            _log.warning("inbox not swept", reason=str(exc))
        else:
            _log.debug("inbox swept", rows=swept)


@asynccontextmanager
async def alongside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """`work` runs while the block does and is cancelled at its end; if it fails, the block does."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
        try:
            yield
        finally:
            task.cancel()
