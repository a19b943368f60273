"""One look at everything: rows beside reality, by the auditors of all services, and what all of them share.

Services go on while they are looked at. So what is in motion is no finding: not what a running flow is about, and not what a second
look some seconds later no longer shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from common.app.auditing import Audit, Look, asked
from common.app.commands import UsersSender, users_context
from common.app.masking import mask_text
from common.app.queues import QueueRow, implied
from common.app.service import Service, ServiceConfig
from common.app.shared_audit import of_flows, of_messages, of_queues, of_services
from common.base.clock import Clock
from common.base.errors import Fault, Timeout
from common.base.violation import Violation
from common.db.engine import Database
from common.db.hosts import Hosts, ServiceRow
from common.db.open_work import OpenWork, is_named
from common.rpc.contract import Kind, Method, Route
from common.rpc.dispatch import PING
from common.transport.port import Transport, Unroutable
from common.wire.address import dead_letter_queue

OLDER_THAN_S = 60.0
"""How long a state that should pass may last: a lease, a round of the reconcilers, and time to act."""
RECHECK_S = 2.0
"""Time between the look that finds something and the one that confirms it."""
ANSWER_TIMEOUT_S = 5.0
"""A service that has not answered a ping by then is silent."""

_LASTING = frozenset({"L1", "L2"})
"""These are about time: what they are about may well be in motion."""


@dataclass(frozen=True, slots=True)
class Doctor:
    """Looks at the services given, each with its configuration; `rpc` and `transport` are of the same bus."""

    services: Sequence[tuple[Service, ServiceConfig]]
    database: Database
    transport: Transport
    rpc: UsersSender
    clock: Clock
    older_than_s: float = OLDER_THAN_S

    async def audit(self) -> Audit:
        """What is wrong, and stayed so. Raises what the bus and the database raise."""
        first = await self.look()
        if not first.violations:
            return first
        await self.clock.sleep(RECHECK_S)
        return first.still(await self.look())

    async def mend(self) -> list[str]:
        """Every service mends what it can; what was done, a line each."""
        look, _ = await self._begin()
        done: list[str] = []
        for service, config in self.services:
            if service.auditor is not None:
                done += await service.auditor.reconcile(config, look)
        return [mask_text(line) for line in done]

    async def look(self) -> Audit:
        """One look. What flows are about that went on meanwhile is left out."""
        began_at = self.clock.utcnow()
        look, silent = await self._begin()
        work = OpenWork(self.database, self.clock)
        audits = [Audit(tuple(silent), {"services": len(look.services)})]
        for service, config in self.services:
            if service.auditor is not None:
                audits.append(await service.auditor.audit(config, look))
        audits.append(Audit((*await self._waiting(work), *await self._queued(look.services))))
        moving = await work.moving(since=began_at, younger_than_s=self.older_than_s)
        whole = Audit.of(audits)
        kept = [found for found in whole.violations if found.invariant in _LASTING or not is_named(found.subject, moving)]
        return Audit(tuple(_masked(found) for found in kept), whole.checked)

    async def _begin(self) -> tuple[Look, list[Violation]]:
        """Who is there, and the findings for those who do not answer."""
        rows = await Hosts(self.database, self.clock).list()
        by_name = {(row.binary, row.host): row for row in rows}
        _, faults = await asked(by_name, lambda name: self._ping(by_name[name]))
        silent = {name: _why(fault) for name, fault in faults.items()}
        look = Look(
            database=self.database,
            rpc=self.rpc,
            clock=self.clock,
            ctx=users_context(),
            services=tuple(rows),
            silent=frozenset(silent),
            older_than_s=self.older_than_s,
        )
        return look, of_services(rows, silent, self.clock.utcnow())

    async def _ping(self, row: ServiceRow) -> None:
        """Returns when the service says anything. Raises NobodyListens, Timeout, BusUnavailable."""
        exchange = next(
            (
                config.common.control_exchange
                for service, config in self.services
                if row.binary in {process.binary for process in service.processes}
            ),
            None,
        )
        route = Route(topic=row.topic, version="1.0", exchange=exchange, server=row.host, timeout_s=ANSWER_TIMEOUT_S)
        method = Method(name=PING, kind=Kind.CALL, version=route.version, parameters={}, optional=frozenset(), result=Any)
        try:
            await self.rpc.call(route, method, users_context(), {})
        except Fault as fault:
            if not fault.is_remote:
                raise

    async def _waiting(self, work: OpenWork) -> list[Violation]:
        now = self.clock.utcnow()
        before = now - timedelta(seconds=self.older_than_s)
        return of_flows(await work.flows(), now, self.older_than_s) + of_messages(
            await work.outbox(before=before), await work.held(before=before), now
        )

    async def _queued(self, rows: Sequence[ServiceRow]) -> list[Violation]:
        topics = {contract.__rpc_route__.topic for service, _ in self.services for contract in service.contracts}
        names = set(implied(sorted(topics), [(row.topic, row.host) for row in rows]))
        names |= {dead_letter_queue(f"{row.topic}.{row.host}") for row in rows if "@" in row.host}
        depths = [(name, await self.transport.depth(name)) for name in sorted(names)]
        return of_queues([QueueRow.of(name, depth) for name, depth in depths if depth is not None], self.older_than_s)


def _why(fault: Fault) -> str:
    """Raises the fault when it is not the service that is away."""
    match fault:
        case Unroutable():
            return "nobody listens there"
        case Timeout():
            return f"it does not answer within {ANSWER_TIMEOUT_S:g} s"
        case _:
            raise fault


def _masked(found: Violation) -> Violation:
    return Violation(found.invariant, found.subject, mask_text(found.evidence), found.mend)
