"""What an operator sees of flows in a running cloud, and what his words do to them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from cinder_lite.contract import VolumeStatus
from cinder_lite.service.about import SERVICE as CINDER
from common.app.exits import Exit
from common.app.flow_command import left_behind, listed, resumed, watched
from common.app.flow_view import OPEN, view
from common.app.following import follow
from common.app.where_command import as_json, screen
from common.app.whereabouts import NotKnown, Sources, Whereabouts, where
from common.base.errors import Ambiguous, Broken
from common.db.hosts import Hosts
from common.db.journal import FlowState, Journal
from common.transport.port import Binding, BusUnavailable, Exchange, Queue, Transport
from nova_lite.contract import Instance
from nova_lite.errors import VolumeBDMNotFound, VolumeConnectionFailed
from nova_lite.flows.detach_volume import DetachVolume
from nova_lite.service.about import SERVICE as NOVA
from tests.support.world import HOST, World

SAGAS = {saga.name: saga for service in (NOVA, CINDER) for saga in service.sagas}
TOPICS = sorted({contract.__rpc_route__.topic for service in (NOVA, CINDER) for contract in service.contracts})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detach that met a final failure behind its pivot is parked at once, and not after thirty tries."""
    monkeypatch.setattr(DetachVolume, "saga", replace(DetachVolume.saga, patience=1))


async def seen(world: World, word: str, *, bus_is_away: bool = False) -> Whereabouts:
    """What `lite where` finds."""

    @asynccontextmanager
    async def open_bus() -> AsyncIterator[Transport]:
        if bus_is_away:
            raise BusUnavailable(url="rabbit://u:***@h/v", reason="connection refused")
        yield world.rpc.transport

    return await where(
        word,
        Sources(
            database=world.database,
            clock=world.clock,
            finds=[NOVA.find, CINDER.find],
            sagas=SAGAS,
            topics=TOPICS,
            open_bus=open_bus,
        ),
    )


async def held(world: World, word: str, *, kind: str, step: str | None = None, has_error: bool = False) -> dict[str, Any]:
    """As `lite where --json` has it, once it is held so."""

    async def look() -> dict[str, Any]:
        try:
            return as_json(await seen(world, word))
        except NotKnown:
            return {"held_by": {"kind": None, "step": None}}

    return await follow(
        look,
        is_final=lambda found: (
            found["held_by"]["kind"] == kind
            and step in {None, found["held_by"]["step"]}
            and (not has_error or found["held_by"]["error"] is not None)
        ),
        shown=lambda found: str(found["held_by"]),
        tell=lambda _: None,
        clock=world.clock,
        what=word,
        timeout_s=20,
    )


async def shown(world: World, word: str) -> str:
    return "\n".join(f"{name} {text}" for name, text in screen(await seen(world, word)) if text is not None)


async def parked_detach(world: World) -> tuple[str, str, Instance]:
    """(flow, volume, server) of a detach that stopped behind its pivot."""
    server, volume = await world.boot(), await world.create()
    await world.attach(server, volume)
    await world.settled(volume.id)
    await world.ended_flows()
    world.connector.script.fail_next("disconnect_volume", Broken(what="the host", reason="iscsiadm at a://u:hunter2@h"))
    await world.detach(server, volume)
    await held(world, volume.id, kind="parked")
    [flow] = await listed(world.database, world.clock, states=[FlowState.PARKED])
    return flow.row.id, volume.id, server


async def test_a_parked_flow_is_listed_shown_resumed_and_completes(world: World) -> None:
    flow_id, volume_id, _ = await parked_detach(world)
    [listed_] = await listed(world.database, world.clock, states=OPEN, subject=volume_id)
    assert (listed_.row.id, listed_.row.state, listed_.step) == (flow_id, FlowState.PARKED, "disconnect_volume failed")
    found, entries = await view(world.database, world.clock, listed_.row, SAGAS)
    assert "lite flow resume" in (found.next or "")
    assert "hunter2" not in str(found.error)
    assert [str(entry.mark) for entry in entries[-2:]] == ["begun", "failed"]
    row = await resumed(world.database, world.clock, flow_id[:-4])
    assert await watched(world.database, world.clock, row, wait_s=20) is Exit.OK
    assert (await world.settled(volume_id)).status is VolumeStatus.AVAILABLE
    assert world.connector.connected == set()


