"""`lite flow`, `lite where` and `lite failpoints` typed by an operator, beside a running nova-api."""

import getpass
from pathlib import Path

import msgspec
import pytest

from common.db.engine import Database, open_database
from common.db.hosts import Hosts
from common.db.journal import FlowRow, FlowState, Journal
from common.host.clock import SystemClock
from common.machine.decide import Mark
from nova_lite.contract import Instance, VmState
from nova_lite.flows.request_attach import RequestAttachArguments
from tests.integration.test_operating import Api, api
from tests.support.processes import commanded

pytestmark = pytest.mark.timeout(240, func_only=True)
CLOCK = SystemClock()


async def lay_parked(database: Database, flow_id: str, *, home: str = "nova-api") -> None:
    """An attach that turned back, and whose undo was tried too often."""
    instance = Instance(uuid=f"{flow_id}-server", display_name="s", vm_state=VmState.ACTIVE, host="h1")
    arguments = RequestAttachArguments(instance=instance, volume_id="v1", volume_size=1, device=None, attachment_id=flow_id)
    journal = Journal(database, CLOCK)
    row = FlowRow(
        id=flow_id, saga="request_attach", subject=f"server:{instance.uuid}", owner="nova-api.h0#gone", home=home,
        arguments={**msgspec.to_builtins(arguments), "auth_password": "hunter2"}, context={}, request_id=f"req-{flow_id}",
    )  # fmt: skip
    await journal.open(row)
    for seq, mark in enumerate((Mark.BEGUN, Mark.FAILED, Mark.UNDOING, Mark.UNDO_FAILED)):
        error = "rain at a://u:hunter2@h" if seq % 2 else None
        await journal.write(flow_id, seq=seq, step="reserve_block_device_name", mark=mark, attempt=1, final=seq == 1, error=error)
    await journal.finish(flow_id, FlowState.PARKED, "rain at a://u:hunter2@h", fence=1)


async def test_an_operator_looks_at_flows_lets_them_go_on_and_gives_them_up(tmp_path: Path) -> None:
    async with api(tmp_path) as running:
        database = open_database(f"sqlite:///{tmp_path}/lite.sqlite", clock=CLOCK)
        try:
            for flow_id, home in (("one", "nova-api"), ("two", "nova-api"), ("lone", "nova-compute.cmp1")):
                await lay_parked(database, flow_id, home=home)
            await check_list_and_show(running)
            await check_resume(running)
            await check_abandon(running)
            await check_where(running, database)
        finally:
            await database.close()


async def check_list_and_show(running: Api) -> None:
    listed = await running.lite("flow", "list")
    assert (listed.code, listed.err) == (0, "")
    for word in ("one", "two", "lone", "reserve_block_device_name undo-failed", "rain at a://u:***@h"):
        assert word in listed.out
    assert [row["id"] for row in (await running.lite("flow", "list", "--subject", "one-server", "--json")).json()] == ["one"]
    assert (await running.lite("flow", "list", "--state", "running", "--json")).json() == []
    shown = await running.lite("flow", "show", "on")
    assert "hunter2" not in shown.out
    assert "`lite flow resume one`" in shown.out
    whole = (await running.lite("flow", "show", "one", "--json")).json()
    assert (whole["arguments"]["auth_password"], whole["state"]) == ("***", "parked")
    assert [row["mark"] for row in whole["journal"]] == ["begun", "failed", "undoing", "undo-failed"]
    assert ((missing := await running.lite("flow", "show", "nope")).code, "lite flow list --all" in missing.err) == (1, True)


async def check_resume(running: Api) -> None:
    resumed = await running.lite("flow", "resume", "on")
    assert resumed.code == 0, resumed.err
    for word in ("flow resumed", f"user={getpass.getuser()}", "id=one", "request_attach of server:one-server: compensated"):
        assert word in resumed.err
    again = await running.lite("flow", "resume", "one")
    assert (again.code, "is in state compensated; wanted: parked" in again.err) == (1, True)
    lone = await running.lite("flow", "resume", "lone")
    assert (lone.code, "No process of home nova-compute.cmp1 is up" in lone.err) == (3, True)


async def check_abandon(running: Api) -> None:
    unsure = await running.lite("flow", "abandon", "two", "--reason", "burnt")
    assert (unsure.code, "Nothing was changed" in unsure.err) == (1, True)
    assert "  destroy_block_device_mapping, which takes reserve_block_device_name back" in unsure.err
    done = await running.lite("flow", "abandon", "two", "--reason", "burnt", "--yes")
    assert done.code == 0
    for word in ("flow abandoned", "id=two", "reason=burnt", "of_request=req-two"):
        assert word in done.err
    [row] = (await running.lite("flow", "list", "--state", "abandoned", "--json")).json()
    assert (row["id"], row["error"]) == ("two", "burnt")


async def check_where(running: Api, database: Database) -> None:
    ended = await running.lite("where", "req-two")
    assert (ended.code, "request_attach of server:two-server abandoned" in ended.out) == (0, True)
    await Hosts(database, CLOCK).register(binary="nova-compute", host="cmp9", topic="compute", availability_zone="nova")
    booted = await commanded("nova-lite", "boot", "lost", "--flavor", "m1.tiny", "--host", "cmp9", files=[running.file])
    assert booted.code == 0, booted.err
    found = (await running.lite("where", "lost", "--json")).json()
    assert (found["held_by"]["kind"], found["held_by"]["queue"]) == ("outbox", "nova/compute.cmp9")
    unknown = await running.lite("where", "nobody")
    assert (unknown.code, "Nothing is known of nobody" in unknown.err) == (1, True)


async def test_without_its_parts_it_says_which_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "lite.conf"
    connection = "postgresql://u:hunter2@127.0.0.1:1/lite"
    file.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n[database]\nconnection = {connection}\n")
    for words in (("where", "x"), ("flow", "list")):
        away = await commanded("lite", *words, files=[file])
        assert away.code == 69, away.err
        assert "hunter2" not in away.err
    file.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\ntransport_url = rabbit://u:hunter2@127.0.0.1:1/v\n")
    assert (await commanded("lite", "db", "upgrade", files=[file])).code == 0
    database = open_database(f"sqlite:///{tmp_path}/lite.sqlite", clock=CLOCK)
    await lay_parked(database, "one")
    await database.close()
    without_bus = await commanded("lite", "where", "req-one", files=[file])
    assert without_bus.code == 0, without_bus.err
    assert "hunter2" not in without_bus.err
    assert "queues and dead letters are not known: The message bus rabbit://u:***@127.0.0.1:1/v" in without_bus.out
    listed = await commanded("lite", "failpoints", "--json", files=[file])
    assert "rpc.compute.attach_volume.handled" in listed.json()
