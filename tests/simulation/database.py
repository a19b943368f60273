"""The world's database: migrated once in an interpreter, copied for each world, every change of a status watched."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from cinder_lite.domain.attachment import ATTACHMENT
from cinder_lite.domain.volume import VOLUME
from cinder_lite.service import wiring as cinder
from common.base.clock import Clock
from common.db.branch import Branch
from common.db.engine import Database
from common.db.migrate import upgrade
from common.db.owner import process_of
from common.db.url import SQLITE, Address, parse
from common.host.clock import SystemClock
from common.machine.table import Machine
from common.testing.inline_sqlite import InlineDatabase, InlineEngine
from common.testing.process import Process
from nova_lite.domain.instance import INSTANCE
from nova_lite.service import wiring as nova

_WATCHED = {
    "volumes": "{row}.status",
    "volume_attachment": "{row}.attach_status",
    "instances": "{row}.vm_state || '/' || ifnull({row}.task_state, '')",
}


@cache
def image() -> bytes:
    """An empty database with every table, and triggers that call `changed(table, id, from, to)` and `taken` of a flow's new owner."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.sqlite"
        asyncio.run(_migrate(f"sqlite:///{path}"))
        made = sqlite3.connect(path)
        made.execute("PRAGMA journal_mode = DELETE")
        for table, state in _WATCHED.items():
            old, new, key = state.format(row="OLD"), state.format(row="NEW"), "uuid" if table == "instances" else "id"
            made.execute(
                f"CREATE TRIGGER changed_{table} AFTER UPDATE ON {table} WHEN {old} <> {new} "
                f"BEGIN SELECT changed('{table}', NEW.{key}, {old}, {new}); END"
            )
            made.execute(
                f"CREATE TRIGGER made_{table} AFTER INSERT ON {table} BEGIN SELECT changed('{table}', NEW.{key}, NULL, {new}); END"
            )
        made.execute(
            "CREATE TRIGGER taken AFTER UPDATE ON flows WHEN OLD.owner <> NEW.owner AND NEW.owner <> '' BEGIN "
            "SELECT taken(NEW.id, OLD.owner, NEW.owner, NEW.fence - OLD.fence, "
            "EXISTS (SELECT 1 FROM leases WHERE owner = OLD.owner AND lease_until > lite_now(0))); END"
        )
        made.commit()
        memory = sqlite3.connect(":memory:")
        made.backup(memory)
        made.close()
        found = memory.serialize()
        memory.close()
    return found


async def _migrate(connection: str) -> None:
    await upgrade(connection, [nova.INSIDE.migrations, cinder.INSIDE.migrations], clock=SystemClock())


def _edges(machine: Machine[Any, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((_word(old), _word(new)) for (old, _), new in machine.rows.items())


def _word(state: object) -> str:
    return "/".join("" if part is None else str(part) for part in state) if isinstance(state, tuple) else str(state)


_MACHINES: dict[str, Machine[Any, Any]] = {"volumes": VOLUME, "volume_attachment": ATTACHMENT, "instances": INSTANCE}
_EDGES = {table: _edges(machine) for table, machine in _MACHINES.items()}
_BEGINNINGS = {table: {_word(state) for state in (machine.start, *machine.ends)} for table, machine in _MACHINES.items()}


class WatchedDatabase(InlineDatabase):
    """`told` hears of each change of a status, `violated` of one that no table allows."""

    def __init__(self, stored: bytes, clock: Clock, *, told: Callable[[str], None], violated: Callable[[str, str], None]) -> None:
        super().__init__(stored, clock)
        self._told = told
        self._violated = violated
        self.raw.create_function("changed", 4, self._changed)
        self.raw.create_function("taken", 5, self._taken)

    def _changed(self, table: str, key: str, old: str | None, new: str) -> None:
        self._told(f"   {table} {key}: {old} -> {new}")
        if (new not in _BEGINNINGS[table]) if old is None else (old, new) not in _EDGES[table]:
            self._violated("S7", f"{table} {key}: {old} -> {new} is no edge of its table")

    def _taken(self, flow_id: str, old: str, new: str, raised: int, is_held: bool) -> None:  # SQLite gives it so
        """Whoever has the lock of a name knows that its earlier holders are dead; of others only the lease tells."""
        if raised < 1:
            self._violated("S6", f"flow {flow_id} was taken over from {old} by {new} under its old fence")
        if is_held and process_of(old) != process_of(new):
            self._violated("S6", f"flow {flow_id} was taken by {new} from {old}, whose lease holds")

    def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """What is committed, for the judge."""
        cursor = self.raw.execute(sql, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def opened(self, process: Process, connection: str, *, clock: Clock, branches: Sequence[Branch] = ()) -> Database:
        """In the place of `common.db.engine.open_database`."""
        engine: Any = InlineEngine(self, process)
        return _Opened(_address(connection), engine, clock=clock, branches=branches)


class _Opened(Database):
    """The tables are known to be there, and there is no file."""

    async def check(self) -> None:
        """They are."""

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as conn:
            yield conn


@cache
def _address(connection: str) -> Address:
    found = parse(connection)
    assert found.dialect == SQLITE
    return found
