"""What one client does in a case: an operation of the article, with a second try where a fault was in the way, then the judge."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from cinder_lite.contract import VolumeAPI
from common.base.context import Context
from common.base.errors import Fault
from common.rpc.client import RpcClient
from common.testing.process import Process
from nova_lite.contract import ComputeAPI, GuestProbe
from tests.simulation.invariants import is_quiet, judge, unheld
from tests.simulation.requests import Answer
from tests.simulation.world import RECONCILED_S, T_S, World

TRIES = 3
CALL_S_MAX = 61.0
"""Longest call: oslo's rpc_response_timeout, and a second."""

_PATTERN, _SECTOR = 0x5A, 7
_LOOK_S = 0.5
_AFTERWARDS_S = 3.0


class Outcome(StrEnum):
    """What an operation came to once the fault was over, before anybody asked again."""

    DONE = auto()
    UNDONE = auto()


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that has ended."""

    answer: Answer
    value: Any = None


class StopHere(Exception):
    """The world is not as it must be; going on would only blur that."""


class Client:
    """Asks, waits until nobody is at work, and looks."""

    def __init__(self, world: World, process: Process, rpc: RpcClient) -> None:
        self.world = world
        self.volumes = VolumeAPI.over(rpc)
        self.servers = ComputeAPI.over(rpc)
        self._rpc = rpc
        self._process = process
        self._judged = 0
        world.look = unheld

    @property
    def ctx(self) -> Context:
        return Context(user_id="tester", project_id="p1")

    def guest(self, host: str) -> GuestProbe:
        return GuestProbe.over(self._rpc).on(host)

    async def ask(self, what: str, call: Callable[[], Awaitable[Any]]) -> Asked:
        """The answer; a call that does not end in time is a violation of L4."""
        self.world.tell(f"-> {what}")
        begun = self.world.loop.time()
        try:
            found = Asked(Answer.DONE, await call())
        except Fault as exc:
            found = Asked(Answer.UNKNOWN if exc.retryable else Answer.REFUSED, exc)
        took_s = self.world.loop.time() - begun
        self.world.tell(f"<- {what}: {found.answer} {found.value if found.answer is not Answer.DONE else ''} after {took_s:.2f} s")
        self.world.judge()
        if took_s > CALL_S_MAX:
            self.world.violated("L4", f"{what} took {took_s:.1f} s")
        return found

    async def quiet(self) -> None:
        """Nobody is at work, or T_S have passed since the last fault."""
        world = self.world
        struck = world.fate.struck
        await asyncio.sleep(0.01)
        while not (world.loop.time() > world.fate.busy_until and is_quiet(world)):
            if world.fate.struck > struck:
                struck, self._since = world.fate.struck, world.loop.time()
            if world.loop.time() > max(world.fate.busy_until, self._since) + T_S:
                return
            await asyncio.sleep(_LOOK_S)

    async def settled(self) -> None:
        """Nobody is at work; after a fault the invariants are judged. Raises StopHere when one does not hold."""
        world = self.world
        self._since = world.loop.time()
        await self.quiet()
        if world.fate.struck > self._judged:
            # A fault that strikes in that time has its own.
            while world.fate.struck > self._judged:
                self._judged = world.fate.struck
                await asyncio.sleep(RECONCILED_S if "target" in world.fate.faults else _AFTERWARDS_S)
                await self.quiet()
            self.check()
        if world.violations:
            raise StopHere

    def check(self) -> None:
        for invariant, what in judge(self.world):
            self.world.violated(invariant, what)

    async def achieve(self, what: str, call: Callable[[], Awaitable[Any]], is_done: Callable[[], bool]) -> Asked:
        """Ask until it is done, TRIES times at most; a definite refusal that is followed by the effect is a violation of S9."""
        for number in range(TRIES):
            asked = await self.ask(what, call)
            await self.settled()
            self.world.outcome = self.world.outcome or (Outcome.DONE if is_done() else Outcome.UNDONE)
            if self.world.outcome is Outcome.UNDONE and self.world.fate.only_kills:
                self.world.violated("S4", f"{what} was taken back, though a process died and nothing else was wrong: {asked.value}")
                raise StopHere
            if is_done():
                if asked.answer is Answer.REFUSED and number == 0:
                    self.world.violated("S9", f"{what} was refused, and happened: {asked.value}")
                return asked
            if self.lost():
                await self.bury()
                raise StopHere
        self.world.violated("S4", f"{what} could not be done in {TRIES} tries; the last answer: {asked.value}")
        raise StopHere

    async def bury(self) -> None:
        """Servers whose machines died by themselves are in error and hold nothing, as `check` sees; they can be deleted."""
        while (uuid := next(iter(self.lost()), None)) is not None:
            for _ in range(TRIES):
                await self.ask(f"delete {uuid}, which died", lambda: self.servers.delete(self.ctx, server=uuid or ""))
                await self.settled()
                if uuid not in self.lost():
                    break
            else:
                self.world.violated("S4", f"{uuid} died, and could not be deleted in {TRIES} tries")
                raise StopHere

    def lost(self) -> list[str]:
        """Servers whose machines died by themselves, and are not there again."""
        reality = self.world.reality
        gone = reality.lost - {machine.uuid for machine in reality.machines()}
        rows = self.world.database.rows("SELECT uuid FROM instances WHERE deleted = 0 ORDER BY id")
        return [row["uuid"] for row in rows if row["uuid"] in gone]

    # -- what is there ------------------------------------------------------------------------------------------------

    def volume(self, name: str, *statuses: str) -> str | None:
        """The id of the volume of that name, if there is one in one of these states (none given: any)."""
        found = self.world.database.rows(
            "SELECT id, status FROM volumes WHERE NOT deleted AND display_name = ? ORDER BY created_at DESC", name
        )
        return next((row["id"] for row in found if not statuses or row["status"] in statuses), None)

    def size(self, name: str) -> int:
        """GiB of the volume of that name by its row."""
        found = self.world.database.rows("SELECT size FROM volumes WHERE NOT deleted AND display_name = ?", name)
        return int(found[0]["size"]) if found else 0

    def snapshot(self, name: str, *statuses: str) -> str | None:
        """The id of a snapshot of that name, if there is one in one of these states (none given: any)."""
        found = self.world.database.rows("SELECT id, status FROM snapshots WHERE NOT deleted AND display_name = ?", name)
        return next((row["id"] for row in found if not statuses or row["status"] in statuses), None)

    def server(self, name: str, *states: str) -> str | None:
        found = self.world.database.rows(
            "SELECT uuid, vm_state FROM instances WHERE deleted = 0 AND display_name = ? ORDER BY id DESC", name
        )
        return next((row["uuid"] for row in found if not states or row["vm_state"] in states), None)

    def is_attached(self, volume_id: str, uuid: str) -> bool:
        return bool(
            self.world.database.rows(
                "SELECT id FROM volume_attachment WHERE NOT deleted AND volume_id = ? AND instance_uuid = ? AND attach_status = 'attached'",
                volume_id,
                uuid,
            )
        )


Stage = Callable[[Client], Awaitable[None]]


async def create(client: Client) -> None:
    await client.achieve(
        "create v1",
        lambda: client.volumes.create(client.ctx, size=1, name="v1"),
        lambda: client.volume("v1", "available") is not None,
    )


async def boot(client: Client) -> None:
    await client.achieve(
        "boot s1",
        lambda: client.servers.create(client.ctx, name="s1", flavor="m1.tiny", host="cmp1"),
        lambda: client.server("s1", "active") is not None,
    )


async def boot_another(client: Client) -> None:
    await client.achieve(
        "boot s2",
        lambda: client.servers.create(client.ctx, name="s2", flavor="m1.tiny", host="cmp2"),
        lambda: client.server("s2", "active") is not None,
    )


async def attach(client: Client) -> None:
    await _attach(client, "s1")
    await _touch(client, "s1", is_written=True)


async def extend(client: Client) -> None:
    """Under its server."""
    volume = client.volume("v1") or ""
    await client.achieve(
        "extend v1",
        lambda: client.volumes.extend(client.ctx, volume_id=volume, new_size=2),
        lambda: client.size("v1") == 2 and client.volume("v1", "in-use", "available") is not None,
    )


async def create_snapshot(client: Client) -> None:
    """Of a volume in use."""
    volume = client.volume("v1") or ""
    await client.achieve(
        "take p1 of v1",
        lambda: client.volumes.create_snapshot(client.ctx, volume_id=volume, name="p1"),
        lambda: client.snapshot("p1", "available") is not None,
    )


async def delete_snapshot(client: Client) -> None:
    snapshot = client.snapshot("p1") or ""
    await client.achieve(
        "delete p1",
        lambda: client.volumes.delete_snapshot(client.ctx, snapshot_id=snapshot),
        lambda: client.snapshot("p1") is None,
    )


async def detach(client: Client) -> None:
    volume, server = client.volume("v1") or "", client.server("s1") or ""
    await client.achieve(
        "detach v1 from s1",
        lambda: client.servers.detach_volume(client.ctx, server=server, volume=volume),
        lambda: not client.is_attached(volume, server) and client.volume("v1", "available") is not None,
    )


async def attach_elsewhere(client: Client) -> None:
    await _attach(client, "s2")
    await _touch(client, "s2", is_written=False)


async def delete_server(client: Client) -> None:
    """With its volume attached."""
    server = client.server("s2") or ""
    await client.achieve(
        "delete s2",
        lambda: client.servers.delete(client.ctx, server=server),
        lambda: client.server("s2") is None and client.volume("v1", "available") is not None,
    )


async def delete_volume(client: Client) -> None:
    volume = client.volume("v1") or ""
    await client.achieve(
        "delete v1", lambda: client.volumes.delete(client.ctx, volume_id=volume), lambda: client.volume("v1") is None
    )


STAGES: dict[str, Stage] = {
    stage.__name__: stage
    for stage in (
        create,
        boot,
        boot_another,
        attach,
        extend,
        create_snapshot,
        delete_snapshot,
        detach,
        attach_elsewhere,
        delete_server,
        delete_volume,
    )
}
"""The article, in order: each begins with what the one before it left."""

SINGLE = ("create", "boot", "attach", "detach", "delete_server", "delete_volume")
"""The stages in which faults are tried one by one; the others are the same again."""

ADDED = ("extend", "create_snapshot", "delete_snapshot")
"""Stages that the article does not have. The command tries their single faults as well; the tests one in five, since their flows are like the others."""


async def staged(client: Client, stage: Stage) -> None:
    """One stage, and a look at the end."""
    with suppress(StopHere):
        await stage(client)
        client.check()
        await client.bury()


async def _attach(client: Client, name: str) -> None:
    volume, server = client.volume("v1") or "", client.server(name) or ""
    await client.achieve(
        f"attach v1 to {name}",
        lambda: client.servers.attach_volume(client.ctx, server=server, volume=volume),
        lambda: client.is_attached(volume, server),
    )


async def _touch(client: Client, name: str, *, is_written: bool) -> None:
    """S12: what one machine wrote, another reads."""
    volume, server = client.volume("v1") or "", client.server(name) or ""
    reality = client.world.reality
    if server in client.lost():
        return
    found = [disk for disk in reality.disks() if (disk.volume_id, disk.machine.uuid) == (volume, server)]
    stored = reality.bytes_of(found[0]) if found else None
    if stored is None:
        client.world.violated("S12", f"{name} cannot reach the bytes of its volume")
    elif is_written:
        stored.sectors[_SECTOR] = _PATTERN
    elif stored.sectors.get(_SECTOR) != _PATTERN:
        client.world.violated("S12", f"{name} reads {stored.sectors.get(_SECTOR)} where {_PATTERN} was written")
