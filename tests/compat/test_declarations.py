"""With the same options, the real oslo.messaging and ours declare the same at RabbitMQ, and serve one topic together."""

import asyncio
import json
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self
from uuid import uuid4

import pytest

from common.base.context import Context
from common.host.clock import SystemClock
from common.rpc.contract import Contract, call, cast
from common.rpc.session import Serving, client, serving
from common.testing.servers import RabbitServer
from common.transport.url import open_transport
from nova_lite.config import load_nova

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(120, func_only=True)]
CLOCK = SystemClock()
WAIT_S = 60

OPTIONS = {
    "defaults": "",
    "durable": "amqp_durable_queues = true",
    "durable and auto-delete": "amqp_durable_queues = true\namqp_auto_delete = true",
    "quorum": "rabbit_quorum_queue = true\nrabbit_quorum_delivery_limit = 3",
    "transient quorum": "rabbit_quorum_queue = true\nrabbit_quorum_delivery_limit = 3\nrabbit_transient_quorum_queue = true\n"
    "rabbit_transient_queues_ttl = 60",
    "stream": "rabbit_quorum_queue = true\nrabbit_transient_quorum_queue = true\nrabbit_transient_queues_ttl = 60\n"
    "rabbit_stream_fanout = true\nrabbit_qos_prefetch_count = 10",
    "quorum in memory": "rabbit_quorum_queue = true\nrabbit_quorum_max_memory_length = 100\nrabbit_quorum_max_memory_bytes = 40000",
    "mirrored": "rabbit_ha_queues = true\nenable_cancel_on_failover = true",
    "queue manager": "use_queue_manager = true\nhostname = {host}\nprocessname = {peer}",
    "without a ttl": "rabbit_transient_queues_ttl = 0",
}
"""The table "Measured declares" of oslo-wire 2.2, and more."""

INTEGERS = {"byte", "short", "signedint", "long", "unsignedbyte", "unsignedshort", "unsignedint"}
"""py-amqp and our driver write one number in different widths; RabbitMQ compares the value."""


class SharedAPI(Contract, Protocol, topic="shared", version="1.0"):
    @call()
    async def echo(self, ctx: Context, *, x: Any) -> dict[str, Any]: ...

    @cast()
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Shared(SharedAPI):
    def __init__(self) -> None:
        self.notes: asyncio.Queue[str] = asyncio.Queue()

    async def echo(self, ctx: Context, *, x: Any) -> dict[str, Any]:
        return {"ours": x}

    async def note(self, ctx: Context, *, word: str) -> None:
        self.notes.put_nowait(word)


@dataclass(frozen=True)
class Where:
    """A virtual host, and a folder for configuration files. `host`: a host name that nobody else has in /dev/shm."""

    server: RabbitServer
    url: str
    folder: Path
    host: str

    @property
    def vhost(self) -> str:
        return self.url.rpartition("/")[2]

    def conf(self, peer: str, options: str) -> Path:
        file = self.folder / f"{peer}-{uuid4().hex[:6]}.conf"
        rabbit = options.format(host=self.host, peer=peer)
        file.write_text(f"[DEFAULT]\ntransport_url = {self.url}\n[oslo_messaging_rabbit]\n{rabbit}\n")
        return file

    async def listed(self, what: str, *columns: str) -> list[dict[str, Any]]:
        text = await asyncio.to_thread(self.server.ctl, f"list_{what}", "-p", self.vhost, *columns, "--formatter", "json")
        found: list[dict[str, Any]] = json.loads(text)
        return found


@pytest.fixture
def where(rabbit_server: RabbitServer, rabbit_url: str, tmp_path: Path) -> Iterator[Where]:
    host = f"h{uuid4().hex[:8]}"
    yield Where(rabbit_server, rabbit_url, tmp_path, host)
    for file in Path("/dev/shm").glob(f"{host}_*"):
        file.unlink()


