"""What breaks behind the services' backs is whole again by itself within T_S of virtual time, at the intervals that are shipped."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from common.rpc.client import RpcClient
from common.testing.loop import VirtualLoop, run
from common.testing.process import Process
from tests.simulation.invariants import judge
from tests.simulation.scenario import Client, attach, boot, boot_another, create
from tests.simulation.world import STORAGE_HOST, T_S, World


def _machines_die(world: World) -> None:
    for machine in world.reality.machines():
        world.reality.kill_machine(machine.uuid)


def _target_forgets(world: World) -> None:
    world.reality.restart_target()


def _target_forgets_and_its_service_dies(world: World) -> None:
    world.reality.restart_target()
    world.kill(f"cinder-volume.{STORAGE_HOST}")


@pytest.mark.parametrize("breaks", [_machines_die, _target_forgets, _target_forgets_and_its_service_dies])
def test_it_is_whole_again_in_time(breaks: Callable[[World], None]) -> None:
    loop = VirtualLoop()
    world = World(loop, Random(1))

    async def work(process: Process, rpc: RpcClient) -> None:
        client = Client(world, process, rpc)
        for stage in (create, boot, boot_another, attach):
            await stage(client)
        await asyncio.sleep(30)
        assert judge(world) == []
        breaks(world)
        assert judge(world) != [] or world.reality.died
        await asyncio.sleep(T_S)

    async def main() -> None:
        try:
            await world.up()
            await world.with_client(work)
            assert (judge(world), world.reality.died, world.violations) == ([], set(), [])
        finally:
            world.over()

    try:
        run(loop, main())
    finally:
        world.close()
