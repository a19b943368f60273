"""Whether one type's values fit another's is judged by schemas; here the judgement is held against what the wire's own reader does."""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from itertools import product
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

from common.rpc.fitting import Fit, Fitting
from common.rpc.schema import schemas_of
from common.wire.values import WrongValue, from_primitive, to_primitive


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class MoreColors(StrEnum):
    RED = "red"
    BLUE = "blue"
    GREEN = "green"


class Number(IntEnum):
    ONE = 1


class Point(msgspec.Struct, kw_only=True):
    x: int


class Point3(msgspec.Struct, kw_only=True):
    x: int
    z: int


class PointWithDefault(msgspec.Struct, kw_only=True):
    x: int
    z: int = 0


class FloatPoint(msgspec.Struct, kw_only=True):
    x: float


class StrictPoint(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    x: int


class Tree(msgspec.Struct, kw_only=True):
    x: int
    children: list["Tree"] = []


class FloatTree(msgspec.Struct, kw_only=True):
    x: float
    children: list["FloatTree"] = []


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


class Keys(TypedDict):
    x: int


class Pair(msgspec.Struct, array_like=True):
    a: int
    b: str


# Refused although the reader takes it: base64 as a text of its own, and a field that only our own senders never leave out.
STRICTER = [(bytes, str), (bytes, str | None), (bytes, int | str), (PointWithDefault, Point3)]

# Each type with values that show all of it: at its limits, and of each kind that it allows.
TYPES: list[tuple[Any, list[Any]]] = [
    (Any, [1, "no date", None, True, 1.5, [1], {"x": 1}, {"y": "a"}, []]),
    (int, [0, -5, 7, 10**6]),
    (Annotated[int, msgspec.Meta(ge=0, le=10)], [0, 10]),
    (Annotated[int, msgspec.Meta(gt=0, lt=100)], [1, 99]),
    (float, [0.5, -1e9, 1.5, 2.0**40]),
    (str, ["", "no date", "a" * 50, "red"]),
    (Annotated[str, msgspec.Meta(max_length=5)], ["", "abcde"]),
    (Annotated[str, msgspec.Meta(min_length=2, max_length=5)], ["ab", "abcde"]),
    (bytes, [b"abcd"]),
    (bool, [True, False]),
    (type(None), [None]),
    (datetime, [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1)]),  # noqa: DTZ001
    (datetime | None, [datetime(2026, 1, 1, tzinfo=UTC), None]),
    (str | None, ["no date", None, "red"]),
    (int | str, [5, "no date"]),
    (Color, list(Color)),
    (MoreColors, list(MoreColors)),
    (Color | None, [*Color, None]),
    (Number, [1]),
    (Literal["red"], ["red"]),
    (Literal["red", 1], ["red", 1]),
    (Point, [Point(x=1)]),
    (Point3, [Point3(x=1, z=2)]),
    (PointWithDefault, [PointWithDefault(x=1)]),
    (FloatPoint, [FloatPoint(x=1.5)]),
    (StrictPoint, [StrictPoint(x=1)]),
    (Point | None, [Point(x=1), None]),
    (Tree, [Tree(x=1, children=[Tree(x=2)])]),
    (FloatTree, [FloatTree(x=1.5, children=[FloatTree(x=2.5)])]),
    (Cat | Dog, [Cat(1), Dog("a")]),
    (Cat, [Cat(1)]),
    (Keys, [{"x": 1}]),
    (Pair, [Pair(1, "a")]),
    (list[int], [[], [1], [1] * 9]),
    (list[str], [[], ["a"]]),
    (list[Point], [[], [Point(x=1)]]),
    (list[Any], [[], [1, "a", None]]),
    (Annotated[list[int], msgspec.Meta(max_length=3)], [[], [1, 2, 3]]),
    (tuple[int, ...], [(), (1, 2, 3, 4)]),
    (tuple[int, str], [(1, "a")]),
    (tuple[int, str, bool], [(1, "a", True)]),
    (dict[str, int], [{}, {"x": 1}, {"y": 2}]),
    (dict[str, Any], [{}, {"x": "a"}, {"y": None}]),
    (Mapping[str, str], [{}, {"x": "a"}]),
]


def _works(values: list[Any], taken: Any) -> bool:
    try:
        for value in values:
            from_primitive(to_primitive(value), taken)
    except WrongValue:
        return False
    return True


def _fits(sent: Any, taken: Any) -> list[str]:
    (ours,), components = schemas_of([sent])
    (theirs,), others = schemas_of([taken])
    return [str(misfit) for misfit in Fitting(components, others).misfits(ours, theirs, "value") if misfit.fit is Fit.REFUSED]


def test_the_judgement_is_the_reader_s_for_every_pair_of_types() -> None:
    wrong = []
    for (sent, values), (taken, _) in product(TYPES, TYPES):
        if taken is type(None):
            continue  # a result of None is never looked at
        found, works = _fits(sent, taken), _works(values, taken)
        assert (found and works) or (sent, taken) not in STRICTER
        if (not found) != works and (sent, taken) not in STRICTER:
            wrong.append((sent, taken, found, works))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize(
    ("sent", "taken", "words"),
    [
        (MoreColors, Color, ["'green' may come, and 'blue', 'red' is wanted"]),
        (str, int, ["value: string may come, and integer is wanted"]),
        (Point, Point3, ["Point3.z: it is not always sent, and it is wanted"]),
        (Point, Point3 | None, ["Point3.z: it is not always sent"]),
        (FloatPoint | None, Point | None, ["Point.x: number may come"]),
        (list[Point | None], list[Point], ["value[]", "null may come"]),
        (dict[str, str], dict[str, int], ["value[key]: string may come"]),
        (tuple[int, str], tuple[int, int], ["value[1]: string may come"]),
        (Annotated[int, msgspec.Meta(le=9)], Annotated[int, msgspec.Meta(le=5)], ["integer (maximum 9)", "integer (maximum 5)"]),
    ],
)
def test_a_misfit_names_the_place_and_both_types(sent: Any, taken: Any, words: list[str]) -> None:
    (text,) = _fits(sent, taken)
    assert all(word in text for word in words), text


def test_fields_that_only_one_side_has_are_told_apart_from_refused_ones() -> None:
    (point, default), components = schemas_of([Point, PointWithDefault])
    fitting = Fitting(components, components)
    assert [(found.fit, found.place) for found in fitting.misfits(point, default, "v")] == [(Fit.NEVER_SENT, "PointWithDefault.z")]
    assert [(found.fit, found.place) for found in fitting.misfits(default, point, "v")] == [(Fit.IGNORED, "Point.z")]
