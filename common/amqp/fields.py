"""Values on the wire: AMQP's elementary domains and field tables (4.2.1, 4.2.5), with RabbitMQ's errata for the types of a field.

Decoders take the payload of one frame and a place in it and give the value and the place behind it. What is cut off raises
struct.error or IndexError, which `methods` and `content` turn into ProtocolError: there is nothing to read beyond a frame.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from common.amqp.errors import RESOURCE_ERROR, SYNTAX_ERROR, ProtocolError
from common.amqp.limits import Limits

TABLE_DEPTH_MAX = Limits().table_depth
SHORT_MAX = 255
_U8, _U16, _U32, _U64 = (struct.Struct(form) for form in (">B", ">H", ">I", ">Q"))
_I8, _I16, _I32, _I64 = (struct.Struct(form) for form in (">b", ">h", ">i", ">q"))
_F32, _F64 = struct.Struct(">f"), struct.Struct(">d")
_DECIMAL = struct.Struct(">Bi")

Decoder = Callable[[bytes, int, int], tuple[Any, int]]
"""Payload, place, depth -> value, next place."""


# -- outwards -----------------------------------------------------------------------------------------------------------


def encode_short(text: str) -> bytes:
    """A short string. Raises ValueError for more than 255 bytes of UTF-8."""
    data = text.encode()
    if len(data) > SHORT_MAX:
        raise ValueError(f"a name of {len(data)} bytes; AMQP takes {SHORT_MAX}")
    return SIZES[len(data)] + data


SIZES = tuple(bytes((size,)) for size in range(SHORT_MAX + 1))
"""What stands before a short string of so many bytes."""


def encode_long(data: bytes) -> bytes:
    """A long string, which is any bytes."""
    return _U32.pack(len(data)) + data


NO_TABLE = bytes(4)


def encode_table(table: Mapping[str, Any], depth: int = 0) -> bytes:
    """A field table with its length. Raises ValueError for values that AMQP has no type for, and for what is nested too deep."""
    if not table:
        return NO_TABLE
    return encode_long(table_content(table, depth))


def table_content(table: Mapping[str, Any], depth: int = 0) -> bytes:
    """A field table without its length, as the login AMQPLAIN has it."""
    parts: list[bytes] = []
    for name, value in table.items():
        if type(value) is str and depth < TABLE_DEPTH_MAX:
            data = value.encode()
            parts += (encode_short(name), b"S", _U32.pack(len(data)), data)
        else:
            parts += (encode_short(name), _encode_field(value, depth + 1))
    return b"".join(parts)


def _encode_field(value: Any, depth: int) -> bytes:
    if depth > TABLE_DEPTH_MAX:
        raise ValueError(f"a table nested deeper than {TABLE_DEPTH_MAX}")
    encode = _FIELD_ENCODERS.get(type(value))
    if encode is None:  # a subclass: an enumeration, a NewType's base
        encode = next((found for kind, found in _FIELD_ENCODERS.items() if isinstance(value, kind)), None)
    if encode is None:
        raise ValueError(f"{type(value).__name__} is no type of a field table")
    return encode(value, depth)


def _encode_integer(value: int, _: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"I" + _I32.pack(value)
    if -(2**63) <= value < 2**63:
        return b"l" + _I64.pack(value)
    raise ValueError("an integer of more than 64 bits in a field table")


def _encode_decimal(value: Decimal, _: int) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is no number")  # noqa: TRY004 - the value is wrong, not its type
    number = int("".join(map(str, digits)) or "0") * 10 ** max(exponent, 0) * (-1 if sign else 1)
    if not -(2**31) <= number < 2**31 or -exponent > SHORT_MAX:
        raise ValueError(f"{value} has more digits than AMQP's decimals")
    return b"D" + _DECIMAL.pack(max(-exponent, 0), number)


def _encode_time(value: datetime, _: int) -> bytes:
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    seconds = int(aware.timestamp())
    if seconds < 0:
        raise ValueError(f"{value} is before 1970")
    return b"T" + _U64.pack(seconds)


def _encode_array(value: Sequence[Any], depth: int) -> bytes:
    return b"A" + encode_long(b"".join([_encode_field(item, depth + 1) for item in value]))


_FIELD_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    bool: lambda value, _: b"t\x01" if value else b"t\x00",
    int: _encode_integer,
    str: lambda value, _: b"S" + encode_long(value.encode()),
    bytes: lambda value, _: b"x" + encode_long(value),
    float: lambda value, _: b"d" + _F64.pack(value),
    Decimal: _encode_decimal,
    datetime: _encode_time,
    dict: lambda value, depth: b"F" + encode_table(value, depth),
    list: _encode_array,
    tuple: _encode_array,
    type(None): lambda *_: b"V",
    Mapping: lambda value, depth: b"F" + encode_table(value, depth),
}
"""By type; `bool` stands before `int`, which it is a kind of."""


# -- inwards ------------------------------------------------------------------------------------------------------------


def decode_short(data: bytes, at: int) -> tuple[str, int]:
    """Any publisher may have chosen the bytes of a name: those that are no UTF-8 become U+FFFD."""
    start = at + 1
    end = start + data[at]
    if end > len(data):
        raise IndexError
    return data[start:end].decode("utf-8", "replace"), end


def decode_two_short(data: bytes, at: int) -> tuple[str, str, int]:
    """Two short strings, one behind the other, and the place behind both."""
    middle = at + 1 + data[at]
    end = middle + 1 + data[middle]
    if end > len(data):
        raise IndexError
    return data[at + 1 : middle].decode("utf-8", "replace"), data[middle + 1 : end].decode("utf-8", "replace"), end


def decode_long(data: bytes, at: int) -> tuple[bytes, int]:
    """A long string."""
    (size,) = _U32.unpack_from(data, at)
    end = at + 4 + size
    if end > len(data):
        raise IndexError
    return data[at + 4 : end], end


def decode_table(data: bytes, at: int, depth: int = 0) -> tuple[dict[str, Any], int]:
    """A field table; of a name that stands there twice the last value counts. Raises ProtocolError."""
    end = _end_of(data, at, depth)
    at += 4
    found: dict[str, Any] = {}
    while at < end:
        name_end = at + 1 + data[at]
        name, kind = data[at + 1 : name_end].decode("utf-8", "replace"), data[name_end]
        if kind == _TEXT:
            start = name_end + 5
            at = start + _U32.unpack_from(data, name_end + 1)[0]
            try:
                found[name] = data[start:at].decode()
            except UnicodeDecodeError:
                found[name] = data[start:at]
            continue
        decode = _FIELD_DECODERS.get(kind)
        if decode is None:
            raise ProtocolError(SYNTAX_ERROR, f"a field of the unknown type {kind}")
        found[name], at = decode(data, name_end + 1, depth + 1)
    return found, _exactly(at, end)


_TEXT = ord("S")


def _decode_field(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    decode = _FIELD_DECODERS.get(data[at])
    if decode is None:
        raise ProtocolError(SYNTAX_ERROR, f"a field of the unknown type {data[at]}")
    return decode(data, at + 1, depth)


def _decode_array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    end = _end_of(data, at, depth)
    at += 4
    found = []
    while at < end:
        item, at = _decode_field(data, at, depth + 1)
        found.append(item)
    return found, _exactly(at, end)


def _end_of(data: bytes, at: int, depth: int) -> int:
    if depth > TABLE_DEPTH_MAX:
        raise ProtocolError(RESOURCE_ERROR, f"a table nested deeper than {TABLE_DEPTH_MAX}")
    (size,) = _U32.unpack_from(data, at)
    end: int = at + 4 + size
    if end > len(data):
        raise IndexError
    return end


def _exactly(at: int, end: int) -> int:
    if at != end:
        raise ProtocolError(SYNTAX_ERROR, "a table whose last field is longer than the table")
    return at


def _decode_text(data: bytes, at: int, _: int) -> tuple[str | bytes, int]:
    found, at = decode_long(data, at)
    try:
        return found.decode(), at
    except UnicodeDecodeError:
        return found, at


def _decode_decimal(data: bytes, at: int, _: int) -> tuple[Decimal, int]:
    places, number = _DECIMAL.unpack_from(data, at)
    return Decimal(number).scaleb(-places), at + _DECIMAL.size


def decode_time(data: bytes, at: int, _: int = 0) -> tuple[datetime | int, int]:
    """A moment, UTC; one that Python has no date for stays a number of seconds."""
    (seconds,) = _U64.unpack_from(data, at)
    try:
        return datetime.fromtimestamp(seconds, UTC), at + 8
    except (ValueError, OverflowError, OSError):
        return seconds, at + 8


def _number(form: struct.Struct) -> Decoder:
    size, unpack_from = form.size, form.unpack_from

    def decode(data: bytes, at: int, _: int = 0) -> tuple[Any, int]:
        return unpack_from(data, at)[0], at + size

    return decode


_FIELD_DECODERS: dict[int, Decoder] = {
    ord("t"): lambda data, at, _: (data[at] != 0, at + 1),
    ord("b"): _number(_I8),
    ord("B"): _number(_U8),
    ord("s"): _number(_I16),
    ord("u"): _number(_U16),
    ord("I"): _number(_I32),
    ord("i"): _number(_U32),
    ord("l"): _number(_I64),
    ord("L"): _number(_I64),
    ord("f"): _number(_F32),
    ord("d"): _number(_F64),
    ord("D"): _decode_decimal,
    ord("S"): _decode_text,
    ord("x"): lambda data, at, _: decode_long(data, at),
    ord("A"): _decode_array,
    ord("T"): decode_time,
    ord("F"): decode_table,
    ord("V"): lambda _, at, __: (None, at),
}
"""Types as RabbitMQ reads them: `s` is a number here, though the specification of 0-9-1 calls `U` so."""

octet, short, long, longlong = _number(_U8), _number(_U16), _number(_U32), _number(_U64)
