"""`lite flow`: found, listed, told apart, resumed and given up."""

from datetime import datetime

import pytest

from common.app.exits import Exit
from common.app.flow_command import left_behind, listed, resumed, watched
from common.app.flow_view import FlowView, NoSuchFlow, find_flow, view
from common.app.service import services
from common.base.errors import Ambiguous, Conflict, Timeout
from common.db.engine import Database
from common.db.journal import FlowRow, FlowState, Journal
from common.db.lease import Leases
from common.db.owner import is_of_home
from common.machine.decide import Mark
from common.machine.saga import Saga, Step
from common.testing.clock import JumpingClock

BUILD = Saga(
    "build", pivot="sell", steps=(Step("dig", undo="fill"), Step("raise_walls", undo="pull_down"), Step("sell"), Step("hand_over"))
)
SAGAS = {"build": BUILD}
OWNER = "nova-compute.cmp1#b1"


@pytest.fixture
def clock() -> JumpingClock:
    return JumpingClock(jumps=True)


@pytest.fixture
def journal(sqlite_database: Database, clock: JumpingClock) -> Journal:
    return Journal(sqlite_database, clock)


async def lay(
    journal: Journal, flow_id: str, *marks: tuple[str, Mark], state: FlowState = FlowState.RUNNING, subject: str = "house:1",
    home: str = "nova-compute.cmp1", error: str | None = None,
) -> FlowRow:  # fmt: skip
    """A flow with these rows."""
    arguments = {"house": "1", "auth_password": "hunter2"}
    row = FlowRow(id=flow_id, saga="build", subject=subject, owner=OWNER, home=home, arguments=arguments, request_id="req-1")
    await journal.open(row)
    for seq, (step, mark) in enumerate(marks):
        bad = mark in {Mark.FAILED, Mark.UNDO_FAILED}
        await journal.write(
            flow_id, seq=seq, step=step, mark=mark, attempt=1, final=bad, error="rain at a://u:hunter2@h" if bad else None
        )
    if state is not FlowState.RUNNING:
        await journal.finish(flow_id, state, error, fence=1)
    found = await journal.flow(flow_id)
    assert found is not None
    return found


SOLD = [(step, mark) for step in ("dig", "raise_walls", "sell") for mark in (Mark.BEGUN, Mark.DONE)]
STUCK = [*SOLD, ("hand_over", Mark.BEGUN), ("hand_over", Mark.FAILED)]
TURNED = [("dig", Mark.BEGUN), ("dig", Mark.DONE), ("raise_walls", Mark.BEGUN), ("raise_walls", Mark.FAILED)]


async def test_a_flow_is_found_by_the_only_id_that_begins_so(journal: Journal) -> None:
    for name in ("build:a1", "build:a2", "build:b", "build:a"):
        await lay(journal, name)
    assert (await find_flow(journal, "build:b")).id == "build:b"
    assert (await find_flow(journal, "build:a")).id == "build:a"
    assert (await find_flow(journal, "build:a1")).id == "build:a1"
    with pytest.raises(Ambiguous, match=r"More than one flow is named build:: build:a1, build:a2, build:b, build:a. Use an id"):
        await find_flow(journal, "build:")
    for unknown in ("nope", "", "%", "build_"):
        with pytest.raises(NoSuchFlow, match="`lite flow list --all`"):
            await find_flow(journal, unknown)


async def test_those_that_are_not_over_are_listed_with_their_last_step(
    journal: Journal, sqlite_database: Database, clock: JumpingClock
) -> None:
    await lay(journal, "f1", ("dig", Mark.BEGUN))
    await lay(journal, "f2", *STUCK, state=FlowState.PARKED, error="x", subject="house:2")
    await lay(journal, "f3", state=FlowState.COMPLETED)
    await Leases(sqlite_database).renew(OWNER)
    open_ = await listed(sqlite_database, clock, states=[FlowState.RUNNING, FlowState.PARKED])
    assert [(each.row.id, each.step, each.lives, each.error) for each in open_] == [
        ("f1", "dig begun", True, None),
        ("f2", "hand_over failed", True, "x"),
    ]

    async def ids(*states: FlowState, subject: str | None = None) -> list[str]:
        return [each.row.id for each in await listed(sqlite_database, clock, states=states, subject=subject)]

    assert await ids(*FlowState) == ["f1", "f2", "f3"]
    assert await ids(*FlowState, subject="house:1") == ["f1", "f3"]
    assert await ids(*FlowState, subject="2") == ["f2"]
    assert await ids(FlowState.COMPLETED) == ["f3"]


async def test_a_view_tells_owner_next_step_and_last_error_without_secrets(
    journal: Journal, sqlite_database: Database, clock: JumpingClock
) -> None:
    row = await lay(journal, "f1", *TURNED[:3])

    async def seen() -> FlowView:
        return (await view(sqlite_database, clock, row, SAGAS))[0]

    assert (await seen()).owner == f"{OWNER}, whose lease is over; any process of home nova-compute.cmp1 takes it"
    await Leases(sqlite_database).renew(OWNER)
    assert (await seen()).owner == f"{OWNER}, whose lease lives"
    assert (await seen()).next == "sell"
    await journal.write("f1", seq=3, step="raise_walls", mark=Mark.FAILED, attempt=1, final=True, error="rain at a://u:hunter2@h")
    found = await seen()
    assert (found.next, found.error) == ("pull_down, which takes raise_walls back", "rain at a://u:***@h")
    assert found.to_dict(clock.utcnow())["owner_lives"] is True


