"""What the simulation's own way to run a statement gives is what SQLAlchemy's gives."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Executable, bindparam, create_engine, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from common.db.tables import METADATA, flows, journal, services
from common.testing.plans import Changed, Planner, Unplanned

_NOW = datetime(2026, 1, 1, 12, 0, 0, 123456)  # noqa: DTZ001  # naive UTC, as rows have it
_FLOW = {
    "saga": "boot", "subject": "server:s", "arguments": {"a": [1, None]}, "owner": "o", "state": "running", "created_at": _NOW,
}  # fmt: skip
_ROW = {"flow_id": "f", "step": "s", "mark": "begun", "attempt": 1, "created_at": _NOW}
_KEPT = select(flows).where(flows.c.id == bindparam("flow_id"))

_STATEMENTS: dict[str, tuple[Executable, Any]] = {
    "one row, by values": (insert(services).values(uuid="u", host="h", binary="b", topic="t", created_at=_NOW), None),
    "one row, by parameters": (insert(flows), {"id": "f", **_FLOW}),
    "several rows": (insert(journal), [{**_ROW, "seq": 0}, {**_ROW, "seq": 1, "output": {"x": 1}}]),
    "a kept statement": (_KEPT, {"flow_id": "f"}),
    "the same again": (_KEPT, {"flow_id": "g"}),
    "a statement's own values": (select(flows.c.created_at, flows.c.arguments).where(flows.c.state == "running"), None),
    "a list": (select(journal.c.seq, journal.c.output).where(journal.c.seq.in_([1, 0, 7])).order_by(journal.c.seq), None),
    "an empty list": (select(journal.c.seq).where(journal.c.seq.in_([])), None),
    "what is in no empty list": (select(journal.c.seq).where(journal.c.seq.not_in([])), None),
    "a list by parameters": (select(func.count()).where(journal.c.seq.in_(bindparam("which", expanding=True))), {"which": [0, 1]}),
    "a label and a limit": (select(services.c.disabled.label("is_off"), services.c.report_count).limit(1), None),
    "a change by both": (update(flows).where(flows.c.id == bindparam("of"), flows.c.fence == 1), {"of": "f", "state": "parked"}),
    "a change by SQL": (update(services).values(report_count=services.c.report_count + 2), None),
    "nothing to change": (update(flows).where(flows.c.id == "nobody").values(state="x"), None),
    "a deletion": (delete(journal).where(journal.c.seq == 1), None),
}


@pytest.fixture
def two() -> tuple[Connection, Connection]:
    """Two databases with the same tables."""
    made = create_engine("sqlite://").connect(), create_engine("sqlite://").connect()
    for conn in made:
        METADATA.create_all(conn)
    return made


def _found(result: Any) -> object:
    if not getattr(result, "returns_rows", not isinstance(result, Changed)):
        return result.rowcount
    return [dict(row._mapping) for row in result]


def test_every_kind_of_statement_gives_what_sqlalchemy_gives(two: tuple[Connection, Connection]) -> None:
    plain, planned = two
    planner = Planner(planned.dialect)
    raw: Any = planned.connection.dbapi_connection
    for name, (statement, parameters) in _STATEMENTS.items():
        assert _found(planner.run(raw, statement, parameters)) == _found(plain.execute(statement, parameters)), name
    for table in METADATA.sorted_tables:
        assert _found(planner.run(raw, select(table), None)) == _found(plain.execute(select(table))), table.name


def test_errors_are_sqlalchemys(two: tuple[Connection, Connection]) -> None:
    _, planned = two
    raw: Any = planned.connection.dbapi_connection
    planner, row = Planner(planned.dialect), {"id": "f", **_FLOW}
    planner.run(raw, insert(flows), row)
    with pytest.raises(IntegrityError, match="UNIQUE"):
        planner.run(raw, insert(flows), row)


def test_what_needs_a_connection_has_no_plan(two: tuple[Connection, Connection]) -> None:
    _, planned = two
    raw: Any = planned.connection.dbapi_connection
    values: Mapping[str, Any] = {"id": "f", **_FLOW}
    with pytest.raises(Unplanned):
        Planner(planned.dialect).run(raw, insert(flows).values(values).returning(flows.c.id), None)