async def test_a_flow_that_stops_again_is_parked_again(world: World) -> None:
    flow_id, volume_id, _ = await parked_detach(world)
    world.connector.script.fail_next("disconnect_volume", Broken(what="the host", reason="still"))
    row = await resumed(world.database, world.clock, flow_id)
    assert await watched(world.database, world.clock, row, wait_s=20) is Exit.REFUSED
    assert (await held(world, volume_id, kind="parked"))["flows"][0]["error"].endswith("the host is broken: still")


async def test_an_abandoned_flow_stays_as_it_is_and_what_it_left_is_told(world: World) -> None:
    flow_id, volume_id, _ = await parked_detach(world)
    journal = Journal(world.database, world.clock)
    row = await journal.flow(flow_id)
    assert row is not None
    told = left_behind(row, await journal.entries(flow_id), SAGAS["detach_volume"])
    assert [line.strip() for line in told[2:-1]] == [
        "disconnect_volume", "terminate_connection", "destroy_block_device_mapping", "detach",
    ]  # fmt: skip
    assert "hunter2" not in "".join(told)
    await journal.abandon(flow_id, "disk was burnt")
    found = as_json(await seen(world, volume_id))
    assert (found["held_by"]["kind"], found["held_by"]["error"]) == ("nobody", "disk was burnt")
    assert found["things"][0]["status"] == "detaching"
    assert await listed(world.database, world.clock, states=OPEN) == []