class Peer:
    """The real oslo.messaging."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def run(cls, where: Where, options: str, *, exchange: str, topic: str, server: str = "oslo") -> AsyncIterator[Self]:
        program = str(Path(__file__).with_name("declaring_peer.py"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, program, str(where.conf("oslo", options)), exchange, topic, server,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": os.defpath, "OSLO_LOCK_PATH": str(where.folder)},
            # oslo's queue manager reads when the leader of its process group began, who may have ended before the tests.
            start_new_session=True,
        )  # fmt: skip
        try:
            yield cls(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    async def line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_S):
            found: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return found

    async def ask(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(order)}\n".encode())
        return await self.line()


@dataclass(frozen=True)
class Ours:
    """A service of ours with a client; its topic is `shared`."""

    shared: Shared
    api: SharedAPI


@asynccontextmanager
async def ours(where: Where, options: str, *, exchange: str, server: str = "ours") -> AsyncIterator[Ours]:
    bus = load_nova([where.conf("ours", options)]).common.bus
    transport = await open_transport(bus.url, clock=CLOCK, connection_name="ours", rabbit=bus.rabbit)
    shared = Shared()
    try:
        async with (
            serving(transport, Serving([shared], server, exchange=exchange), clock=CLOCK, options=bus.rpc, grace_s=5),
            client(transport, clock=CLOCK, options=bus.rpc) as rpc,
        ):
            yield Ours(shared, SharedAPI.over(rpc, exchange=exchange))
    finally:
        await transport.close()


def is_our_own(row: dict[str, Any]) -> bool:
    """True for what no oslo.messaging peer has or touches: the way by which servers hear of callers that left."""
    names = [row.get(column, "") for column in ("name", "source_name", "queue_name", "destination_name")]
    return any(re.match(r"shared_cancel(_|$)", name) for name in names)


def alike(row: dict[str, Any], where: Where) -> str:
    """What must be the same for both, with what may differ put out of sight."""
    arguments = sorted([name, "int" if kind in INTEGERS else kind, value] for name, kind, value in row.get("arguments", ()))
    text = json.dumps({**row, "arguments": arguments}, sort_keys=True)
    for pattern, word in (
        (rf"{where.host}:(oslo|ours):[0-9]+", "<host>:<process>:<n>"),
        (r"[0-9a-f]{32}", "<uuid>"),
        (r'"x(oslo|ours)"', '"<exchange>"'),
        (r'"(oslo|shared)(?=[._"])', '"<topic>'),
        (r", \[\"connection\", .*", ""),
    ):
        text = re.sub(pattern, word, text)
    return text


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_oslo_and_ours_declare_the_same_with_the_same_options(where: Where, options: str) -> None:
    async with (
        Peer.run(where, options, exchange="xoslo", topic="oslo", server="host1") as peer,
        ours(where, options, exchange="xours", server="host1") as us,
    ):
        assert await peer.line() == {"ready": True}
        assert await peer.ask(server=None, x=1) == {"result": {"oslo": 1}}
        assert await us.api.echo(Context(), x=1) == {"ours": 1}
        await us.api.everywhere().note(Context(), word="all")
        async with asyncio.timeout(WAIT_S):
            assert await us.shared.notes.get() == "all"
        queues = await where.listed("queues", "name", "durable", "auto_delete", "exclusive", "arguments")
        exchanges = await where.listed("exchanges", "name", "type", "durable", "auto_delete", "internal", "arguments")
        bindings = await where.listed("bindings", "source_name", "destination_name", "routing_key", "arguments")
        consumers = await where.listed("consumers", "queue_name", "ack_required", "arguments")
    declared = [row for row in exchanges if row["name"] and not row["name"].startswith("amq.")]
    tables = [[row for row in rows if not is_our_own(row)] for rows in (queues, declared, bindings, consumers)]
    assert [len(rows) for rows in tables[:2]] == [8, 4]
    for rows in tables:
        once = [row for row, times in Counter(alike(row, where) for row in rows).items() if times % 2]
        assert not once, "\n".join(sorted(once))


@pytest.mark.parametrize("first", ["oslo", "ours"])
@pytest.mark.parametrize("options", ["defaults", "durable", "quorum", "quorum in memory", "transient quorum", "stream"])
async def test_both_serve_one_topic_and_call_each_other(where: Where, options: str, first: str) -> None:
    await together(where, OPTIONS[options], OPTIONS[options], first)


async def together(where: Where, theirs: str, mine: str, first: str) -> None:
    """Both start, in this order, and each calls the other's server and reaches both by a fanout."""
    peer_runs = Peer.run(where, theirs, exchange="nova", topic="shared")
    ours_run = ours(where, mine, exchange="nova")
    if first == "oslo":
        async with peer_runs as peer:
            assert await peer.line() == {"ready": True}
            async with ours_run as us:
                await talk(peer, us)
    else:
        async with ours_run as us, peer_runs as peer:
            assert await peer.line() == {"ready": True}
            await talk(peer, us)


async def talk(peer: Peer, us: Ours) -> None:
    assert await us.api.on("oslo").echo(Context(), x="é") == {"oslo": "é"}
    assert await peer.ask(server="ours", x=[1, None]) == {"result": {"ours": [1, None]}}
    await us.api.everywhere().note(Context(), word="from ours")
    assert await peer.line() == {"note": "from ours"}
    answers = [await peer.ask(fanout="from oslo"), await peer.line()]
    assert {"sent": True} in answers
    assert {"note": "from oslo"} in answers
    async with asyncio.timeout(WAIT_S):
        assert [await us.shared.notes.get(), await us.shared.notes.get()] == ["from ours", "from oslo"]


@pytest.mark.parametrize(
    ("theirs", "mine", "first"), [("durable", "defaults", "oslo"), ("durable", "defaults", "ours"), ("defaults", "durable", "oslo")]
)
async def test_peers_of_different_durability_serve_one_topic(where: Where, theirs: str, mine: str, first: str) -> None:
    await together(where, OPTIONS[theirs], OPTIONS[mine], first)


async def test_a_transient_oslo_peer_gives_up_before_a_durable_exchange_whoever_declared_it(where: Where) -> None:
    refused = "inequivalent arg 'durable' for exchange 'nova' in vhost .*: received 'false' but current is 'true'"
    async with Peer.run(where, OPTIONS["durable"], exchange="nova", topic="shared") as peer:
        assert await peer.line() == {"ready": True}
        async with Peer.run(where, OPTIONS["defaults"], exchange="nova", topic="other") as second:
            assert re.search(refused, (await second.line())["failed"])
        async with ours(where, OPTIONS["defaults"], exchange="nova") as us:
            assert await us.api.on("ours").echo(Context(), x=1) == {"ours": 1}


@pytest.mark.parametrize(("theirs", "mine"), [("gzip", "bz2"), ("bzip2", "gzip")])
async def test_compressed_requests_replies_and_fanouts_go_both_ways(where: Where, theirs: str, mine: str) -> None:
    await together(where, f"kombu_compression = {theirs}", f"kombu_compression = {mine}", "ours")


@pytest.mark.parametrize("method", ["gzip", "bz2"])
async def test_oslo_unpacks_our_compressed_requests_and_replies(where: Where, method: str) -> None:
    async with (
        ours(where, f"kombu_compression = {method}", exchange="nova") as us,
        Peer.run(where, "", exchange="nova", topic="shared") as peer,
    ):
        assert await peer.line() == {"ready": True}
        text = "é" * 10_000
        assert await peer.ask(server="ours", x=text) == {"result": {"ours": text}}
        assert await us.api.on("oslo").echo(Context(), x=text) == {"oslo": text}
