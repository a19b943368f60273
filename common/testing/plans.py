"""How a statement of SQLAlchemy's is run on sqlite3 without its connection: compiled once in an interpreter, then bound and executed.

SQLAlchemy still writes the SQL, and still turns values into what SQLite keeps and back; left out is what a connection does around each
execution, which costs several times what SQLite does. Statements that need more than that have no plan.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.exc import DBAPIError

_PLANS_MAX = 2000
"""Plans of an interpreter: statements whose shape follows their data must not fill its memory."""
_LIST = re.compile(r"__\[POSTCOMPILE_(\w+)\]")
"""Where SQLAlchemy leaves room for the elements of a list."""


class Unplanned(Exception):
    """A statement that SQLAlchemy's own connection has to run."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What a statement without rows gives."""

    rowcount: int


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where the value of one place in the SQL comes from.

    key      the name under which it can be given with the execution
    place    which of the statement's own values it is; None: it has none there
    fixed    its value when there is neither
    empty    of a list: what stands in the SQL when it has no elements; None: it is no list
    """

    key: str
    place: int | None
    fixed: Any
    process: Callable[[Any], Any] | None
    empty: str | None

    def value(self, given: Mapping[str, Any], own: Sequence[Any]) -> Any:
        """As the program has it."""
        if self.key in given:
            return given[self.key]
        if self.place is None:
            return self.fixed
        bind = own[self.place]
        return bind.value if bind.callable is None else bind.effective_value


@dataclass(frozen=True, slots=True)
class _Plan:
    """`sql` has the elements of no list yet; `lists` are the places in `slots` of those that it has."""

    sql: str
    slots: tuple[_Slot, ...]
    lists: tuple[int, ...]
    metadata: SimpleResultMetaData | None

    def run(self, raw: sqlite3.Connection, many: Sequence[Mapping[str, Any]], own: Sequence[Any]) -> Any:
        if len(many) > 1:
            return Changed(raw.executemany(self.sql, [self._bound(given, own) for given in many]).rowcount)
        given = many[0] if many else {}
        sql, values = self._expanded(given, own) if self.lists else (self.sql, self._bound(given, own))
        cursor = raw.execute(sql, values)
        if self.metadata is None:
            return Changed(cursor.rowcount)
        return IteratorResult(self.metadata, iter(cursor.fetchall()))

    def _bound(self, given: Mapping[str, Any], own: Sequence[Any]) -> list[Any]:
        return [slot.value(given, own) if slot.process is None else slot.process(slot.value(given, own)) for slot in self.slots]

    def _expanded(self, given: Mapping[str, Any], own: Sequence[Any]) -> tuple[str, list[Any]]:
        """The SQL and its values, each list with as many places as it has elements."""
        found = [list(self._elements(slot, given, own)) for slot in self.slots]
        rooms = iter([(self.slots[place].empty or "", len(found[place])) for place in self.lists])

        def room(_: re.Match[str]) -> str:
            empty, number = next(rooms)
            return ", ".join("?" * number) if number else empty

        return _LIST.sub(room, self.sql), list(chain.from_iterable(found))

    @staticmethod
    def _elements(slot: _Slot, given: Mapping[str, Any], own: Sequence[Any]) -> Iterator[Any]:
        value = slot.value(given, own)
        for element in (value,) if slot.empty is None else value:
            yield element if slot.process is None else slot.process(element)


class Planner:
    """The plans of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._plans: dict[Any, _Plan | None] = {}
        self._seen: dict[Any, tuple[Any, _Plan | None]] = {}
        """Of statements that are kept, such as a module's constants: found by which they are, not by what they say."""

    def run(self, raw: sqlite3.Connection, statement: Executable, parameters: Any) -> Any:
        """SQLAlchemy's result, all of whose rows are there, or Changed. Raises Unplanned, and SQLAlchemy's form of sqlite3's errors."""
        many = parameters if isinstance(parameters, list) else [] if parameters is None else [parameters]
        cached = statement._generate_cache_key()  # type: ignore[attr-defined]
        if cached is None or cached.params is not None:
            raise Unplanned
        plan = self._found(statement, cached, tuple(many[0]) if many else (), is_many=len(many) > 1)
        if plan is None:
            raise Unplanned
        try:
            return plan.run(raw, many, cached.bindparams)
        except sqlite3.Error as exc:
            raise DBAPIError.instance(plan.sql, None, exc, sqlite3.Error, hide_parameters=True, dialect=self._dialect) from exc

    def _found(self, statement: Executable, cached: Any, names: tuple[str, ...], *, is_many: bool) -> _Plan | None:
        seen = id(cached.key), names, is_many
        if seen in self._seen:
            return self._seen[seen][1]
        key = cached.key, names, is_many
        if key not in self._plans:
            self._plans[key] = self._plan(statement, cached, sorted(names), is_many=is_many)
        self._seen[seen] = cached.key, self._plans[key]
        plan = self._plans[key]
        if max(len(self._seen), len(self._plans)) > _PLANS_MAX:
            self._seen.clear()
            self._plans.clear()
        return plan

    def _plan(self, statement: Any, cached: Any, names: list[str], *, is_many: bool) -> _Plan | None:
        """None: it needs what only a connection does."""
        compiled = statement._compiler(self._dialect, cache_key=cached, column_keys=names, for_executemany=is_many)
        changes = compiled.isinsert or compiled.isupdate or compiled.isdelete
        if (changes and compiled.effective_returning) or compiled.literal_execute_params or compiled.update_prefetch:
            return None
        fixed = {compiled._within_exec_param_key_getter(column): column.default for column in compiled.insert_prefetch}
        if any(default is None or not default.is_scalar for default in fixed.values()):
            return None
        return _Plan(
            sql=compiled.string,
            slots=tuple(_slot(compiled, name, fixed) for name in compiled.positiontup),
            lists=tuple(
                place for place, name in enumerate(compiled.positiontup) if compiled.binds[name] in compiled.post_compile_params
            ),
            metadata=None if changes else self._metadata(compiled),
        )

    def _metadata(self, compiled: Any) -> SimpleResultMetaData:
        columns = compiled._result_columns
        processors = [column.type._cached_result_processor(self._dialect, None) for column in columns]
        return SimpleResultMetaData([column.keyname for column in columns], _processors=processors)


def _slot(compiled: Any, name: str, fixed: Mapping[str, Any]) -> _Slot:
    bind = compiled.binds[name]
    same = compiled._cache_key_bind_match[0]
    place = next((number for number, own in enumerate(compiled.cache_key.bindparams) if bind in same[own]), None)
    is_list = bind in compiled.post_compile_params
    return _Slot(
        key=bind.key,
        place=place,
        fixed=fixed[name].arg if name in fixed else bind.value,
        process=compiled._bind_processors.get(name),
        empty=compiled.visit_empty_set_op_expr([bind.type], bind.expand_op) if is_list else None,
    )
