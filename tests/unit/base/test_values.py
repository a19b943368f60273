"""Frozen dataclasses that are cheap to make are frozen dataclasses."""

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from common.base.context import Context
from common.base.trace import Trace
from common.base.values import cheap


@cheap
@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


class Named(Point):
    __slots__ = ()


def test_it_is_made_compared_and_shown_as_ever() -> None:
    assert Point(1) == Point(x=1, y=2, tags=[])
    assert Point(1) != Point(2)
    assert repr(Point(1, 3, ["a"])).endswith("Point(x=1, y=3, tags=['a'])")
    assert Point(1).tags is not Point(1).tags
    assert replace(Point(1), y=5) == Point(1, 5)
    assert type(Named(1)) is Named


@pytest.mark.parametrize("arguments", [(), (1, 2, [], 4)])
def test_what_does_not_fit_its_signature_is_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        Point(*arguments)  # type: ignore[arg-type]


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Context().user_id = "u"  # type: ignore[misc]


def test_it_can_be_pickled() -> None:
    trace = Trace.new()
    assert pickle.loads(pickle.dumps(trace)) == trace


def test_it_is_for_frozen_dataclasses_with_slots_only() -> None:
    @dataclass
    class Open:
        x: int

    with pytest.raises(TypeError, match="Open is no frozen dataclass"):
        cheap(Open)
