"""Two clients attach one volume at the same instant: exactly one wins, the other is told that it is taken."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

from common.base.errors import Conflict, Invalid
from common.testing.entropy import seeded
from common.testing.loop import VirtualLoop, run
from tests.simulation.cases import before
from tests.simulation.history import VIRTUAL_S_MAX, Weather
from tests.simulation.requests import Answer
from tests.simulation.scenario import Asked, Client, StopHere
from tests.simulation.world import World


def run_races(seed: int | str, *, rounds: int, tell: Callable[[str], None] | None = None) -> list[tuple[str, str]]:
    """What was violated in so many races, one after another in one world whose acts take as long as the seed says."""
    past = before("attach", 0)
    assert past is not None
    loop = VirtualLoop(begin_s=past.time_s, virtual_s_max=VIRTUAL_S_MAX)
    with seeded(f"race {seed}") as chance:
        world = World(loop, chance, tell=tell, past=past, fate=Weather(Random(f"weather {seed}"), budget=0))

        async def races(client: Client) -> None:
            with suppress(StopHere):
                for _ in range(rounds):
                    await _race(client)

        async def main() -> None:
            try:
                await world.up()
                await world.with_client(lambda process, rpc: races(Client(world, process, rpc)))
            finally:
                world.over()

        try:
            run(loop, main())
        finally:
            world.close()
    return world.violations


async def _race(client: Client) -> None:
    world, volume = client.world, client.volume("v1") or ""
    servers = [client.server(name) or "" for name in ("s1", "s2")]
    gap_s = world.chance.choice((0.0, 0.0, world.chance.uniform(0, 0.02)))

    async def attach(server: str, delay_s: float) -> Asked:
        await asyncio.sleep(delay_s)
        return await client.ask(f"attach to {server}", _attaching(client, server, volume))

    order = world.chance.sample(servers, 2)
    asked = dict(zip(order, await asyncio.gather(attach(order[0], 0.0), attach(order[1], gap_s)), strict=True))
    await client.settled()
    client.check()
    won = [server for server, each in asked.items() if each.answer is Answer.DONE]
    lost = [each for each in asked.values() if each.answer is Answer.REFUSED and isinstance(each.value, Invalid | Conflict)]
    held = [server for server in servers if client.is_attached(volume, server)]
    if not (len(won) == len(lost) == 1 and held == won):
        world.violated("S1", f"of two attachments {len(won)} were accepted, {len(lost)} refused, {len(held)} made: {asked}")
        raise StopHere
    await client.achieve(
        "detach",
        lambda: client.servers.detach_volume(client.ctx, server=held[0], volume=volume),
        lambda: client.volume("v1", "available") is not None,
    )


def _attaching(client: Client, server: str, volume: str) -> Callable[[], Awaitable[object]]:
    return lambda: client.servers.attach_volume(client.ctx, server=server, volume=volume)
