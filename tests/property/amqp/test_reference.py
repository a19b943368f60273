"""Our codec against pamqp: what one writes the other reads, for every method, property and type of a field."""

from datetime import datetime
from typing import Any

import pamqp.commands
import pamqp.decode
import pamqp.encode
import pamqp.frame
import pamqp.header
import pytest
from hypothesis import given, settings, strategies as st

from common.amqp.content import (
    Form,
    Properties,
    decode_properties,
    encode_properties,
    publish_frames,
    publish_method,
)
from common.amqp.errors import ProtocolError
from common.amqp.fields import decode_table, encode_table, table_content
from common.amqp.frames import split
from common.amqp.methods import Method, decode_method, encode_method
from common.amqp.spec import FRAME_OVERHEAD, METHODS, PROPERTIES, MethodSpec
from tests.property.amqp.strategies import arguments, some, tables, their_arguments, their_tables, values

EXAMPLES = 8
THEIRS: dict[int, Any] = pamqp.commands.INDEX_MAPPING
KNOWN = [method for method in METHODS if method.key in THEIRS]


def test_the_table_is_pamqp_s_with_access_request_which_that_lacks() -> None:
    assert {method.key for method in METHODS} - THEIRS.keys() == {30 << 16 | 10, 30 << 16 | 11}
    assert THEIRS.keys() <= {method.key for method in METHODS}


@pytest.mark.parametrize("spec", KNOWN, ids=lambda spec: spec.name)
def test_a_method_has_the_fields_and_the_replies_that_pamqp_has(spec: MethodSpec) -> None:
    theirs = THEIRS[spec.key]
    assert theirs.name.lower() == spec.name.replace("-", "")
    assert [each.domain for each in spec.fields] == [theirs.amqp_type(name) for name in theirs.attributes()]
    replies = [name.lower() for name in getattr(theirs, "valid_responses", [])]
    assert [name.replace("-", "") for name in spec.replies] == replies


def plain(value: Any) -> Any:
    """As pamqp gives it: long strings are text there."""
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.filterwarnings("ignore:This command is deprecated")
@pytest.mark.parametrize("spec", KNOWN, ids=lambda spec: spec.name)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_what_we_write_pamqp_reads_and_the_other_way(spec: MethodSpec, data: st.DataObject) -> None:
    theirs = THEIRS[spec.key]
    by_place = dict(zip((each.name for each in spec.fields), theirs.attributes(), strict=True))
    arguments_ = data.draw(their_arguments(spec))
    defaults = {name: getattr(theirs(), by_place[name]) for name in by_place.keys() - arguments_.keys()}
    arguments_ |= {
        name: value.encode() if name == "reserved_1" and spec.name == "channel.open-ok" else value
        for name, value in defaults.items()
    }
    wire = encode_method(3, spec.name, arguments_)
    consumed, channel, found = pamqp.frame.unmarshal(wire)
    assert (consumed, channel, type(found)) == (len(wire), 3, theirs)
    assert {name: getattr(found, by_place[name]) for name in arguments_} == {
        name: plain(value) for name, value in arguments_.items()
    }
    ((kind, number, payload),) = split(pamqp.frame.marshal(found, 3))
    assert (kind, number) == (1, 3)
    assert decode_method(payload) == (spec, Method(spec.name, arguments_))


@pytest.mark.parametrize("spec", METHODS, ids=lambda spec: spec.name)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_every_method_comes_back_as_it_was(spec: MethodSpec, data: st.DataObject) -> None:
    given_ = data.draw(arguments(spec))
    ((_, channel, payload),) = split(encode_method(7, spec.name, given_))
    assert (channel, decode_method(payload)[1]) == (7, Method(spec.name, given_))


@pytest.mark.parametrize("spec", METHODS, ids=lambda spec: spec.name)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_method_that_is_cut_or_has_too_much_is_an_error_of_the_peer(spec: MethodSpec, data: st.DataObject) -> None:
    ((_, _, payload),) = split(encode_method(7, spec.name, data.draw(arguments(spec))))
    for wrong in (payload[: data.draw(st.integers(0, len(payload) - 1))], payload + b"\0"):
        with pytest.raises(ProtocolError):
            decode_method(wrong)


