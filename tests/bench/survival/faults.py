"""What goes wrong in the middle of a run. Each fault returns when what was away is back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from common.testing.servers import RabbitServer
from tests.bench.survival.job import REQUEST_QUEUE
from tests.bench.survival.relay import Relay

STALL_S = 6.0
"""Three heartbeats of the two seconds that peers are told for this fault."""
BLOCKED_S = 4.0
NO_SERVER_S = 2.0
AWAY_S = 12.0
"""Longer than PUBLISH_TIMEOUT_S, after which a server gives up a reply."""
WATERMARK = "0.4"
"""RabbitMQ's default vm_memory_high_watermark, which its test configuration leaves alone."""


class Scene(Protocol):
    """What a fault can lay hands on."""

    @property
    def broker(self) -> RabbitServer: ...
    @property
    def vhost(self) -> str: ...
    @property
    def relay(self) -> Relay | None: ...
    async def kill_server(self) -> None:
        """kill -9 of the first server process."""
        ...

    async def start_server(self) -> None:
        """Returns when one more server takes requests."""
        ...


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail.

    servers        server processes at the start
    durable        request queues are durable
    heartbeat_s    what peers are told
    relayed        peers reach the broker through a relay
    """

    name: str
    meaning: str
    strike: Callable[[Scene], Awaitable[None]]
    servers: int = 1
    durable: bool = False
    heartbeat_s: int = 60
    relayed: bool = False


async def _close_connections(scene: Scene) -> None:
    await _ctl(scene, "close_all_connections", "--vhost", scene.vhost, "survival bench")


async def _kill_broker(scene: Scene) -> None:
    await asyncio.to_thread(scene.broker.kill)
    await asyncio.to_thread(scene.broker.start)


async def _kill_broker_for_long(scene: Scene) -> None:
    await asyncio.to_thread(scene.broker.kill)
    await asyncio.sleep(AWAY_S)  # the length of the outage
    await asyncio.to_thread(scene.broker.start)


async def _delete_queue(scene: Scene) -> None:
    await _ctl(scene, "delete_queue", "--vhost", scene.vhost, REQUEST_QUEUE)


async def _crash_queue(scene: Scene) -> None:
    """The queue's process dies, as with its node in a cluster: the broker sends basic.cancel, and has the queue again at once."""
    name = f'rabbit_misc:r(<<"{scene.vhost}">>, queue, <<"{REQUEST_QUEUE}">>)'
    await _ctl(scene, "eval", f"{{ok, Q}} = rabbit_amqqueue:lookup({name}), exit(amqqueue:get_pid(Q), kill).")


async def _stall(scene: Scene) -> None:
    assert scene.relay is not None
    scene.relay.stall()
    await asyncio.sleep(STALL_S)  # the length of the outage
    scene.relay.heal()


async def _block(scene: Scene) -> None:
    await _ctl(scene, "set_vm_memory_high_watermark", "0.00001")
    try:
        await asyncio.sleep(BLOCKED_S)  # the length of the outage
    finally:
        await _ctl(scene, "set_vm_memory_high_watermark", WATERMARK)


async def _server_killed(scene: Scene) -> None:
    await scene.kill_server()


async def _server_killed_and_restarted(scene: Scene) -> None:
    await scene.kill_server()
    await asyncio.sleep(NO_SERVER_S)  # the length of the outage
    await scene.start_server()


async def _ctl(scene: Scene, *words: str) -> None:
    await asyncio.to_thread(scene.broker.ctl, *words)


FAULTS = {
    fault.name: fault
    for fault in (
        Fault("connections-closed", "the broker closes all connections", _close_connections),
        Fault("broker-killed", "kill -9 of the broker, started again; transient queues", _kill_broker),
        Fault("broker-killed-durable", "the same, durable request queues", _kill_broker, durable=True),
        Fault("broker-away", f"the same, {AWAY_S:g} s without one", _kill_broker_for_long, durable=True),
        Fault("queue-deleted", "the request queue is deleted, with what waits in it", _delete_queue),
        Fault("consumer-cancelled", "the queue's process dies: basic.cancel", _crash_queue),
        Fault(
            "stalled",
            f"TCP goes silent for {STALL_S:g} s and old connections for ever; heartbeat 2 s",
            _stall,
            heartbeat_s=2,
            relayed=True,
        ),
        Fault("blocked", f"the broker is out of memory for {BLOCKED_S:g} s", _block),
        Fault("server-killed", "kill -9 of one of two servers", _server_killed, servers=2),
        Fault("server-restarted", f"kill -9 of the only server, {NO_SERVER_S:g} s without one", _server_killed_and_restarted),
    )
}
