"""The bus under both, with the real oslo.messaging: lost queues and connections, several hosts, TLS, and one topic served by both
(rows 12, 23, and 26 to 28 of the table in test_matrix; oslo-wire 5.2 and 5.6).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiormq
import pytest

from common.base.errors import Unavailable
from common.rpc.dead_letters import DeadLetters
from common.testing.servers import RabbitServer, free_port
from common.transport.url import open_transport
from nova_lite.config import load_nova
from tests.compat.sides import (
    CLOCK,
    CTX,
    OPTIONS,
    WAIT_S,
    OsloAPI,
    OsloPeer,
    OursAPI,
    Raw,
    Us,
    client_of_ours,
    opened,
    serving_ours,
)
from tests.conformance.transport.test_rabbit import Relay
from tests.conformance.transport.test_rabbit_tls import TlsRabbit

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(120, func_only=True)]


class SharedAPI(OursAPI, Protocol, topic="shared", version="6.5", exchange="nova"):
    """What both kinds of servers offer on one topic."""


def vhost(url: str) -> str:
    return url.rpartition("/")[2]


@asynccontextmanager
async def calls_in_flight(oslo: OsloPeer, us: Us, key: str) -> AsyncIterator[None]:
    """An oslo caller waits for our server, and our caller for oslo's; both get their answers after the block."""
    theirs = asyncio.create_task(oslo.call("ours", "hold", key=f"{key} theirs"))
    ours = asyncio.create_task(us.oslo.hold(CTX, key=f"{key} ours"))
    async with asyncio.timeout(WAIT_S):
        assert await us.service.began.get() == f"{key} theirs"
    await oslo.seen(f"{key} ours")
    yield
    us.service.gate.set()
    await oslo.ask("release", key=f"{key} ours")
    assert await ours == f"{key} ours"
    assert (await theirs).get("result") == f"{key} theirs"


# -- 23, 28: what is lost is made anew ------------------------------------------------------------------------------------


