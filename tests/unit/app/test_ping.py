"""`lite rpc ping`."""

import asyncio
from typing import Any, Protocol

import pytest

from common.app.commands import UsersSender
from common.app.rpc_command import Pings
from common.base.context import Context
from common.base.errors import Timeout
from common.rpc.client import NobodyListens
from common.rpc.contract import Contract, Route, call
from common.rpc.options import RpcOptions
from tests.unit.rpc.net import CLOCK, net


class HereAPI(Contract, Protocol, topic="here", version="3.2"):
    @call()
    async def look(self, ctx: Context) -> str: ...


class Here(HereAPI):
    async def look(self, ctx: Context) -> str:
        return "here"


class Spaced(Contract, Protocol, topic="spaced", version="2.0", namespace="of-its-own"):
    @call()
    async def look(self, ctx: Context) -> str: ...


class SpacedServer(Spaced):
    async def look(self, ctx: Context) -> str:
        return "here"


@pytest.mark.parametrize(
    ("endpoint", "is_enabled", "answer"),
    [
        (Here(), True, "answers pong"),
        (Here(), False, "answers; rpc_ping_enabled is off there"),
        (SpacedServer(), False, "answers; rpc_ping_enabled is off there"),
    ],
)
async def test_a_server_that_refuses_the_question_lives_too(endpoint: Any, is_enabled: bool, answer: str) -> None:
    async with net(options=RpcOptions(ping_enabled=is_enabled)) as made:
        await made.serve(endpoint)
        pings = Pings()
        topic = endpoint.__rpc_route__.topic
        line = await pings.ping(UsersSender(made.client(), bus="test"), Route(f"{topic}.h1", "1.0"), CLOCK)
    assert line.startswith(f"{topic}.h1 {answer}  (")
    assert line.endswith(" ms)")
    assert (pings.sent, len(pings.round_trips_ms)) == (1, 1)
    assert pings.summary.startswith("1 sent, 1 answered; ")


async def test_nobody_and_silence_are_told_apart() -> None:
    async with net() as made:
        await made.serve(Here())
        sender = UsersSender(made.client(), bus="test")
        pings = Pings()
        with pytest.raises(NobodyListens):
            await pings.ping(sender, Route("here.h2", "1.0"), CLOCK)

    class Silent:
        async def call(self, *_: object) -> Any:
            await asyncio.sleep(0)
            raise Timeout(what="ping", timeout_s=0.5)

        async def cast(self, *_: object) -> None: ...

    pings = Pings()
    assert await pings.ping(Silent(), Route("here", "1.0"), CLOCK) == "here: no reply within 0.5 s"
    assert pings.summary == "1 sent, 0 answered"
