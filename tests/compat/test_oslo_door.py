"""A service in oslo.messaging's own words, asyncio underneath, with the real oslo.messaging on the other side of a real RabbitMQ."""

import asyncio
from typing import Any

import pytest

from common.base.context import Context
from common.base.errors import NotFound
from common.rpc import RpcOptions, connect
from common.rpc.oslo import (
    NoSuchMethod,
    RemoteError,
    RPCClient,
    RPCVersionCapError,
    Target,
    UnsupportedVersion,
    expected_exceptions,
    get_rpc_server,
)
from tests.compat.test_oslo_messaging import line, peer

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(90, func_only=True)]
OPTIONS = RpcOptions(control_exchange="nova")


class InstanceMissing(NotFound):
    """Instance {instance_id} could not be found."""

    wire = ("tests.compat.exceptions", "InstanceNotFound")


class Ours:
    target = Target(version="1.0")

    def __init__(self) -> None:
        self.notes: asyncio.Queue[str] = asyncio.Queue()

    async def greet(self, ctxt: Context, name: str) -> str:
        return f"{name} of {ctxt.user_id}"

    @expected_exceptions(InstanceMissing)
    async def fail(self, ctxt: Context) -> None:
        raise InstanceMissing(instance_id="i-1")

    async def note(self, ctxt: Context, word: str) -> None:
        self.notes.put_nowait(word)


async def test_an_oslo_client_cannot_tell_plain_endpoints_from_its_own_kind(rabbit_url: str) -> None:
    ours = Ours()
    target = Target(exchange="nova", topic="ours", server="host1")
    async with (
        connect(rabbit_url, options=OPTIONS) as rpc,
        get_rpc_server(rpc.transport, target, [ours], options=OPTIONS),
        peer("client", rabbit_url) as process,
    ):
        assert await line(process) == {"result": "oslo of u1"}
        assert await line(process) == {"result": "one of u1"}
        failed = await line(process)
        assert failed["raised"][:2] == ["InstanceNotFound_Remote", "InstanceNotFound"]
        assert (await line(process))["remote"] == "NoSuchMethod"
        assert (await line(process))["remote"] == "UnsupportedVersion"
        assert (await line(process))["raised"][0] == "TypeError"
        assert await line(process) == await line(process) == {"result": None}
        async with asyncio.timeout(20):
            assert {await ours.notes.get(), await ours.notes.get()} == {"cast", "fanout"}


async def test_a_client_of_oslos_form_asks_an_oslo_server(rabbit_url: str) -> None:
    ctxt = {"user_id": "u1"}
    async with peer("server", rabbit_url) as process, connect(rabbit_url, options=OPTIONS) as rpc:
        assert await line(process) == {"ready": True}
        theirs = RPCClient(rpc, Target(exchange="nova", topic="oslo", version="6.0"), timeout=20, version_cap="6.5")
        value: Any = {"é": [1, None]}
        assert await theirs.call(ctxt, "echo", x=value) == {"x": value, "user": "u1"}
        assert await theirs.prepare(server="host1", version="6.5").call(ctxt, "echo", x=2) == {"x": 2, "user": "u1"}
        with pytest.raises(RemoteError, match="Remote error: ValueError bad"):
            await theirs.call(ctxt, "fail")
        with pytest.raises(NoSuchMethod):
            await theirs.call(ctxt, "nope")
        with pytest.raises(UnsupportedVersion):
            await theirs.prepare(version="7.0", version_cap=None).call(ctxt, "echo", x=1)
        with pytest.raises(RPCVersionCapError):
            await theirs.prepare(version="6.6").call(ctxt, "echo", x=1)
        await theirs.cast(ctxt, "note", word="cast")
        await theirs.prepare(fanout=True).cast(ctxt, "note", word="fanout")
        seen = [await line(process), await line(process)]
        assert sorted(note["note"] for note in seen) == ["cast", "fanout"]
