"""Where in a declared type versioned objects stand, worked out once for each type.

A type without any has no plan, and its values cross as fast as if there were no versioned objects. A plan turns what
`msgspec.to_builtins` made into the wire's envelopes, and envelopes back into what `msgspec.convert` checks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

from msgspec import inspect

from common.wire.objects import InnerObject, Misfit, ObjectForm, form_of

_TYPES_MAX = 4096
_ISO_SECONDS = len("2026-11-23T03:12:06")
_SEQUENCES = (inspect.ListType, inspect.VarTupleType, inspect.SetType, inspect.FrozenSetType)
_RECORDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType)
_Record = inspect.StructType | inspect.DataclassType | inspect.TypedDictType


class Plan(Protocol):
    """What one type's primitives become on the wire, and back. A value of another shape passes: the type check names it."""

    def pack(self, plain: Any) -> Any:
        """Plain primitives, which may be changed in place, as they cross the wire."""
        ...

    def unpack(self, wire: Any) -> Any:
        """What came as plain primitives of the declared type. Raises Misfit; leaves `wire` as it is."""
        ...


@lru_cache(maxsize=_TYPES_MAX)
def plan_of(declared: Any) -> Plan | None:
    """The plan of a contract's type; None when no versioned object can be in it.

    Raises TypeError for a union of which two members hold versioned objects: only one of them could be told by its shape.
    """
    return _Planner().plan(inspect.type_info(declared))


@dataclass(frozen=True, slots=True)
class _Time:
    """A datetime as an object's DateTimeField writes it: UTC, in seconds, with a Z."""

    def pack(self, plain: Any) -> Any:
        if not isinstance(plain, str):
            return plain
        if plain.endswith("Z"):
            return f"{plain[:_ISO_SECONDS]}Z"
        moment = datetime.fromisoformat(plain)
        if moment.tzinfo is not None:  # without one it is taken to be UTC, as DateTimeField does
            moment = moment.astimezone(UTC)
        return f"{moment.replace(tzinfo=None, microsecond=0).isoformat()}Z"

    def unpack(self, wire: Any) -> Any:
        return wire


@dataclass(frozen=True, slots=True)
class _Many:
    item: Plan
    form: ObjectForm | None

    def pack(self, plain: Any) -> Any:
        if not isinstance(plain, list | tuple):  # a tuple stays one in `to_builtins`
            return plain
        items = [self.item.pack(each) for each in plain]
        return items if self.form is None else self.form.wrap({"objects": items})

    def unpack(self, wire: Any) -> Any:
        if isinstance(wire, dict) and self.form is not None:
            data = self.form.unwrap(wire)
            wire = wire if data is None else data.get("objects")
        if not isinstance(wire, list):
            return wire
        return [_unpacked(self.item, each, f"[{number}]") for number, each in enumerate(wire)]


