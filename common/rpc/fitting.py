"""Whether a receiver takes what a sender may send, judged by their two schemas. Pure.

A sender sends no fields but those of its type, and may leave out one that has a default, as foreign peers do. A receiver refuses what its schema does not allow, and
passes over fields of an object that it does not know (msgspec.convert, strict).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import msgspec

from common.rpc.schema import Schema

ANYTHING = Schema()
_SAME_OR_FREE = ("pattern", "format", "multiple_of", "unique_items")
_LIMITS = (("min_length", "max_length"), ("min_items", "max_items"), ("min_properties", "max_properties"))
_TYPE_OF = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


class Fit(Enum):
    """What becomes of a value or of a field of it."""

    REFUSED = auto()
    IGNORED = auto()
    """The sender sends a field that the receiver does not know."""
    NEVER_SENT = auto()
    """The receiver knows a field, with a default, that the sender does not."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """One place where the two differ. `place` begins with the nearest type that has a name: Volume.status."""

    fit: Fit
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class Fitting:
    """A sender's and a receiver's components. References must be good (`common.rpc.snapshot.read` sees to it)."""

    def __init__(self, sent: Mapping[str, Schema], taken: Mapping[str, Schema]) -> None:
        self._sent = sent
        self._taken = taken
        self._known: dict[tuple[str, str], tuple[Misfit, ...]] = {}

    def misfits(self, sent: Schema, taken: Schema, place: str) -> tuple[Misfit, ...]:
        """Every misfit of values of `sent` where `taken` is wanted; none when all fit."""
        names = sent.component, taken.component
        if names[0] is None or names[1] is None:
            ours, theirs = self._resolved(sent, self._sent), self._resolved(taken, self._taken)
            if theirs.any_of is not None and ours.any_of is None and ours.enum is None:
                return tuple(self._into_any(sent, taken, place))  # by its name, so that the place is told by it too
            return tuple(self._unnamed(ours, theirs, place))
        pair = (names[0], names[1])
        if pair not in self._known:
            self._known[pair] = ()  # a type within itself fits if the rest of it does
            self._known[pair] = tuple(self._unnamed(self._sent[pair[0]], self._taken[pair[1]], pair[1]))
        return self._known[pair]

    def _resolved(self, schema: Schema, components: Mapping[str, Schema]) -> Schema:
        """What a reference stands for, titled by its name for messages; any other schema as it is."""
        name = schema.component
        return schema if name is None else msgspec.structs.replace(components[name], title=name)

    def _unnamed(self, sent: Schema, taken: Schema, place: str) -> Iterator[Misfit]:
        if sent.any_of is not None:
            for part in sent.any_of:
                yield from self.misfits(part, taken, place)
        elif taken.type is None and taken.enum is None and taken.any_of is None:
            return
        elif sent.enum is not None:
            yield from self._values(sent.enum, taken, place)
        elif taken.any_of is not None:
            yield from self._into_any(sent, taken, place)
        elif taken.enum is not None or not _is_type(sent.type, taken.type):
            yield _refused(sent, taken, place)
        else:
            yield from self._same_type(sent, taken, place)

    def _into_any(self, sent: Schema, taken: Schema, place: str) -> Iterator[Misfit]:
        options, kind = self._resolved(taken, self._taken).any_of or (), self._resolved(sent, self._sent).type
        tried = [(option, self.misfits(sent, option, place)) for option in options]
        fitting = [found for _, found in tried if not any(misfit.fit is Fit.REFUSED for misfit in found)]
        if fitting:
            yield from min(fitting, key=len)
            return
        alike = [found for option, found in tried if kind and self._resolved(option, self._taken).type == kind]
        if len(alike) == 1:
            yield from alike[0]
        else:
            yield _refused(sent, taken, place)

    def _values(self, values: tuple[Any, ...], taken: Schema, place: str) -> Iterator[Misfit]:
        lost = tuple(value for value in values if not self._is_taken(value, taken))
        if lost:
            yield _refused(Schema(enum=lost), taken, place)

    def _is_taken(self, value: Any, taken: Schema) -> bool:
        wanted = self._resolved(taken, self._taken)
        if wanted.any_of is not None:
            return any(self._is_taken(value, option) for option in wanted.any_of)
        if wanted.enum is not None:
            return (type(value), value) in {(type(known), known) for known in wanted.enum}
        return not any(self._unnamed(_only(value), wanted, ""))

    def _same_type(self, sent: Schema, taken: Schema, place: str) -> Iterator[Misfit]:
        if not _within_limits(sent, taken):
            yield _refused(sent, taken, place)
        if taken.type == "array":
            yield from self._array(sent, taken, place)
        elif taken.type == "object":
            yield from self._object(sent, taken, place)

    def _array(self, sent: Schema, taken: Schema, place: str) -> Iterator[Misfit]:
        ours, theirs = sent.prefix_items or (), taken.prefix_items or ()
        first = max(len(ours), len(theirs))
        for number in range(first):
            have = ours[number] if number < len(ours) else sent.items
            want = theirs[number] if number < len(theirs) else taken.items
            if have is not False and want is not False:
                yield from self.misfits(_schema(have), _schema(want), f"{place}[{number}]")
        most = _at_most(sent, "max_items")
        if sent.items is not False and taken.items is not False and (most is None or most > first):
            yield from self.misfits(_schema(sent.items), _schema(taken.items), f"{place}[]")

    def _object(self, sent: Schema, taken: Schema, place: str) -> Iterator[Misfit]:
        ours, theirs = sent.properties or {}, taken.properties or {}
        for name in taken.required or ():
            if name not in (sent.required or ()):
                yield Misfit(Fit.REFUSED, f"{place}.{name}", "it is not always sent, and it is wanted")
        for name, schema in ours.items():
            yield from self._field(schema, taken, name, place)
        for name, schema in theirs.items():
            if name in ours or name in (taken.required or ()):
                continue
            if sent.properties is not None:
                yield Misfit(Fit.NEVER_SENT, f"{place}.{name}", "it is not sent, and its default is taken")
            elif sent.additional_properties is not False:
                yield from self.misfits(_schema(sent.additional_properties), schema, f"{place}.{name}")
        if sent.properties is None:
            yield from self._map(sent, taken, place)

    def _field(self, schema: Schema, taken: Schema, name: str, place: str) -> Iterator[Misfit]:
        known = (taken.properties or {}).get(name, taken.additional_properties)
        if isinstance(known, Schema):
            yield from self.misfits(schema, known, f"{place}.{name}")
        elif known is False:
            yield Misfit(Fit.REFUSED, f"{place}.{name}", "it is sent, and it is not known there")
        elif taken.properties is not None:
            yield Misfit(Fit.IGNORED, f"{place}.{name}", "it is sent, and it is passed over there")

    def _map(self, sent: Schema, taken: Schema, place: str) -> Iterator[Misfit]:
        if taken.additional_properties is False and sent.additional_properties is not False:
            yield _refused(sent, taken, place)
        elif taken.additional_properties is not False and sent.additional_properties is not False:
            yield from self.misfits(_schema(sent.additional_properties), _schema(taken.additional_properties), f"{place}[key]")
        if taken.property_names is not None:
            yield from self.misfits(_text(sent.property_names), _text(taken.property_names), f"a key of {place}")


def shown(schema: Schema) -> str:
    """A schema in a few words."""
    if schema.ref is not None:
        return schema.component or ""
    if schema.any_of is not None:
        return " or ".join(shown(part) for part in schema.any_of)
    if schema.enum is not None:
        return ", ".join(repr(value) for value in schema.enum)
    if schema.title is not None:
        return schema.title
    words = [f"{name.replace('_', ' ')} {value}" for name in _LIMITING if (value := getattr(schema, name)) is not None]
    return " ".join([schema.type or "anything", *([f"({', '.join(words)})"] if words else [])])


_LIMITING = (
    "format", "pattern", "content_encoding", "minimum", "exclusive_minimum", "maximum", "exclusive_maximum", "multiple_of",
    *(name for pair in _LIMITS for name in pair),
)  # fmt: skip


def _refused(sent: Schema, taken: Schema, place: str) -> Misfit:
    return Misfit(Fit.REFUSED, place, f"{shown(sent)} may come, and {shown(taken)} is wanted")


def _schema(part: Schema | bool | None) -> Schema:
    return part if isinstance(part, Schema) else ANYTHING


def _text(names: Schema | None) -> Schema:
    return msgspec.structs.replace(names or ANYTHING, type="string")


def _only(value: Any) -> Schema:
    """A schema of this value alone, as far as limits go."""
    kind = _TYPE_OF[type(value)]
    if kind == "string":
        return Schema(type=kind, min_length=len(value), max_length=len(value))
    return Schema(type=kind, minimum=value, maximum=value) if kind in {"integer", "number"} else Schema(type=kind)


def _is_type(sent: str | None, taken: str | None) -> bool:
    return sent == taken or (sent == "integer" and taken == "number")


def _within_limits(sent: Schema, taken: Schema) -> bool:
    if any(getattr(taken, name) not in {None, getattr(sent, name)} for name in _SAME_OR_FREE):
        return False
    if sent.content_encoding != taken.content_encoding:
        return False
    for least, most in _LIMITS:
        if (getattr(sent, least) or 0) < (getattr(taken, least) or 0):
            return False
        have, want = _at_most(sent, most), getattr(taken, most)
        if want is not None and (have is None or have > want):
            return False
    return _least(sent) >= _least(taken) and _most(sent) <= _most(taken)


def _at_most(sent: Schema, name: str) -> int | None:
    """A limit of what is sent; of an array whose places are all described, their number."""
    found: int | None = getattr(sent, name)
    return len(sent.prefix_items) if found is None and name == "max_items" and sent.prefix_items is not None else found


def _least(schema: Schema) -> tuple[float, bool]:
    """(the lower bound, whether it is excluded): the larger, the narrower."""
    bounds = [(-float("inf"), False)]
    if schema.minimum is not None:
        bounds.append((schema.minimum, False))
    if schema.exclusive_minimum is not None:
        bounds.append((schema.exclusive_minimum, True))
    return max(bounds)


def _most(schema: Schema) -> tuple[float, bool]:
    """(the upper bound, whether it is allowed): the smaller, the narrower."""
    bounds = [(float("inf"), True)]
    if schema.maximum is not None:
        bounds.append((schema.maximum, True))
    if schema.exclusive_maximum is not None:
        bounds.append((schema.exclusive_maximum, False))
    return min(bounds)
