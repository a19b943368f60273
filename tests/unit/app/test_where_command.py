"""`lite where`: which of all that is known is said first, and that it fits on a screen."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from common.app.flow_view import FlowView
from common.app.service import Found
from common.app.where_command import as_json, holder, screen
from common.app.whereabouts import Whereabouts
from common.db.journal import FlowRow, FlowState, JournalRow
from common.db.outbox import Letter
from common.machine.decide import Mark
from common.rpc.dead_letters import DeadLetter
from common.transport.port import QueueDepth

NOW = datetime(2026, 5, 1, 12)  # noqa: DTZ001 - naive UTC, as the clock gives it


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def flow(state: FlowState = FlowState.RUNNING, *, lives: bool = True, has_begun: bool = True) -> FlowView:
    row = FlowRow(
        id="attach_volume:a1", saga="attach_volume", subject="volume:v1", owner="nova-compute.cmp1.example#b1",
        home="nova-compute.cmp1.example", request_id="req-1", state=state, created_at=ago(70), updated_at=ago(30),
        arguments={"auth_password": "hunter2"}, deadline=NOW + timedelta(seconds=20),
    )  # fmt: skip
    last = JournalRow(
        id=1, flow_id=row.id, seq=0, step="connect_volume", mark=Mark.BEGUN, final=False, attempt=2, created_at=ago(3)
    )
    return FlowView(row=row, last=last if has_begun else None, lives=lives, next="attach", error="rain")


LETTER = Letter(
    exchange={"name": "nova"}, routing_key="compute.cmp1", body='{"password": "hunter2"}', headers={}, request_id="req-1", id=7,
    owner="nova-api.ctl1#b2", attempts=3, error="Nobody listens at a://u:hunter2@h", created_at=ago(120),
)  # fmt: skip
DEAD = DeadLetter(
    id="d1", queue="compute.cmp1", reason="rain at a://u:hunter2@h", error="Broken", server="cmp1", died_at="2026-05-01T11:59:00Z",
    attempts=5, body=b"", request=None,
)  # fmt: skip
QUEUES = {"compute.cmp1": QueueDepth(2, consumers=0, oldest_s=9)}
ALL = Whereabouts(
    asked="v1",
    now=NOW,
    flows=(flow(),),
    letters=(LETTER,),
    queues=QUEUES,
    heard={"compute.cmp1": ago(600)},
    dead=(("compute", DEAD),),
    ended=flow(FlowState.COMPLETED),
)


@pytest.mark.parametrize(
    ("found", "kind", "hop", "host", "said"),
    [
        (ALL, "running", "nova-compute", "cmp1.example", "is at work on it, attach_volume of volume:v1: connect_volume begun, 3 s ago"),
        (replace(ALL, flows=(flow(lives=False),)), "running", "nova-compute", "cmp1.example", "until a process of home nova-compute.cmp1"),
        (replace(ALL, flows=(flow(has_begun=False),)), "running", "nova-compute", "cmp1.example", "waits for its turn since 1 min"),
        (replace(ALL, flows=(flow(FlowState.PARKED),)), "outbox", "nova-api", "ctl1", "for nova/compute.cmp1 since 2 min, tried 3"),
        (replace(ALL, flows=(flow(FlowState.PARKED),), letters=()), "parked", "nova-compute", "cmp1.example", "waits for a person"),
        (replace(ALL, flows=(), letters=(), ended=None), "dead letter", "compute", None, "lies among the dead letters of compute"),
        (replace(ALL, flows=(), letters=()), "queue", None, None, "2 waiting, the oldest for 9 s; nobody consumes it: start the service; its process last gave a sign of life 10 min ago"),
        (replace(ALL, flows=(), letters=(), queues={}), "nobody", None, None, "completed 30 s ago (request req-1)"),
        (Whereabouts(asked="v1", now=NOW, queues={}), "nobody", None, None, "no flow ever worked on it"),
    ],
)  # fmt: skip
def test_who_holds_it_is_said_first(found: Whereabouts, kind: str, hop: str | None, host: str | None, said: str) -> None:
    told = holder(found)
    assert (told["kind"], told["hop"], told["host"]) == (kind, hop, host)
    assert said in str(told["text"])
    assert next(iter(screen(found))) == ("now", told["text"])


def test_a_dead_letter_counts_only_when_nothing_ended_behind_it() -> None:
    idle = replace(ALL, flows=(), letters=(), queues={})
    assert holder(idle)["kind"] == "nobody"
    older = replace(idle, ended=replace(flow(FlowState.COMPLETED), row=replace(flow().row, updated_at=ago(60.5))))
    assert holder(older)["kind"] == "dead letter"


def test_nothing_secret_is_shown() -> None:
    thing = Found(
        subject="volume:v1", name="v", state={"status": "in-use", "last_fault": "at a://u:hunter2@h", "auth_token": "hunter2"}
    )
    found = replace(ALL, things=(thing,))
    assert "hunter2" not in str(as_json(found))
    assert "hunter2" not in str(list(screen(found)))


def test_the_screen_stays_one_however_much_there_is() -> None:
    thing = Found(subject="server:s1", name="s", state={"vm_state": "active", "volumes": [f"/dev/vd{n} = v" for n in range(30)]})
    many = replace(ALL, things=(thing,), flows=(flow(),) * 20, letters=(LETTER,) * 20, dead=(("compute", DEAD),) * 20)
    lines = [text for _, text in screen(many) if text is not None]
    assert len(lines) < 36
    assert any("and 17 more flows" in str(text) for text in lines)
    everything: dict[str, Any] = as_json(many)
    assert len(everything["flows"]) == 20