async def test_row_23_replies_wait_for_a_reply_queue_that_its_caller_makes_anew(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    async with calls_in_flight(oslo, us, "23"):
        theirs = (await oslo.ask("reply_queue"))["result"]
        for queue in (theirs, us.rpc._reply_queue.name):
            assert isinstance(await raw.channel.queue_delete(queue, if_unused=False), aiormq.spec.Queue.DeleteOk)
    assert await us.oslo.which(CTX) == "6.5"
    assert (await oslo.call("ours", "which"))["result"] == "6.5"


async def test_row_28_calls_in_flight_survive_that_the_broker_closes_every_connection(
    oslo: OsloPeer, us: Us, rabbit_server: RabbitServer
) -> None:
    listed = await asyncio.to_thread(rabbit_server.ctl, "list_connections", "vhost", "timeout")
    rows = [line.split("\t") for line in listed.splitlines()]
    beats = {timeout for name, timeout in rows if name == vhost(oslo.url) and timeout}
    assert beats == {"60"}, "both want a sign of life from the broker every 60 s"
    async with calls_in_flight(oslo, us, "28"):
        await asyncio.to_thread(rabbit_server.ctl, "close_all_connections", "-p", vhost(oslo.url), "test")
    assert await us.oslo.which(CTX) == "6.5"
    assert (await oslo.call("ours", "which"))["result"] == "6.5"
    await us.oslo.everywhere().note(CTX, word="28 all")
    assert len(await oslo.seen("28 all")) == 1


# -- 12, 26, 27: connections ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def relayed(url: str) -> AsyncIterator[tuple[Relay, str]]:
    relay = Relay()
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay, relay.before(url)
    finally:
        server.close()
        relay.cut()
        await server.wait_closed()


async def test_row_12_a_cast_made_while_the_broker_is_away_is_sent_when_it_is_back(oslo: OsloPeer) -> None:
    async with relayed(oslo.url) as (relay, url), client_of_ours(url) as rpc:
        theirs = OsloAPI.over(rpc)
        assert await theirs.which(CTX) == "6.5"
        relay.cut()
        with pytest.raises(Unavailable):
            await theirs.within(0.3).note(CTX, word="12 never")
        sending = asyncio.create_task(theirs.note(CTX, word="12"))
        asking = asyncio.create_task(theirs.which(CTX))
        await asyncio.sleep(0)
        assert not sending.done()
        relay.resume()
        assert await asking == "6.5"
        await sending
        assert len(await oslo.seen("12")) == 1
    assert not [each for each in oslo.told() if each["word"] == "12 never"]


async def test_row_26_a_url_whose_first_host_is_dead_serves_both(oslo: OsloPeer) -> None:
    before, _, alive = oslo.url.rpartition("@")
    url = f"{before}@127.0.0.1:{free_port()},guest:guest@{alive}"
    await oslo.ask("serve", topic="hosts", server="oslo1", url=url)
    async with serving_ours(url, topic="hosts", server="ours1") as us:
        assert (await OsloAPI.over(us.rpc).on("oslo1", topic="hosts").echo(CTX, x=1))["at"] == "hosts.oslo1"
        found = await oslo.call("hosts", "echo", url=url, prepare={"server": "ours1"}, x=1)
        assert found["result"]["at"] == "hosts.ours1"


async def test_row_27_over_tls_with_a_certificate_for_a_password_both_serve_each_other(oslo: OsloPeer, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    with await asyncio.to_thread(TlsRabbit, folder) as server:
        place = f"localhost:{server.tls_port}/%2F"
        files = f"ssl=true&ssl_ca_file={folder}/ca.pem"
        external = f"&rabbit_login_method=EXTERNAL&ssl_cert_file={folder}/client.pem&ssl_key_file={folder}/client.key"
        for number, url in enumerate(
            (f"rabbit://guest:guest@{place}?{files}&rabbit_login_method=PLAIN", f"rabbit://{place}?{files}{external}")
        ):
            conf = tmp_path / f"{number}.conf"
            conf.write_text(f"[DEFAULT]\ntransport_url = {url}\n")
            bus = load_nova([conf]).common.bus
            transport = await open_transport(bus.url, clock=CLOCK, connection_name="ours", rabbit=bus.rabbit)
            served = await oslo.ask("serve", topic=f"tls{number}", server="oslo1", url=url)
            assert "result" in served, served
            async with serving_ours(url, topic=f"tls{number}", server="ours1", transport=transport) as us:
                there = OsloAPI.over(us.rpc).on("oslo1", topic=f"tls{number}")
                assert (await there.echo(CTX, x=number))["x"] == number
                found = await oslo.call(f"tls{number}", "echo", url=url, prepare={"server": "ours1"}, x=number)
                assert found.get("result", found)["x"] == number


# -- one topic, served by both --------------------------------------------------------------------------------------------


async def spread(asks: list[Any]) -> set[str]:
    """Who answered."""
    answers = [await each for each in asks]
    return {(answer.get("result") or answer)["at"] for answer in answers}


async def test_an_oslo_server_and_ours_share_a_topic_its_calls_and_its_fanouts(oslo: OsloPeer) -> None:
    await oslo.ask("serve", topic="shared", server="oslo1")
    both = {"shared.oslo1", "shared.ours1"}
    async with serving_ours(oslo.url, topic="shared", server="ours1") as us:
        shared = SharedAPI.over(us.rpc)
        assert await spread([shared.echo(CTX, x=n) for n in range(10)]) == both
        assert await spread([oslo.call("shared", "echo", x=n) for n in range(10)]) == both
        await shared.everywhere().note(CTX, word="shared ours")
        await oslo.cast("shared", "note", prepare={"fanout": True}, word="shared oslo")
        async with asyncio.timeout(WAIT_S):
            assert {await us.service.notes.get(), await us.service.notes.get()} == {"shared ours", "shared oslo"}
        assert [len(await oslo.seen(word)) for word in ("shared ours", "shared oslo")] == [1, 1]
    assert await spread([oslo.call("shared", "echo", x=n) for n in range(4)]) == {"shared.oslo1"}, "ours left in order"


async def test_a_caller_of_ours_that_leaves_disturbs_no_oslo_server_and_ends_its_own_kind(oslo: OsloPeer, raw: Raw) -> None:
    await oslo.ask("serve", topic="left", server="oslo2")
    await raw.declare("spies.left", "left_cancel", kind="fanout")
    async with serving_ours(oslo.url, topic="left", server="ours2") as us:
        left = SharedAPI.over(us.rpc)
        at_oslo = asyncio.create_task(left.on("oslo2", topic="left").hold(CTX, key="left oslo"))
        at_ours = asyncio.create_task(left.on("ours2", topic="left").hold(CTX, key="left ours"))
        await oslo.seen("left oslo")
        async with asyncio.timeout(WAIT_S):
            assert await us.service.began.get() == "left ours"
        for task in (at_oslo, at_ours):
            task.cancel()
        await asyncio.wait([at_oslo, at_ours])
        assert at_oslo.cancelled()
        assert at_ours.cancelled()
        assert [opened((await raw.take("spies.left")).body)["method"] for _ in range(2)] == ["cancel", "cancel"]
        async with asyncio.timeout(WAIT_S):
            assert await us.service.ended.get() == "left ours"
        await oslo.ask("release", key="left oslo")
        # A late reply to a call that nobody waits for any more harms nobody; and oslo's server was told nothing.
        assert (await left.on("oslo2", topic="left").echo(CTX, x=1))["at"] == "left.oslo2"
        assert (await oslo.call("left", "echo", prepare={"server": "ours2"}, x=1))["result"]["at"] == "left.ours2"
        assert "Attempted method: cancel" not in oslo.log()


async def test_our_dead_letters_reach_no_oslo_peer_of_the_topic(oslo: OsloPeer) -> None:
    await oslo.ask("serve", topic="buried", server="oslo3")
    async with serving_ours(oslo.url, topic="buried", server="ours3") as us:
        await oslo.cast("buried", "bury", prepare={"server": "ours3"})
        letters = DeadLetters(us.transport, "ours", OPTIONS)
        async with asyncio.timeout(WAIT_S):
            while not (kept := await letters.all(9)):
                await CLOCK.sleep(0.02)
        assert [(each.queue, each.error) for each in kept] == [("buried.ours3", "NoSuchMethod")]
        assert (await oslo.call("buried", "echo", prepare={"server": "oslo3"}, x=1))["result"]["at"] == "buried.oslo3"
        await us.transport.delete_queue(letters.queue)
        assert "bury" not in oslo.log()