@pytest.mark.parametrize(("marks", "next_"), [((), "dig"), (SOLD, "hand_over"), ([*SOLD, ("hand_over", Mark.BEGUN)], "completed")])
async def test_what_comes_next_is_behind_the_step_in_progress(
    journal: Journal, sqlite_database: Database, clock: JumpingClock, marks: list[tuple[str, Mark]], next_: str
) -> None:
    row = await lay(journal, "f1", *marks)
    assert (await view(sqlite_database, clock, row, SAGAS))[0].next == next_
    assert (await view(sqlite_database, clock, row, {}))[0].next is None


def test_the_deadline_is_told_as_what_is_left() -> None:
    at = datetime(2026, 1, 1, 12)  # noqa: DTZ001 - naive UTC, as the clock gives it
    row = FlowRow(id="f", saga="s", subject="x:1", owner="o", deadline=at)
    assert FlowView(row=row, last=None, lives=True).deadline(datetime(2026, 1, 1, 11, 59)) == "in 1 min"  # noqa: DTZ001
    over = FlowRow(id="f", saga="s", subject="x:1", owner="o", deadline=at, is_over=True)
    assert FlowView(row=over, last=None, lives=True).deadline(datetime(2026, 1, 1, 12, 0, 9)) == "passed 9 s ago"  # noqa: DTZ001


async def test_what_stays_behind_depends_on_which_side_of_the_pivot_it_stopped(journal: Journal) -> None:
    stuck = await lay(journal, "f1", *STUCK, state=FlowState.PARKED, error="no keys")
    lines = left_behind(stuck, await journal.entries("f1"), BUILD)
    assert lines == [
        "build of house:1 is parked: no keys",
        "It is behind the point of no return, and these steps are not done:",
        "  hand_over",
        "`lite where house:1` shows what that leaves.",
    ]
    turned = await lay(
        journal, "f2", *TURNED, ("raise_walls", Mark.UNDOING), ("raise_walls", Mark.UNDO_FAILED), state=FlowState.PARKED
    )
    lines = left_behind(turned, await journal.entries("f2"), BUILD)
    assert lines[2:4] == ["  pull_down, which takes raise_walls back", "  fill, which takes dig back"]
    assert "not undone" in lines[1]
    assert "No installed service has the saga build" in left_behind(turned, [], None)[1]


async def test_resuming_is_for_parked_flows_and_leaves_a_word_in_the_log(
    journal: Journal, sqlite_database: Database, clock: JumpingClock, capsys: pytest.CaptureFixture[str]
) -> None:
    await lay(journal, "f1", *STUCK, state=FlowState.PARKED, error="a://u:hunter2@h")
    row = await resumed(sqlite_database, clock, "f1")
    now = await journal.flow(row.id)
    assert now is not None
    assert (now.state, now.owner) == (FlowState.RUNNING, "")
    with pytest.raises(Conflict, match="is in state running; wanted: parked"):
        await resumed(sqlite_database, clock, "f1")
    said = capsys.readouterr()
    assert "flow resumed" in said.out + said.err
    assert "hunter2" not in said.out + said.err


@pytest.mark.parametrize(
    ("state", "code"), [(FlowState.COMPLETED, Exit.OK), (FlowState.COMPENSATED, Exit.OK), (FlowState.PARKED, Exit.REFUSED)]
)
async def test_a_resumed_flow_is_watched_to_its_end(
    journal: Journal,
    sqlite_database: Database,
    clock: JumpingClock,
    capsys: pytest.CaptureFixture[str],
    *,
    state: FlowState,
    code: Exit,
) -> None:
    row = await lay(journal, "f1", *SOLD, state=state, error="why at a://u:hunter2@h")
    await Leases(sqlite_database).renew(OWNER)
    assert await watched(sqlite_database, clock, row, wait_s=5) is code
    assert capsys.readouterr().err == f"build of house:1: {state}\nreason: why at a://u:***@h\n"


async def test_who_watches_is_told_when_nobody_can_carry_it_on(
    journal: Journal, sqlite_database: Database, clock: JumpingClock, capsys: pytest.CaptureFixture[str]
) -> None:
    row = await lay(journal, "f1", *SOLD)
    await Leases(sqlite_database).renew("nova-compute.cmp10#b1")
    assert await watched(sqlite_database, clock, row, wait_s=5) is Exit.NOBODY_LISTENS
    assert "No process of home nova-compute.cmp1 is up" in capsys.readouterr().err
    await Leases(sqlite_database).renew("nova-compute.cmp1#b2")
    with pytest.raises(Timeout, match="running, sell done"):
        await watched(sqlite_database, clock, row, wait_s=2)
    assert await watched(sqlite_database, clock, row, wait_s=0) is Exit.OK


@pytest.mark.parametrize(
    ("owner", "home", "is_it"),
    [
        ("nova-api.ctl1#b", "nova-api", True),
        ("nova-api.ctl1.example.org#b", "nova-api", True),
        ("nova-compute.cmp1#b", "nova-compute.cmp1", True),
        ("nova-compute.cmp10#b", "nova-compute.cmp1", False),
        ("nova-compute.cmp1.example.org#b", "nova-compute.cmp1", False),
        ("nova-compute.cmp1#b", "nova-api", False),
        ("#b", "", False),
    ],
)
def test_a_home_is_one_process_or_all_of_a_kind(owner: str, home: str, is_it: bool) -> None:
    assert is_of_home(owner, home) is is_it


def test_the_services_name_every_saga_once() -> None:
    found = [saga.name for service in services().values() for saga in service.sagas]
    assert len(found) == len(set(found)) == 30
