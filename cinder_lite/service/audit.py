"""Cinder's part in `lite doctor`: its rows beside what every backend has."""

from collections.abc import Awaitable, Callable

from cinder_lite.config import CinderConfig
from cinder_lite.contract import BackendInventory, BackendReport
from cinder_lite.domain.audit import Facts, audit
from cinder_lite.store.audit import audited_rows, audited_snapshots
from common.app.auditing import Audit, Look, asked, unanswered

BINARY = "cinder-volume"


class CinderAuditor:
    """Implements `common.app.auditing.Auditor`."""

    async def audit(self, config: CinderConfig, look: Look) -> Audit:
        reports, faults = await asked(look.speaking(BINARY), self._inventory(config, look))
        volumes, orphans, secrets = await audited_rows(look.database, look.is_old)
        snapshots = await audited_snapshots(look.database, look.is_old)
        facts = Facts(
            volumes=volumes, snapshots=snapshots, orphans=orphans, secrets=secrets, backends=look.hosts(BINARY), reports=reports
        )
        counted = {"volumes": len(volumes), "snapshots": len(snapshots), "backends": len(reports)}
        return Audit((*unanswered(BINARY, faults), *audit(facts)), counted)

    async def reconcile(self, config: CinderConfig, look: Look) -> list[str]:
        client = BackendInventory.over(look.rpc, exchange=config.common.control_exchange)
        done, faults = await asked(look.speaking(BINARY), lambda host: client.on(host).reconcile(look.ctx))
        return [f"{host}: {line}" for host, lines in sorted(done.items()) for line in lines] + [
            f"{host}: could not mend anything: {fault}" for host, fault in sorted(faults.items())
        ]

    def _inventory(self, config: CinderConfig, look: Look) -> Callable[[str], Awaitable[BackendReport]]:
        client = BackendInventory.over(look.rpc, exchange=config.common.control_exchange)
        return lambda host: client.on(host).inventory(look.ctx)
