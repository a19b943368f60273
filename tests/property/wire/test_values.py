"""Whatever type a contract declares: its values arrive equal, and other values are refused and named."""

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from common.wire.messages import Reply, decode_reply, encode_reply
from common.wire.values import WrongValue, from_primitive, to_primitive


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 0
    HIGH = 4


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    size_gib: int | None = None
    tags: tuple[str, ...] = ()


texts = st.text(st.characters(codec="utf-8"), max_size=10)
disks = st.builds(Disk, name=texts, size_gib=st.none() | st.integers(), tags=st.lists(texts, max_size=3).map(tuple))

TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "int": (int, st.integers()),
    "float": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "bool": (bool, st.booleans()),
    "str": (str, texts),
    "optional": (str | None, st.none() | texts),
    "bytes": (bytes, st.binary(max_size=20)),
    "uuid": (uuid.UUID, st.uuids()),
    "date": (date, st.dates()),
    "datetime": (datetime, st.datetimes(timezones=st.none() | st.just(UTC))),
    "timedelta": (timedelta, st.timedeltas(timedelta(days=-999), timedelta(days=999))),
    "decimal": (Decimal, st.decimals(allow_nan=False, allow_infinity=False, places=3)),
    "enum": (Color, st.sampled_from(Color)),
    "int enum": (Level, st.sampled_from(Level)),
    "list": (list[int], st.lists(st.integers(), max_size=4)),
    "tuple": (tuple[int, str], st.tuples(st.integers(), texts)),
    "set": (set[str], st.sets(texts, max_size=4)),
    "dict": (dict[str, float], st.dictionaries(texts, st.floats(allow_nan=False, allow_infinity=False), max_size=4)),
    "dict of numbers": (dict[int, str], st.dictionaries(st.integers(), texts, max_size=4)),
    "struct": (Disk, disks),
    "structs": (dict[Color, list[Disk]], st.dictionaries(st.sampled_from(Color), st.lists(disks, max_size=2))),
}


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_a_value_of_a_declared_type_arrives_equal_over_the_wire(name: str, data: st.DataObject) -> None:
    wanted, values = TYPES[name]
    value = data.draw(values)
    reply = decode_reply(encode_reply(Reply("m", to_primitive(value))))
    assert from_primitive(reply.result, wanted) == value


@pytest.mark.parametrize(
    ("value", "wanted", "named"),
    [
        ("5", int, "Expected `int`, got `str`"),
        (1, str, "Expected `str`, got `int`"),
        (1, bool, "Expected `bool`, got `int`"),
        (None, str, "Expected `str`, got `null`"),
        ("green", Color, "Invalid enum value 'green'"),
        ({"size_gib": 1}, Disk, "missing required field `name`"),
        ({"name": "a", "tags": ["b", 3]}, Disk, r"got `int` - at `\$.tags\[1\]`"),
        ({"x": 1}, dict[int, int], "Expected `int`, got `str`"),
    ],
)
def test_a_value_of_another_type_is_refused_and_its_place_named(value: Any, wanted: Any, named: str) -> None:
    with pytest.raises(WrongValue, match=named):
        from_primitive(value, wanted)


def test_what_a_method_without_a_result_answers_is_not_looked_at() -> None:
    assert from_primitive({"any": 1}, None) is None
    assert from_primitive({"any": 1}, type(None)) is None


def test_fields_of_a_newer_peer_are_overlooked() -> None:
    assert from_primitive({"name": "a", "colour": "red"}, Disk) == Disk(name="a")
