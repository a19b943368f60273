"""What every service process stands on: its bus, its database, its flows' journal, its heartbeat."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from common.app.carrier import Carrier, alongside, carrying, for_the_caller
from common.app.observing import Observed, observing
from common.app.options import CommonConfig, DatabaseConfig
from common.app.service import HoldName, Outside
from common.base.clock import Clock
from common.base.errors import Fault
from common.base.failpoints import Failpoints
from common.base.limits import INBOX_SWEEP_S
from common.db.branch import Branch
from common.db.engine import Database
from common.db.hosts import Hosts
from common.db.inbox import SqlInbox
from common.db.owner import Owner
from common.rpc.client import RpcClient
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.port import Transport

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """The parts that every process has."""

    config: CommonConfig
    clock: Clock
    transport: Transport
    rpc: RpcClient
    options: RpcOptions
    database: Database
    hosts: Hosts
    observed: Observed
    inbox: SqlInbox
    failpoints: Failpoints
    hold_name: HoldName

    @asynccontextmanager
    async def carrying(self, process: str, *, home: str | None = None) -> AsyncIterator[Carrier]:
        """What carries the flows of `process` ("nova-compute.cmp1").

        home   who may carry them on when it dies: "nova-api" for any process of that kind; None: only the next one of its name,
               of which there is one at a time on this machine: a second is Misconfigured
        """
        owner = Owner(process=process, home=home or process, is_alone=home is None)
        with self.hold_name(self.config.state_path, process, boot=owner.boot if home else None) as dead:
            async with carrying(
                replace(owner, dead=dead),
                database=self.database,
                transport=self.transport,
                rpc=self.rpc,
                clock=self.clock,
                failpoints=self.failpoints,
            ) as carrier:
                yield carrier

    @asynccontextmanager
    async def serve(self, *servers: Serving, carrier: Carrier, binary: str, topic: str, host: str) -> AsyncIterator[None]:
        """Serve and report being alive inside the block, under the row (binary, host) of services."""
        await self.hosts.register(binary=binary, host=host, topic=topic, availability_zone="nova")
        async with (
            carrier.at_work(),
            serving(
                self.transport,
                *servers,
                clock=self.clock,
                options=self.options,
                grace_s=self.config.graceful_shutdown_timeout,
                middleware=(*self.observed.servers, for_the_caller),
                counts=self.observed.counts,
                inbox=self.inbox,
                failpoints=self.failpoints,
            ),
            alongside(self._report(binary, host)),
            alongside(_sweep(self.inbox, self.clock)),
            alongside(_sweep(carrier, self.clock)),
        ):
            _log.info("serving", binary=binary, host=host, topic=topic, bus=self.transport.url)
            try:
                yield
            finally:
                carrier.hand_back()

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
        yield Ground(
            config=config,
            clock=clock,
            transport=transport,
            rpc=rpc,
            options=options,
            database=tables,
            hosts=Hosts(tables, clock),
            observed=observed,
            inbox=inbox,
            failpoints=outside.failpoints,
            hold_name=outside.hold_name,
        )


class Swept(Protocol):
    """Something that grows unless it is swept."""

    async def sweep(self) -> object: ...


async def _sweep(swept: Swept, clock: Clock) -> None:
    """Keeps it small. A database that is away is no reason to stop: the next hour tries again."""
    while True:
        await clock.sleep(INBOX_SWEEP_S)
        try:
            rows = await swept.sweep()
        except Fault as exc:
            _log.warning("not swept", what=type(swept).__name__, reason=str(exc))
        else:
            _log.debug("swept", what=type(swept).__name__, rows=rows)
