"""The proof in the guest: what it wrote with a checksum, another guest on another host reads, whatever died in between.

Two volumes change places between two servers on two hosts, round after round. Each range that was ever written holds the volume's own id and
the round that wrote it; every range is read again after each attachment and each fault. A range that holds anything else is a byte of
another volume, or one that was lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

from cinder_lite.contract import Volume, VolumeStatus
from nova_lite.contract import Instance, RebootType
from tests.integration.datapath.backends import BACKENDS
from tests.integration.datapath.hosts import HYPERVISORS
from tests.integration.datapath.stack import Stack, stack
from tests.support.guests import filled

SLOTS = 3
"""Ranges of one MiB that the rounds write in turn; the one behind them is never written and holds zeros."""
Tell = Callable[[str], None]


@dataclass
class Datapath:
    """One backend with one hypervisor.

    written    volume id -> slot -> what it holds
    attach_s   seconds from each request for an attachment to a guest that sees the disk
    """

    stack: Stack
    tell: Tell
    servers: list[Instance] = field(default_factory=list)
    volumes: list[Volume] = field(default_factory=list)
    written: dict[str, dict[int, str]] = field(default_factory=dict)
    attach_s: list[float] = field(default_factory=list)

    async def set_up(self) -> None:
        async with asyncio.TaskGroup() as group:
            boots = [group.create_task(self.stack.boot(f"on-{name}", name)) for name in self.stack.hosts]
        self.servers = [boot.result() for boot in boots]
        for server in self.servers:
            assert server.status == "ACTIVE", server.fault
        self.volumes = [await self.stack.create(name) for name in ("one", "other")]
        self.written = {volume.id: {} for volume in self.volumes}

    async def round(self, number: int) -> None:
        """Attach, look, write, let something die, look, detach. The next round has the volumes change places."""
        faults = self.faults()
        name, strike = faults[number % len(faults)]
        volumes = self.volumes if number % 2 == 0 else self.volumes[::-1]
        pairs = list(zip(self.servers, volumes, strict=True))
        begun = monotonic()
        await self._each(pairs, self._attached)
        await self._each(pairs, lambda server, volume: self._write(server, volume, number))
        await strike()
        await self.stack.up(name)
        await self._each(pairs, self._look)
        await self._each(pairs, self.stack.detach)
        self.tell(f"round {number}: {name}: every range is its volume's own ({monotonic() - begun:.1f} s)")

    def faults(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        """What happens between writing and reading, round by round."""
        found: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("nothing", self._nothing),
            ("a machine is killed", self._kill_machine),
        ]
        found += [(f"{name} is killed", kill) for name, kill in self.stack.backend.daemons.items()]
        found += [("a guest does not let go", self._keep_disk), ("a server is rebooted", self._reboot)]
        found += [(f"{name} is begun anew", service.restart) for name, service in self.stack.services.items()]
        return found

    async def _each(self, pairs: list[tuple[Instance, Volume]], act: Callable[[Instance, Volume], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for server, volume in pairs:
                group.create_task(_awaited(act(server, volume)))

    async def _attached(self, server: Instance, volume: Volume) -> None:
        async with self.stack.hosts[server.host or ""].console(server.uuid) as guest:
            begun = monotonic()
            await self.stack.attach(server, volume)
            await guest.disk(volume.id)
            self.attach_s.append(monotonic() - begun)
        await self._look(server, volume)

    async def _write(self, server: Instance, volume: Volume, number: int) -> None:
        slot, text = number % SLOTS, f"{volume.id} round {number}"
        async with self.stack.hosts[server.host or ""].console(server.uuid) as guest:
            await guest.write(volume.id, text, at_mib=slot)
        self.written[volume.id][slot] = text

    async def _look(self, server: Instance, volume: Volume) -> None:
        zeros = dict.fromkeys(range(SLOTS + 1))
        async with self.stack.hosts[server.host or ""].console(server.uuid) as guest:
            for slot, text in {**zeros, **self.written[volume.id]}.items():
                found = await guest.sum(volume.id, at_mib=slot)
                assert found == filled(text), (
                    f"{server.display_name} reads {found} in slot {slot} of {volume.label}, wanted {text!r}"
                )

    async def _nothing(self) -> None: ...

    async def _kill_machine(self) -> None:
        """The server is rebooted hard: its volume is plugged again, into a guest that knows nothing."""
        server = self.servers[0]
        await self.stack.hosts[server.host or ""].kill(server.uuid)
        await self._rebooted(server, RebootType.HARD)

    async def _keep_disk(self) -> None:
        """Its volume is in-use again then, and the disk as good as before; the round's own detachment is the second try."""
        server = self.servers[0]
        host = self.stack.hosts[server.host or ""]
        (mapping,) = await self.stack.servers.volume_attachments(self.stack.ctx, server=server.uuid)
        await host.pause(server.uuid)
        try:
            await self.stack.servers.detach_volume(self.stack.ctx, server=server.uuid, volume=mapping.volume_id or "")
            found = await self.stack.settled(mapping.volume_id or "")
        finally:
            await host.go_on(server.uuid)
        assert found.status is VolumeStatus.IN_USE, found.status
        fault = (await self.stack.servers.get(self.stack.ctx, server=server.uuid)).fault
        assert fault is not None
        assert "did not leave the machine" in fault.message

    async def _reboot(self) -> None:
        await self._rebooted(self.servers[1], RebootType.SOFT)

    async def _rebooted(self, server: Instance, kind: RebootType) -> None:
        await self.stack.servers.reboot(self.stack.ctx, server=server.uuid, reboot_type=kind)
        found = await self.stack.settled_server(server.uuid)
        assert found.status == "ACTIVE", found.fault


async def _awaited(act: Awaitable[None]) -> None:
    await act


async def prove(folder: Path, *, backend: str, hypervisor: str, rounds: int, tell: Tell) -> None:
    """So many rounds on one combination. Raises AssertionError with what was seen and what was wanted."""
    async with AsyncExitStack() as exits:
        store = await exits.enter_async_context(BACKENDS[backend](folder))
        hosts = await exits.enter_async_context(HYPERVISORS[hypervisor](folder, store.keyrings))
        running = await exits.enter_async_context(stack(folder, store, hosts))
        path = Datapath(running, tell)
        await path.set_up()
        for number in range(rounds):
            await path.round(number)
        tell(f"a guest sees its disk {median(path.attach_s):.2f} s after the request (median of {len(path.attach_s)})")
