"""What a process does to stay the owner of its flows, and to become that of flows that nobody has any more."""

from common.base.clock import Clock
from common.base.errors import Fault
from common.base.limits import LEASE_RENEW_S
from common.db.lease import Leases
from common.db.outbox import Outbox
from common.db.owner import Owner
from common.flow.relay import Relay
from common.flow.runner import Runner
from common.host.lean import structlog

_log = structlog.get_logger(__name__)


class Keeper:
    """`begin` before the process takes its first request, then `run`, which never ends, and `end` when its last flow has."""

    def __init__(self, leases: Leases, runner: Runner, outbox: Outbox, relay: Relay, *, owner: Owner, clock: Clock) -> None:
        self._leases = leases
        self._runner = runner
        self._outbox = outbox
        self._relay = relay
        self._owner = owner
        self._clock = clock

    async def begin(self) -> None:
        """The process has its lease, and what its predecessors left is in line before anything new. Raises what the database does."""
        await self._look()

    async def run(self) -> None:
        """Renew the lease and look for what was left behind, for ever. A database that is away is waited for."""
        is_failing = False
        while True:
            await self._clock.sleep(LEASE_RENEW_S)
            try:
                await self._look()
                is_failing = False
            except Fault as exc:
                if not is_failing:
                    _log.warning("lease not renewed", owner=str(self._owner), reason=str(exc))
                is_failing = True

    async def end(self) -> None:
        """Others may take over at once what is not done."""
        try:
            await self._leases.release(str(self._owner))
        except Fault as exc:
            _log.info("lease not released: it runs out by itself", owner=str(self._owner), reason=str(exc))

    async def sweep(self) -> None:
        """Forget leases of processes that are long gone. Raises what the database does."""
        await self._leases.sweep()

    async def _look(self) -> None:
        await self._leases.renew(str(self._owner))
        taken, letters = await self._runner.adopt(), await self._outbox.adopt()
        if taken or letters:
            _log.info("work of others carried on", flows=taken, letters=letters)
        self._relay.poke()
