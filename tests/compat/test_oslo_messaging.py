"""The real oslo.messaging on the other side of a real RabbitMQ: it cannot tell us from its own kind, nor we it from ours."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from common.base.context import Context
from common.base.errors import NotFound
from common.host.clock import SystemClock
from common.rpc.client import RpcClient
from common.rpc.contract import Contract, call, cast
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.url import open_transport
from common.wire.failure import NoSuchMethod, RemoteError, UnsupportedVersion

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(90, func_only=True)]
CLOCK = SystemClock()
OPTIONS = RpcOptions(control_exchange="nova")


class InstanceNotFound(NotFound):
    """Instance {instance_id} could not be found."""

    wire = ("tests.compat.exceptions", "InstanceNotFound")


class OursAPI(Contract, Protocol, topic="ours", version="1.0"):
    @call()
    async def greet(self, ctx: Context, *, name: str) -> str: ...

    @call()
    async def fail(self, ctx: Context) -> None: ...

    @cast()
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Ours(OursAPI):
    def __init__(self) -> None:
        self.notes: asyncio.Queue[str] = asyncio.Queue()

    async def greet(self, ctx: Context, *, name: str) -> str:
        return f"{name} of {ctx.user_id}"

    async def fail(self, ctx: Context) -> None:
        raise InstanceNotFound(instance_id="i-1")

    async def note(self, ctx: Context, *, word: str) -> None:
        self.notes.put_nowait(word)


class TheirsAPI(Contract, Protocol, topic="oslo", version="6.5", exchange="nova"):
    @call(since="6.0")
    async def echo(self, ctx: Context, *, x: Any) -> dict[str, Any]: ...

    @call()
    async def fail(self, ctx: Context) -> None: ...

    @call()
    async def nope(self, ctx: Context) -> None: ...

    @cast()
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Newer(Contract, Protocol, topic="oslo", version="7.0", exchange="nova"):
    @call()
    async def echo(self, ctx: Context, *, x: Any) -> dict[str, Any]: ...


@asynccontextmanager
async def peer(kind: str, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("peer.py")), kind, url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        found: dict[str, Any] = json.loads(await process.stdout.readline())
    return found


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RpcClient]:
    transport = await open_transport(url, clock=CLOCK, connection_name="test")
    try:
        async with client(transport, clock=CLOCK, options=OPTIONS) as rpc:
            yield rpc
    finally:
        await transport.close()


async def test_an_oslo_client_calls_casts_and_catches_ours(rabbit_url: str) -> None:
    transport = await open_transport(rabbit_url, clock=CLOCK, connection_name="test")
    ours = Ours()
    async with (
        serving(transport, Serving([ours], "host1"), clock=CLOCK, options=OPTIONS, grace_s=5),
        peer("client", rabbit_url) as process,
    ):
        assert await line(process) == {"result": "oslo of u1"}
        assert await line(process) == {"result": "one of u1"}
        failed = await line(process)
        assert failed["raised"][:2] == ["InstanceNotFound_Remote", "InstanceNotFound"]
        assert failed["said"] == "Instance i-1 could not be found."
        assert (await line(process))["remote"] == "NoSuchMethod"
        assert (await line(process))["remote"] == "UnsupportedVersion"
        wrong = await line(process)
        assert wrong["raised"][0] == "TypeError"
        assert "it has no argument nam; name is missing" in wrong["said"]
        assert await line(process) == await line(process) == {"result": None}
        async with asyncio.timeout(20):
            assert {await ours.notes.get(), await ours.notes.get()} == {"cast", "fanout"}
    await transport.close()


async def test_ours_calls_casts_and_catches_an_oslo_server(rabbit_url: str) -> None:
    async with peer("server", rabbit_url) as process, connected(rabbit_url) as rpc:
        assert await line(process) == {"ready": True}
        theirs = TheirsAPI.over(rpc)
        ctx = Context(user_id="u1")
        assert await theirs.echo(ctx, x="é") == {"x": "é", "user": "u1"}
        assert await theirs.on("host1").echo(ctx, x=[1, None]) == {"x": [1, None], "user": "u1"}
        with pytest.raises(RemoteError, match="Remote error: ValueError bad"):
            await theirs.fail(ctx)
        with pytest.raises(NoSuchMethod):
            await theirs.nope(ctx)
        with pytest.raises(UnsupportedVersion):
            await Newer.over(rpc).echo(ctx, x=1)
        await theirs.note(ctx, word="cast")
        await theirs.everywhere().note(ctx, word="fanout")
        seen = [await line(process), await line(process)]
        assert sorted(note["note"] for note in seen) == ["cast", "fanout"]
