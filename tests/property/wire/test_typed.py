"""The one step between Python and the wire comes to the same as the way by primitives, in values and in refusals."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from common.rpc.contract import Contract, methods_of
from common.rpc.dispatch import InvalidArguments
from common.wire.messages import Request, UsualRequest
from common.wire.typed import Signature, Typed
from common.wire.values import WrongValue, from_primitive, to_primitive
from tests.property.wire.targets import CONTRACTS, DISPATCHERS
from tests.property.wire.test_values import TYPES

numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8"), max_size=8)
things = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8
)


@pytest.mark.parametrize("name", TYPES)
@given(data=st.data())
def test_a_value_is_written_and_read_as_by_way_of_primitives(name: str, data: st.DataObject) -> None:
    declared, values = TYPES[name]
    value, typed = data.draw(values), Typed(declared)
    written = typed.encode(value)
    plain = to_primitive(value, declared)
    assert msgspec.json.decode(written) == msgspec.json.decode(msgspec.json.encode(plain))
    assert typed.decode(written) == from_primitive(msgspec.json.decode(written), declared) == value


@pytest.mark.parametrize("name", TYPES)
@given(thing=things)
def test_whatever_json_comes_is_taken_or_refused_as_by_way_of_primitives(name: str, thing: Any) -> None:
    declared, _ = TYPES[name]
    written = msgspec.json.encode(thing)
    thing = msgspec.json.decode(written)

    def outcome(read: Any) -> Any:
        try:
            return read()
        except WrongValue as exc:
            return str(exc)

    assert outcome(lambda: Typed(declared).decode(written)) == outcome(lambda: from_primitive(thing, declared))


def nested(depth: int) -> Any:
    """Lists in lists."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


class Opaque:
    """No JSON has it."""


NOT_SENDABLE = [
    float("nan"), float("inf"), [1.0, {"a": float("-inf")}], {"a": None, "b": [float("nan")]}, Opaque(), {"a": Opaque()}, "\ud800",
    [None, "\ud800"], nested(3000), 10**5000,
]  # fmt: skip


@pytest.mark.parametrize("value", NOT_SENDABLE, ids=range(len(NOT_SENDABLE)))
def test_what_has_no_json_form_is_refused_in_the_same_words(value: Any) -> None:
    with pytest.raises(WrongValue) as by_primitives:
        to_primitive(value)
    with pytest.raises(WrongValue) as at_once:
        Typed(Any).encode(value)
    assert str(at_once.value) == str(by_primitives.value)
    with pytest.raises(WrongValue, match=r"^argument thing: "):
        Signature({"thing": Any}, (), None).encode({"thing": value})


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, 2**63, 2**64 - 1, "null", b"\xcb\x7f\xff\xcb\xff", [None, 1e300, "\xcb\x7f"]])
def test_what_only_looks_like_no_number_is_sent(value: Any) -> None:
    found = Typed(Any).encode([None, value])
    assert msgspec.json.decode(found) == to_primitive([None, value])


def test_json_that_is_cut_off_is_no_value() -> None:
    with pytest.raises(WrongValue, match="not JSON"):
        Typed(list[int]).decode(b"[1, 2")


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.__name__)
@given(data=st.data())
def test_arguments_are_bound_at_once_where_they_are_bound_at_all(contract: type[Contract], data: st.DataObject) -> None:
    methods = methods_of(contract)
    method = methods[data.draw(st.sampled_from(sorted(methods)))]
    names = st.sampled_from([*method.parameters, "unknown"])
    args = data.draw(st.dictionaries(names, things, max_size=4)) | data.draw(
        st.fixed_dictionaries(dict.fromkeys(method.parameters, things)) | st.just({})
    )
    args = msgspec.json.decode(msgspec.json.encode(args))
    route = contract.__rpc_route__
    usual = UsualRequest(method.name, msgspec.Raw(msgspec.json.encode(args)), route.namespace, method.version)
    dispatcher = DISPATCHERS[contract]
    try:
        wanted = dispatcher.bind(Request(method.name, args, namespace=route.namespace, version=method.version))
    except InvalidArguments:
        assert dispatcher.bind_usual(usual) is None
        return
    found = dispatcher.bind_usual(usual)
    assert found is not None
    assert (found.method, found.arguments) == (wanted.method, wanted.arguments)


def test_an_argument_that_may_be_left_out_is_left_out() -> None:
    signature = Signature({"a": int, "b": str}, {"b"}, None)
    assert signature.decode(msgspec.Raw(b'{"a": 1}')) == {"a": 1}
    assert signature.decode(msgspec.Raw(b'{"a": 1, "b": "x"}')) == {"a": 1, "b": "x"}
    for wrong in (b"{}", b'{"a": "1"}', b'{"a": 1, "c": 2}', b"[]", b"7", b"{", b'{"a": 1, "b": null}'):
        assert signature.decode(msgspec.Raw(wrong)) is None
