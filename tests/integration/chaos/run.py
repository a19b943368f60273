"""Runs cases one after another on a running cloud: strike in the middle of an operation, wait until all is quiet, and look at everything.

What is judged: the volume and the server are in a final state within QUIET_S, what the client was told fits what came of it, the doctor
finds nothing, and the bytes that the guest wrote are still there.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cinder_lite.contract import Volume, VolumeAPI, VolumeStatus
from common.base.context import Context
from common.base.errors import Fault, Invalid, Unavailable
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from nova_lite.contract import ComputeAPI, GuestProbe, Instance
from tests.integration.chaos.cases import CINDER, COMPUTE, VOLUME, Case
from tests.support.processes import Cloud

QUIET_S = 60.0
STOPPED_S = 18.0
"""Longer than a lease."""
REACH_S = 20.0
_FINAL = {VolumeStatus.AVAILABLE, VolumeStatus.IN_USE}
_BLOCK = 4096
_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case."""

    case: Case
    reached: bool
    told: str
    status: str
    quiet_s: float
    wrong: tuple[str, ...] = ()


@dataclass
class Bench:
    """A cloud with one server and one volume, and what it is asked about after each case."""

    cloud: Cloud
    rpc: RpcClient
    failpoints: Path
    strikes: dict[str, Callable[[], Awaitable[None]]]
    audit: Callable[[], Awaitable[list[str]]]
    host: str = "cmp1"
    outcomes: list[Outcome] = field(default_factory=list)
    server: Instance | None = None
    volume: Volume | None = None
    _pattern: int = 0

    @property
    def ctx(self) -> Context:
        return Context(user_id="chaos", project_id="p1")

    @property
    def servers(self) -> ComputeAPI:
        return ComputeAPI.over(self.rpc)

    @property
    def volumes(self) -> VolumeAPI:
        return VolumeAPI.over(self.rpc)

    @property
    def _server(self) -> Instance:
        assert self.server is not None
        return self.server

    @property
    def _uuid(self) -> str:
        return self._server.uuid

    @property
    def _volume_id(self) -> str:
        assert self.volume is not None
        return self.volume.id

    async def set_up(self) -> None:
        """A server that runs, and a volume that is available."""
        self.server = await self.servers.create(self.ctx, name="chaos", flavor="m1.tiny", host=self.host)
        self.volume = await self.volumes.create(self.ctx, size=1, name="chaos", volume_type="gold")
        async with asyncio.timeout(QUIET_S):
            while (await self.servers.get(self.ctx, server="chaos")).vm_state != "active":
                await _CLOCK.sleep(0.1)
        await self._quiet()

    async def tear_down(self) -> None:
        """The machine outlives its services, so it is deleted; a cloud that cannot do even that is left with a word."""
        try:
            await self.servers.delete(self.ctx, server=self._uuid)
            async with asyncio.timeout(QUIET_S):
                while await self.servers.get_all(self.ctx):
                    await _CLOCK.sleep(0.2)
        except (Fault, TimeoutError) as exc:
            print(f"the machine of the chaos run is left behind: {exc}")

    async def run(self, cases: Sequence[Case], tell: Callable[[str], None]) -> list[Outcome]:
        """Every case; the state that the next one needs is made in between without a fault."""
        for case in cases:
            await self._prepare(case.verb)
            outcome = await self._one(case)
            self.outcomes.append(outcome)
            flags = "" if outcome.reached else " (not reached)"
            wrong = "".join(f"\n      WRONG: {each}" for each in outcome.wrong)
            tell(f"{case}: {outcome.told} -> {outcome.status}, quiet after {outcome.quiet_s:.1f} s{flags}{wrong}")
        return self.outcomes

    async def _prepare(self, verb: str) -> None:
        status = (await self._quiet())[0]
        if verb == "attach" and status is VolumeStatus.IN_USE:
            await self._ask("detach")
            await self._quiet(VolumeStatus.AVAILABLE)
        if verb == "detach" and status is VolumeStatus.AVAILABLE:
            await self._ask("attach")
            await self._quiet(VolumeStatus.IN_USE)
        if verb == "detach":
            self._pattern = self._pattern % 250 + 1
            await self._probe.write_pattern(
                self.ctx, instance=self._server, volume_id=self._volume_id, pattern=self._pattern, offset=0, length=_BLOCK
            )

    async def _one(self, case: Case) -> Outcome:
        assert case.place is not None
        armed = self.failpoints / f"{case.process}.{self._host_of(case.process)}:{case.place}"
        armed.write_text("kill" if case.fault == "kill" else "stop")
        asking = asyncio.ensure_future(self._ask(case.verb))
        reached = await self._until_reached(armed, asking)
        if reached and case.fault != "kill":
            await self._strike(case)
        told = await asking
        armed.unlink(missing_ok=True)
        armed.with_name(f"{armed.name}.reached").unlink(missing_ok=True)
        started = time.monotonic()
        wrong: list[str] = []
        try:
            status, quiet_s = await self._quiet()
        except TimeoutError:
            found = await self.volumes.get(self.ctx, volume_id=self._volume_id)
            return Outcome(case, reached, told, found.status, time.monotonic() - started, ("no final state in time",))
        wrong += self._check_told(case, told, status)
        wrong += await self.audit()
        if status is VolumeStatus.IN_USE and self._pattern:
            wrong += await self._check_bytes()
        return Outcome(case, reached, told, status, quiet_s, tuple(wrong))

    async def _strike(self, case: Case) -> None:
        """The process stands still at the place; then the fault, then it goes on."""
        pid = self.cloud.children.pids[self._child_of(case.process)]
        if case.fault == "stop":
            await _CLOCK.sleep(STOPPED_S)
        else:
            await self.strikes[case.fault]()
        os.kill(pid, signal.SIGCONT)

    async def _until_reached(self, armed: Path, asking: "asyncio.Future[str]") -> bool:
        """False when the operation ended without coming past the place."""
        deadline = time.monotonic() + REACH_S
        while _is_there(armed):
            if time.monotonic() > deadline:
                return False
            await _CLOCK.sleep(0.02)
            if asking.done() and (await self._is_final()):
                return not _is_there(armed)
        return True

    async def _is_final(self) -> bool:
        try:
            found = await self.volumes.get(self.ctx, volume_id=self._volume_id)
        except Fault:
            return False
        return found.status in _FINAL

    async def _ask(self, verb: str) -> str:
        """What the client was told: "accepted", "unknown" when it cannot know, else the refusal."""
        try:
            if verb == "attach":
                await self.servers.within(50).attach_volume(self.ctx, server=self._uuid, volume=self._volume_id)
            else:
                await self.servers.within(50).detach_volume(self.ctx, server=self._uuid, volume=self._volume_id)
        except Unavailable:
            return "unknown"
        except Invalid as exc:
            return "unknown" if exc.retryable else f"refused: {exc}"
        except Fault as exc:
            return f"failed: {exc}"
        return "accepted"

    async def _quiet(self, wanted: VolumeStatus | None = None) -> tuple[VolumeStatus, float]:
        """The volume's state once nobody is at work on it; the seconds that took. Raises TimeoutError."""
        started = time.monotonic()
        async with asyncio.timeout(QUIET_S):
            while True:
                try:
                    found = await self.volumes.within(5).get(self.ctx, volume_id=self._volume_id)
                    disks = await self.servers.within(5).volume_attachments(self.ctx, server=self._uuid)
                except Fault:
                    await _CLOCK.sleep(0.2)
                    continue
                is_attached = found.status is VolumeStatus.IN_USE
                if found.status in (_FINAL if wanted is None else {wanted}) and bool(disks) is is_attached:
                    return found.status, time.monotonic() - started
                await _CLOCK.sleep(0.1)

    @staticmethod
    def _check_told(case: Case, told: str, status: VolumeStatus) -> list[str]:
        """An accepted order may still be compensated, with a fault on the server; a refused one never comes true later."""
        done = VolumeStatus.IN_USE if case.verb == "attach" else VolumeStatus.AVAILABLE
        if told.startswith(("refused", "failed")) and status is done:
            return [f"the client was told {told!r}, and it was done all the same"]
        return []

    async def _check_bytes(self) -> list[str]:
        same = await self._probe.verify_pattern(
            self.ctx, instance=self._server, volume_id=self._volume_id, pattern=self._pattern, offset=0, length=_BLOCK
        )
        return [] if same else ["the bytes that the guest wrote before are not there"]

    @property
    def _probe(self) -> GuestProbe:
        return GuestProbe.over(self.rpc).on(self.host)

    def _host_of(self, process: str) -> str:
        return {COMPUTE: self.host, VOLUME: "store1", CINDER: "store1"}.get(process, os.uname().nodename)

    def _child_of(self, process: str) -> str:
        return f"{process}-{self.host}" if process == COMPUTE else process


def _is_there(file: Path) -> bool:
    return file.exists()