@settings(max_examples=100)
@given(table=tables)
def test_a_table_of_ours_comes_back_and_pamqp_reads_it(table: dict[str, Any]) -> None:
    wire = encode_table(table)
    assert decode_table(wire, 0) == (table, len(wire))
    assert pamqp.decode.field_table(wire) == (len(wire), table)


@settings(max_examples=100)
@given(table=their_tables)
def test_a_table_of_pamqp_is_read(table: dict[str, Any]) -> None:
    wire = pamqp.encode.field_table(table)
    assert decode_table(wire, 0) == (table, len(wire))


@settings(max_examples=EXAMPLES)
@given(found=some(PROPERTIES))
def test_properties_read_the_same_on_both_sides(found: dict[str, Any]) -> None:
    ours = Properties(**found)
    wire = encode_properties(ours)
    assert decode_properties(wire) == ours
    theirs = pamqp.header.ContentHeader()
    theirs.unmarshal(b"\0\x3c" + b"\0\0" + bytes(8) + wire)
    for name, value in found.items():
        theirs_name = {"type": "message_type"}.get(name, name)
        assert getattr(theirs.properties, theirs_name) == value, name
    assert decode_properties(theirs.marshal()[12:]) == ours


@settings(max_examples=EXAMPLES)
@given(
    headers=tables, expiration=st.none() | st.integers(0, 10**9).map(str), message_id=st.none() | st.integers(1, 2**64).map(str),
    body=st.sampled_from((0, 1, 4087, 4088, 4089, 9000)).map(bytes), mandatory=st.booleans(),
)  # fmt: skip
def test_the_short_way_to_frequent_messages_writes_the_same(
    headers: dict[str, Any], expiration: str | None, message_id: str | None, body: bytes, mandatory: bool
) -> None:
    form = Form(
        7, "x", "key", mandatory=mandatory, content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=0,
    )  # fmt: skip
    properties = Properties("application/json", "utf-8", headers, 2, 0, expiration=expiration, message_id=message_id)
    encoded, frame_bytes = encode_properties(properties), 4096

    def short() -> bytes:
        digits = {"expiration": (expiration or "").encode(), "message_id": (message_id or "").encode()}
        return form.frames(body, headers, **digits, frame_bytes=frame_bytes)

    if len(encoded) + 12 + FRAME_OVERHEAD > frame_bytes:
        with pytest.raises(ValueError, match="do not fit"):
            short()
        return
    method = publish_method(7, "x", "key", mandatory)
    assert short() == publish_frames(7, method=method, properties=encoded, body=body, frame_bytes=frame_bytes)


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (b"t\x01", True), (b"b\xff", -1), (b"B\xff", 255), (b"s\xff\xff", -1), (b"u\xff\xff", 65535), (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1), (b"l" + b"\xff" * 8, -1), (b"L" + b"\xff" * 8, -1), (b"f\x3f\x80\0\0", 1.0), (b"V", None),
        (b"S\0\0\0\x02\xff\xfe", b"\xff\xfe"), (b"x\0\0\0\x02ab", b"ab"), (b"T" + b"\xff" * 8, 2**64 - 1),
    ],
)  # fmt: skip
def test_every_type_of_a_field_is_read_as_rabbitmq_writes_it(wire: bytes, value: Any) -> None:
    table = b"\x01a" + wire
    assert decode_table(len(table).to_bytes(4, "big") + table, 0)[0] == {"a": value}


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, object(), {1, 2}, datetime(1969, 1, 1), {"a": 1j}])  # noqa: DTZ001
def test_what_has_no_type_in_a_table_is_an_error_of_the_caller(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        encode_table({"a": value})


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def test_a_table_has_a_depth_beyond_which_it_is_neither_written_nor_read() -> None:
    taken = encode_table({"a": nested(30)})
    assert decode_table(taken, 0)[0] == {"a": nested(30)}
    with pytest.raises(ValueError, match="deeper"):
        encode_table({"a": nested(40)})
    inner = b"A\0\0\0\0"
    for _ in range(40):
        inner = b"A" + len(inner).to_bytes(4, "big") + inner
    table = b"\x01a" + inner
    with pytest.raises(ProtocolError, match="deeper"):
        decode_table(len(table).to_bytes(4, "big") + table, 0)


@settings(max_examples=EXAMPLES)
@given(value=values)
def test_a_login_by_table_is_a_table_without_its_length(value: Any) -> None:
    assert encode_table({"LOGIN": value})[4:] == table_content({"LOGIN": value})