@dataclass(frozen=True, slots=True)
class _Each:
    """The members of a fixed tuple."""

    items: tuple[Plan | None, ...]

    def pack(self, plain: Any) -> Any:
        if not isinstance(plain, list | tuple) or len(plain) != len(self.items):
            return plain
        return [each if plan is None else plan.pack(each) for plan, each in zip(self.items, plain, strict=True)]

    def unpack(self, wire: Any) -> Any:
        if not isinstance(wire, list) or len(wire) != len(self.items):
            return wire
        return [
            each if plan is None else _unpacked(plan, each, f"[{number}]")
            for number, (plan, each) in enumerate(zip(self.items, wire, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of a dict."""

    item: Plan

    def pack(self, plain: Any) -> Any:
        return {key: self.item.pack(each) for key, each in plain.items()} if isinstance(plain, dict) else plain

    def unpack(self, wire: Any) -> Any:
        return {key: _unpacked(self.item, each, "[...]") for key, each in wire.items()} if isinstance(wire, dict) else wire


@dataclass(frozen=True, slots=True)
class _Fields:
    """A struct: a versioned object, or one that holds some.

    form       None: no object itself
    unset      fields whose null means "not set": ours have a value by default where nova's may be NULL
    """

    form: ObjectForm | None
    fields: dict[str, Plan] = field(default_factory=dict)
    unset: set[str] = field(default_factory=set)

    def pack(self, plain: Any) -> Any:
        if not isinstance(plain, dict):
            return plain
        inner = {} if self.form is None else _packed_inner(self.form, plain)
        for name, plan in self.fields.items():
            if name in plain:
                plain[name] = plan.pack(plain[name])
        if self.form is None:
            return plain
        for name in self.form.extensions:
            if plain.get(name) in (None, (), [], {}, ""):
                plain.pop(name, None)
        for name in self.form.inner:
            plain.pop(name, None)
        return self.form.wrap(plain | inner)

    def unpack(self, wire: Any) -> Any:
        if not isinstance(wire, dict):
            return wire
        data = None if self.form is None else self.form.unwrap(wire)
        if data is None:
            data = dict(wire)
        else:
            for name in self.unset:
                if name in data and data[name] is None:
                    del data[name]
        for name, plan in self.fields.items():
            if name in data:
                data[name] = _unpacked(plan, data[name], f".{name}")
        if self.form is not None:
            for name, inner in self.form.inner.items():
                if name in data:
                    data[name] = _unpacked(inner, data[name], f".{name}")
        return data


def _unpacked(plan: Plan | InnerObject, wire: Any, place: str) -> Any:
    try:
        return plan.unpack(wire)
    except Misfit as exc:
        exc.place = place + exc.place
        raise


def _packed_inner(form: ObjectForm, plain: dict[str, Any]) -> dict[str, Any]:
    """The inner objects; one without a name ("") stays unset."""
    return {name: inner.pack(plain[name], plain) for name, inner in form.inner.items() if plain.get(name, "") != ""}


class _Planner:
    """Plans for the types reachable from one; a struct met again within itself is the same plan."""

    def __init__(self) -> None:
        self._records: dict[type, _Fields] = {}

    def plan(self, wanted: inspect.Type) -> Plan | None:
        if not _holds(wanted, set()):
            return None
        if isinstance(wanted, _RECORDS):
            return self._record(wanted)
        plans = [self.plan(each) for each in _parts(wanted)]
        if isinstance(wanted, inspect.TupleType):
            return _Each(tuple(plans))
        found = [plan for plan in plans if plan is not None]
        if len(found) > 1:
            members = " | ".join(_named(each) for each in _parts(wanted))
            raise TypeError(f"{members}: two members that hold versioned objects cannot be told apart on the wire")
        if isinstance(wanted, inspect.DictType):
            return _Values(found[0])
        return _many(found[0]) if isinstance(wanted, _SEQUENCES) else found[0]

    def _record(self, record: _Record) -> _Fields:
        if record.cls in self._records:
            return self._records[record.cls]
        form = form_of(record.cls)
        made = self._records[record.cls] = _Fields(form)
        for each in record.fields:
            if form is not None and _is_time(each.type):
                made.fields[each.encode_name] = _Time()
            elif (plan := self.plan(each.type)) is not None:
                made.fields[each.encode_name] = plan
            if not each.required and not _takes_null(each.type):
                made.unset.add(each.encode_name)
        return made


def _many(item: Plan) -> Plan:
    form = item.form if isinstance(item, _Fields) else None
    return _Many(item, form and form.of_lists())


def _named(wanted: inspect.Type) -> str:
    return wanted.cls.__name__ if isinstance(wanted, _RECORDS) else type(wanted).__name__


def _holds(wanted: inspect.Type, seen: set[type]) -> bool:
    """True when a versioned object can be in it."""
    if isinstance(wanted, _RECORDS):
        if wanted.cls in seen:
            return False
        seen.add(wanted.cls)
        if form_of(wanted.cls) is not None:
            return True
    return any(_holds(each, seen) for each in _parts(wanted))


def _parts(wanted: inspect.Type) -> Iterable[inspect.Type]:
    found: Iterable[inspect.Type] = ()
    if isinstance(wanted, inspect.Metadata):
        found = (wanted.type,)
    elif isinstance(wanted, inspect.UnionType):
        found = wanted.types
    elif isinstance(wanted, inspect.TupleType):
        found = wanted.item_types
    elif isinstance(wanted, inspect.DictType):
        found = (wanted.value_type,)
    elif isinstance(wanted, _SEQUENCES):
        found = (wanted.item_type,)
    elif isinstance(wanted, _RECORDS):
        found = (each.type for each in wanted.fields)
    return found


def _is_time(wanted: inspect.Type) -> bool:
    members = wanted.types if isinstance(wanted, inspect.UnionType) else (wanted,)
    return {type(each) for each in members} - {inspect.NoneType} == {inspect.DateTimeType}


def _takes_null(wanted: inspect.Type) -> bool:
    members = wanted.types if isinstance(wanted, inspect.UnionType) else (wanted,)
    return any(isinstance(each, inspect.NoneType | inspect.AnyType) for each in members)
