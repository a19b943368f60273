"""What every process stands on: metrics, counts and the inbox reach its client and servers."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy import select

from common.app.commands import opener
from common.app.config import load
from common.app.options import common_sections, read_common
from common.app.process import Ground, _sweep, ground
from common.app.service import Outside
from common.base.context import Context
from common.base.errors import Unavailable
from common.db.inbox import SqlInbox
from common.db.migrate import upgrade
from common.db.tables import inbox as rows
from common.host.clock import SystemClock
from common.rpc.contract import Contract, call
from common.rpc.counts import Event
from common.rpc.session import Serving
from common.testing.clock import JumpingClock
from common.transport.memory import MemoryBuses
from nova_lite.store.tables import BRANCH

CLOCK = SystemClock()


class PayAPI(Contract, Protocol, topic="pay", version="1.0"):
    @call(once=True)
    async def pay(self, ctx: Context, *, amount: int) -> int: ...


@dataclass
class Pay(PayAPI):
    paid: list[int] = field(default_factory=list)

    async def pay(self, ctx: Context, *, amount: int) -> int:
        self.paid.append(amount)
        return sum(self.paid)


@asynccontextmanager
async def process(folder: Path, buses: MemoryBuses, name: str) -> AsyncIterator[Ground]:
    overrides = {"DEFAULT": {"state_path": str(folder), "transport_url": "memory://one", "metrics_listen": "0"}}
    config, database = read_common(load([], common_sections(control_exchange="openstack"), overrides=overrides, foreign=()))
    await upgrade(database.connection, [BRANCH], clock=CLOCK)
    async with ground(config, database, name=name, migrations=BRANCH, outside=Outside(CLOCK, opener(CLOCK, buses))) as made:
        yield made


async def test_servers_of_a_process_share_the_inbox_of_its_database_and_one_set_of_counts(tmp_path: Path) -> None:
    buses, pay = MemoryBuses(CLOCK), Pay()
    with structlog.testing.capture_logs() as logged:
        async with (
            process(tmp_path, buses, "pay.h1") as base,
            base.carrying("pay.h1") as carrier,
            base.serve(Serving([pay], "h1"), carrier=carrier, binary="pay", topic="pay", host="h1"),
        ):
            assert await PayAPI.over(base.rpc).pay(Context(), amount=5) == 5
            async with base.database.begin(read_only=True) as conn:
                found = (await conn.execute(select(rows.c.owner, rows.c.is_done))).one()
            assert (found.owner.partition(":")[0], found.is_done) == ("pay.h1", True)
            assert base.rpc.counts is base.observed.counts
            base.observed.counts.add(Event.REPLY_ORPHAN)
            shown = await asyncio.to_thread(_read, next(line["url"] for line in logged if line["event"] == "metrics"))
    for line in (
        'lite_rpc_client_requests_total{method="pay",outcome="ok",topic="pay"} 1.0',
        'lite_rpc_server_requests_total{method="pay",outcome="ok",topic="pay"} 1.0',
        'lite_rpc_events_total{event="reply_orphan",reason=""} 1.0',
    ):
        assert line in shown


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())


async def test_the_inbox_is_swept_once_an_hour_whatever_the_database_does() -> None:
    clock = JumpingClock()
    swept: list[float] = []

    class Inbox(SqlInbox):
        def __init__(self) -> None: ...

        async def sweep(self, *, kept_s: float = 0) -> int:
            swept.append(clock.monotonic())
            if len(swept) == 1:
                raise Unavailable(what="database", reason="away")
            return 1

    task = asyncio.create_task(_sweep(Inbox(), clock))
    await asyncio.sleep(0)
    await clock.advance(3 * 3600)
    task.cancel()
    assert swept == [3600, 7200, 10800]
