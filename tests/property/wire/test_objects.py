"""Versioned objects: whatever the struct, it arrives equal in an envelope; whatever the envelope, it is taken or refused by name."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from common.wire.messages import Reply, decode_reply, encode_reply
from common.wire.objects import ObjectNamespace
from common.wire.values import WrongValue, from_primitive, to_primitive

STORE = ObjectNamespace("store_object", "store")
OTHER = ObjectNamespace("other_object", "other")


@STORE.versioned_object("1.3", extensions=["note"])
class Tag(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    note: str | None = None
    at: datetime | None = None


class Plain(msgspec.Struct, frozen=True, kw_only=True):
    tag: Tag | None = None
    at: datetime | None = None


@STORE.versioned_object("2.8", list_version="1.4", inner={"kind": STORE.inner("Kind", "1.0", attribute="name", copied=["size"])})
class Box(msgspec.Struct, frozen=True, kw_only=True):
    name: str = msgspec.field(name="display_name")
    size: int = 0
    kind: str = ""
    made_at: datetime | None = None
    tags: tuple[Tag, ...] = msgspec.field(default=(), name="labels")
    by_name: dict[str, Tag] = msgspec.field(default_factory=dict)
    plain: Plain | None = None
    boxes: "list[Box]" = msgspec.field(default_factory=list)


texts = st.text(st.characters(codec="utf-8"), max_size=8)
seconds = st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2900, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
tags = st.builds(Tag, text=texts, note=st.none() | texts.filter(bool), at=seconds)
plains = st.builds(Plain, tag=st.none() | tags, at=seconds)
boxes = st.recursive(
    st.builds(
        Box, name=texts, size=st.integers(), kind=texts, made_at=seconds, tags=st.lists(tags, max_size=2).map(tuple),
        by_name=st.dictionaries(texts, tags, max_size=2), plain=st.none() | plains, boxes=st.just([]),
    ),
    lambda inner: st.builds(Box, name=texts, boxes=st.lists(inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip

DECLARED: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "object": (Box, boxes),
    "optional": (Box | None, st.none() | boxes),
    "list": (list[Box], st.lists(boxes, max_size=3)),
    "list without a list object": (list[Tag] | None, st.none() | st.lists(tags, max_size=3)),
    "tuple": (tuple[Box, ...], st.lists(boxes, max_size=3).map(tuple)),
    "fixed tuple": (tuple[int, Box], st.tuples(st.integers(), boxes)),
    "set": (frozenset[Tag], st.frozensets(tags, max_size=3)),
    "dict": (dict[str, Box], st.dictionaries(texts, boxes, max_size=3)),
    "dict of lists": (dict[str, list[Box]], st.dictionaries(texts, st.lists(boxes, max_size=2), max_size=2)),
    "struct that holds one": (Plain, plains),
}


def over_the_wire(value: Any, declared: Any) -> Any:
    return decode_reply(encode_reply(Reply("m", to_primitive(value, declared)))).result


@pytest.mark.parametrize("name", DECLARED)
@given(data=st.data())
def test_an_object_arrives_equal_wherever_it_is_declared(name: str, data: st.DataObject) -> None:
    declared, values = DECLARED[name]
    value = data.draw(values)
    assert from_primitive(over_the_wire(value, declared), declared) == value


@pytest.mark.parametrize("name", DECLARED)
@given(data=st.data())
def test_without_envelopes_it_arrives_too(name: str, data: st.DataObject) -> None:
    declared, values = DECLARED[name]
    value = data.draw(values)
    assert from_primitive(to_primitive(value), declared) == value


def test_an_envelope_has_the_names_of_oslo_versionedobjects() -> None:
    moment = datetime(2026, 11, 23, 5, 12, 6, 999999, tzinfo=timezone(timedelta(hours=2)))
    box = Box(name="a", size=3, kind="big", made_at=moment, tags=(Tag(text="t"),), boxes=[Box(name="b")])
    found = over_the_wire([box], list[Box])
    assert envelope(found, "BoxList", "1.4").keys() == {"objects"}
    data = envelope(envelope(found, "BoxList", "1.4")["objects"][0], "Box", "2.8")
    assert (data["display_name"], data["made_at"]) == ("a", "2026-11-23T03:12:06Z")
    assert envelope(data["kind"], "Kind", "1.0") == {"name": "big", "size": 3}
    assert envelope(data["labels"][0], "Tag", "1.3") == {"text": "t", "at": None}
    inner = envelope(envelope(data["boxes"], "BoxList", "1.4")["objects"][0], "Box", "2.8")
    assert inner.keys() >= {"display_name", "made_at"}
    assert "kind" not in inner


def envelope(found: dict[str, Any], name: str, version: str) -> dict[str, Any]:
    assert {key: value for key, value in found.items() if key != "store_object.data"} == {
        "store_object.name": name,
        "store_object.namespace": "store",
        "store_object.version": version,
    }
    return dict(found["store_object.data"])


def tag(data: Any, **changed: Any) -> dict[str, Any]:
    whole = {"name": "Tag", "namespace": "store", "version": "1.3", "data": data, "changes": ["text"], **changed}
    return {f"store_object.{key}": value for key, value in whole.items() if value is not ...}


@pytest.mark.parametrize("version", ["1.0", "1.3", "1.4", "1.99", "1.3.1"])
def test_any_minor_version_is_taken_and_its_unknown_fields_are_overlooked(version: str) -> None:
    assert from_primitive(tag({"text": "t", "colour": "red"}, version=version), Tag) == Tag(text="t")


def test_what_is_not_set_or_null_has_the_value_by_default() -> None:
    data = {"display_name": "a", "size": None, "labels": None, "plain": None}
    whole = {"name": "Box", "namespace": "store", "version": "2.0", "data": data}
    assert from_primitive({f"store_object.{key}": value for key, value in whole.items()}, Box) == Box(name="a")


@pytest.mark.parametrize(
    ("wire", "declared", "named"),
    [
        (tag({"text": "t"}, version="2.0"), Tag, "Expected store's Tag 1.3, got store's Tag 2.0"),
        (tag({"text": "t"}, version="0.9"), Tag, "Expected store's Tag 1.3, got store's Tag 0.9"),
        (tag({"text": "t"}, name="Label"), Tag, "Expected store's Tag 1.3, got store's Label 1.3"),
        (tag({"text": "t"}, namespace="other"), Tag, "Expected store's Tag 1.3, got other's Tag 1.3"),
        (to_primitive(Tag(text="t"), Tag), list[Box], "Expected store's BoxList 1.4, got store's Tag 1.3"),
        ({"other_object.name": "X", "other_object.data": {}}, Tag, "Expected store's Tag 1.3, got null's X null"),
        (tag({"text": "t"}, name=...), Tag, "Expected store's Tag 1.3, got store's null 1.3"),
        (tag({"text": "t"}, version=1.3), Tag, "Expected store's Tag 1.3, got store's Tag `float`"),
        (tag({"text": "t"}, version="1.x"), Tag, "Expected store's Tag 1.3, got store's Tag 1.x"),
        (tag({"text": "t"}, version="1." + "9" * 10**6), Tag, "Expected store's Tag 1.3, got store's Tag 1.999"),
        (tag({"text": "t"}, name={"a": 10**5000}), Tag, "got store's `dict` 1.3"),
        (tag(...), Tag, "Expected `object` in `store_object.data` of Tag, got null"),
        (tag(["text"]), Tag, "Expected `object` in `store_object.data` of Tag, got `list`"),
        (tag({"text": "t"}, changes="text"), Tag, "Expected names in `store_object.changes` of Tag, got text"),
        (tag({"text": "t"}, changes=[1]), Tag, "Expected names in `store_object.changes` of Tag, got `list`"),
        (tag({"note": "n"}), Tag, "missing required field `text`"),
        (tag({"text": None}), Tag, r"Expected `str`, got `null` - at `\$.text`"),
        (tag({"text": 3}), Tag, r"Expected `str`, got `int` - at `\$.text`"),
        ({"display_name": "a", "kind": tag({})}, Box, r"Expected store's Kind 1.0, got store's Tag 1.3 - at `\$.kind`"),
        ({"display_name": "a", "labels": [tag({"text": "a"}), tag({}, version="3.0")]}, Box, r"Tag 3.0 - at `\$.labels\[1\]`"),
        ({"x": [{"display_name": "a", "plain": {"tag": tag({}, name="Z")}}]}, dict[str, list[Box]], r"at `\$\[...\]\[0\].plain.tag`"),
    ],
)  # fmt: skip
def test_another_object_is_refused_and_both_are_named(wire: Any, declared: Any, named: str) -> None:
    with pytest.raises(WrongValue, match=named) as refused:
        from_primitive(wire, declared)
    assert len(str(refused.value)) < 300


keys = st.sampled_from([f"store_object.{key}" for key in ("name", "namespace", "version", "data", "changes")]) | texts
junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.sampled_from(["Box", "Tag", "BoxList", "store", "2.8", "1.3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)


def swapped(found: Any, data: st.DataObject) -> Any:
    """One place of a message, at any depth, is something else."""
    if isinstance(found, dict | list) and found and data.draw(st.integers(0, 3)):
        chosen = data.draw(st.sampled_from(sorted(found) if isinstance(found, dict) else range(len(found))))
        copied = found.copy()
        copied[chosen] = swapped(found[chosen], data)
        return copied
    return data.draw(junk)


@pytest.mark.parametrize("name", DECLARED)
@given(data=st.data())
def test_any_hostile_envelope_is_taken_or_a_wrong_value(name: str, data: st.DataObject) -> None:
    declared, values = DECLARED[name]
    hostile = swapped(over_the_wire(data.draw(values), declared), data)
    try:
        from_primitive(hostile, declared)
    except WrongValue as exc:
        assert str(exc)  # noqa: PT017  # both ends are right


@pytest.mark.parametrize("depth", [10, 200, 500, 990, 5000])
def test_any_depth_is_taken_or_a_wrong_value(depth: int) -> None:
    found: dict[str, Any] = {"display_name": "a"}
    for _ in range(depth):
        found = {"display_name": "a", "boxes": [found]}
    try:
        assert isinstance(from_primitive(found, Box), Box)
    except WrongValue as exc:
        assert "nested too deep" in str(exc)  # noqa: PT017  # both ends are right


def test_what_cannot_be_declared_is_said_at_once() -> None:
    with pytest.raises(TypeError, match="Wrong has no field colour"):

        @STORE.versioned_object("1.0", extensions=["colour"])
        class Wrong(msgspec.Struct):
            text: str = ""

    with pytest.raises(TypeError, match="Row is array_like"):

        @STORE.versioned_object("1.0")
        class Row(msgspec.Struct, array_like=True):
            text: str = ""


def test_a_union_of_two_kinds_of_objects_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be told apart"):
        to_primitive(Tag(text="t"), Tag | list[Box])


def test_a_subclass_is_not_the_object_that_its_base_is() -> None:
    class Label(Tag, frozen=True, kw_only=True):
        pass

    assert to_primitive(Label(text="t"), Label) == {"text": "t", "note": None, "at": None}


def test_what_nobody_declares_crosses_plain() -> None:
    assert to_primitive({"a": [Tag(text="t")]}, Any) == {"a": [{"text": "t", "note": None, "at": None}]}