async def test_a_refused_request_is_known_by_its_id_with_the_reason(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    ctx = world.ctx
    with pytest.raises(VolumeBDMNotFound):
        await world.servers.detach_volume(ctx, server=server.uuid, volume=volume.id)
    told = await shown(world, ctx.request_id)
    assert re.search(
        rf"nobody holds it: request_detach refused \d s ago \(request {ctx.request_id}\): No volume Block Device", told
    )
    assert "boot of server" in await shown(world, server.uuid)
    assert (await world.doctor.audit()).violations == ()


async def test_a_request_in_flight_is_with_the_process_that_carries_it_out(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    gate = world.hypervisor.hold("attach_volume")
    ctx = world.ctx
    await world.servers.attach_volume(ctx, server=server.uuid, volume=volume.id)
    by_request = await held(world, ctx.request_id, kind="running", step="attach_volume begun")
    for found in (by_request, as_json(await seen(world, "volume-1")), as_json(await seen(world, f"server:{server.uuid}"))):
        holder = found["held_by"]
        assert (holder["hop"], holder["host"], holder["step"]) == ("nova-compute", HOST, "attach_volume begun")
        # nova-api's own flow may still be writing down that it has handed over.
        [flow] = [each for each in found["flows"] if each["saga"] == "attach_volume"]
        assert (flow["request_id"], flow["owner_lives"], flow["next"]) == (ctx.request_id, True, "attach")
        assert {each["subject"] for each in found["things"]} == {f"server:{server.uuid}", f"volume:{volume.id}"}
    text = await shown(world, "volume-1")
    assert f"nova-compute on {HOST} is at work on it, attach_volume of volume:{volume.id}: attach_volume begun, " in text
    assert "status attaching" in text
    assert len(text.splitlines()) < 24
    gate.set()
    await world.settled(volume.id)
    await world.ended_flows()


async def test_what_works_on_something_related_does_not_hold_it(world: World) -> None:
    server, one, two = await world.boot(), await world.create("one"), await world.create("two")
    await world.attach(server, one)
    await world.settled(one.id)
    gate = world.hypervisor.hold("attach_volume")
    await world.attach(server, two)
    await held(world, two.id, kind="running", step="attach_volume begun")
    found = as_json(await seen(world, "one"))
    assert found["held_by"]["kind"] == "nobody"
    assert found["held_by"]["text"].startswith(f"nobody holds it: attach_volume of volume:{one.id} completed")
    [flow] = as_json(await seen(world, "server-1"))["flows"]
    assert flow["subject"] == f"volume:{two.id}"
    gate.set()
    await world.settled(two.id)
    await world.ended_flows()


async def test_a_letter_without_a_queue_waits_in_the_outbox_and_says_why(world: World) -> None:
    await Hosts(world.database, world.clock).register(binary="nova-compute", host="cmp9", topic="compute", availability_zone="nova")
    ctx = world.ctx
    server = await world.servers.create(ctx, name="lost", flavor="m1.tiny", host="cmp9")
    for word in (ctx.request_id, "lost", server.uuid):
        found = await held(world, word, kind="outbox", has_error=True)
        assert (found["held_by"]["hop"], found["held_by"]["queue"]) == ("nova-api", "nova/compute.cmp9")
        [letter] = found["letters"]
        assert letter["attempts"] >= 1
        assert "Nobody listens" in letter["error"]
        assert found["last_flow"]["saga"] == "request_boot"
    text = await shown(world, "lost")
    assert f"it waits in the outbox of nova-api on {HOST} for nova/compute.cmp9" in text


async def test_what_waits_in_a_queue_that_nobody_takes_may_be_there(world: World) -> None:
    await Hosts(world.database, world.clock).register(binary="nova-compute", host="cmp9", topic="compute", availability_zone="nova")
    exchange = Exchange("nova", "topic")
    await world.rpc.transport.declare(Queue("compute.cmp9", bindings=(Binding(exchange, "compute.cmp9"),)))
    ctx = world.ctx
    await world.servers.create(ctx, name="lost", flavor="m1.tiny", host="cmp9")
    for word in (ctx.request_id, "lost"):
        found = await held(world, word, kind="queue")
        assert found["held_by"]["queue"] == "compute.cmp9"
        [queue] = found["queues"]
        assert (queue["ready"], queue["consumers"]) == (1, 0)
        assert queue["heard_at"] is not None
    assert "nobody consumes it: start the service; its process last gave a sign of life" in await shown(world, "lost")


async def test_a_parked_request_waits_for_a_person(world: World) -> None:
    flow_id, volume_id, server = await parked_detach(world)
    for word in (volume_id, "volume-1", server.uuid, "server-1"):
        found = as_json(await seen(world, word))
        assert (found["held_by"]["kind"], found["held_by"]["step"]) == ("parked", "disconnect_volume failed")
    text = await shown(world, "volume-1")
    assert f"lite flow resume {flow_id}" in text
    assert "hunter2" not in text
    assert "hunter2" not in str(found)


async def test_of_what_has_ended_the_last_flow_is_told(world: World) -> None:
    server, volume = await world.boot(), await world.create()
    ctx = world.ctx
    world.connector.script.fail_next("connect_volume", VolumeConnectionFailed(volume_id="v", reason="x"))
    await world.servers.attach_volume(ctx, server=server.uuid, volume=volume.id)
    await world.settled(volume.id)
    await world.ended_flows()
    for word in (ctx.request_id, volume.id):
        found = as_json(await seen(world, word))
        assert (found["held_by"]["kind"], found["flows"], found["letters"], found["dead_letters"]) == ("nobody", [], [], [])
        assert (found["last_flow"]["saga"], found["last_flow"]["state"]) == ("attach_volume", "compensated")
        assert " compensated " in found["held_by"]["text"]
    await world.volumes.delete(world.ctx, volume_id=volume.id)
    await world.volume_is_gone(volume.id)
    await world.ended_flows()
    gone = await held(world, volume.id, kind="nobody")
    assert (gone["things"][0]["status"], gone["last_flow"]["saga"]) == ("deleted", "delete_volume")
    with pytest.raises(NotKnown):
        await seen(world, "volume-1")


async def test_a_request_that_cannot_be_served_is_found_among_the_dead_letters(world: World) -> None:
    server = await world.boot()
    ctx = world.ctx
    await world.compute.build_and_run_instance(ctx, instance=Instance(uuid="", display_name="", vm_state="nonsense"))  # type: ignore[arg-type]
    found = await held(world, ctx.request_id, kind="dead letter")
    assert (found["held_by"]["queue"], found["dead_letters"][0]["method"]) == (f"compute.{HOST}", "build_and_run_instance")
    assert as_json(await seen(world, server.uuid))["held_by"]["kind"] == "nobody"


async def test_a_bus_that_is_away_is_a_line(world: World) -> None:
    server = await world.boot()
    await world.ended_flows()
    found = await seen(world, server.uuid, bus_is_away=True)
    assert ("bus", f"queues and dead letters are not known: {found.bus_error}") in list(screen(found))
    assert found.ended is not None


async def test_what_nobody_knows_or_two_bear_is_an_error(world: World) -> None:
    with pytest.raises(NotKnown, match="Nothing is known of req-nope: no server or volume"):
        await seen(world, "req-nope")
    server, volume = await world.boot("twin"), await world.create("twin")
    with pytest.raises(Ambiguous, match=f"server:{server.uuid}, volume:{volume.id}"):
        await seen(world, "twin")
    assert (await seen(world, f"volume:{volume.id}")).things[0].subject == f"volume:{volume.id}"
