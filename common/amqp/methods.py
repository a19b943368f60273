"""Method frames, by the table of `spec`: any of its methods to bytes and back."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from common.amqp import fields
from common.amqp.errors import COMMAND_INVALID, SYNTAX_ERROR, ProtocolError
from common.amqp.spec import BY_KEY, BY_NAME, FRAME_END, METHOD_FRAME, MethodSpec

FRAME = struct.Struct(">BHI")
KEY = struct.Struct(">I")
END = bytes((FRAME_END,))


@dataclass(frozen=True, slots=True)
class Method:
    """A method with its arguments, by the names of `spec`."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


@dataclass(frozen=True, slots=True)
class _Domain:
    """How values of one domain are written and read, and which one stands for an argument that was left out."""

    default: Any
    encode: Callable[[Any], bytes]
    decode: fields.Decoder


def _integer(form: str) -> Callable[[int], bytes]:
    packer = struct.Struct(form)

    def encode(value: int) -> bytes:
        try:
            return packer.pack(value)
        except struct.error as exc:
            raise ValueError(f"{value!r} is no number of {packer.size} bytes") from exc

    return encode


DOMAINS: dict[str, _Domain] = {
    "octet": _Domain(0, _integer(">B"), fields.octet),
    "short": _Domain(0, _integer(">H"), fields.short),
    "long": _Domain(0, _integer(">I"), fields.long),
    "longlong": _Domain(0, _integer(">Q"), fields.longlong),
    "shortstr": _Domain("", fields.encode_short, lambda data, at, _: fields.decode_short(data, at)),
    "longstr": _Domain(b"", fields.encode_long, lambda data, at, _: fields.decode_long(data, at)),
    "table": _Domain({}, fields.encode_table, fields.decode_table),
}
"""Of arguments, but for bits, of which those that stand together share an octet."""

_Group = tuple[str, ...]
_CODES: dict[str, tuple[tuple[_Domain | None, _Group], ...]] = {}
"""Of each method: a domain with one name, or None with the names of the bits of an octet."""


def _code(spec: MethodSpec) -> tuple[tuple[_Domain | None, _Group], ...]:
    if (found := _CODES.get(spec.name)) is not None:
        return found
    code: list[tuple[_Domain | None, _Group]] = []
    for is_bits, group in groupby(spec.fields, key=lambda each: each.domain == "bit"):
        if is_bits:
            code.append((None, tuple(each.name for each in group)))
        else:
            code += [(DOMAINS[each.domain], (each.name,)) for each in group]
    _CODES[spec.name] = made = tuple(code)
    return made


def encode_method(channel: int, name: str, arguments: Mapping[str, Any]) -> bytes:
    """The frame of a method; arguments that are left out are zero, empty or false.

    Raises ValueError for an argument that the method does not have, and for a value that its domain does not have.
    """
    spec = BY_NAME[name]
    parts = [KEY.pack(spec.key)]
    left = dict(arguments)
    for domain, names in _code(spec):
        if domain is None:
            parts.append(bytes((sum(1 << place for place, each in enumerate(names) if left.pop(each, False)),)))
        else:
            parts.append(domain.encode(left.pop(names[0], domain.default)))
    if left:
        raise ValueError(f"{name} has no argument {next(iter(left))}")
    payload = b"".join(parts)
    return FRAME.pack(METHOD_FRAME, channel, len(payload)) + payload + END


def decode_method(payload: bytes) -> tuple[MethodSpec, Method]:
    """The method in the payload of a method frame. Raises ProtocolError."""
    try:
        (key,) = KEY.unpack_from(payload)
        spec = BY_KEY.get(key)
        if spec is None:
            raise ProtocolError(COMMAND_INVALID, f"an unknown method {key >> 16}.{key & 0xFFFF}")
        arguments: dict[str, Any] = {}
        at = KEY.size
        for domain, names in _code(spec):
            if domain is None:
                bits = payload[at]
                at += 1
                arguments.update({each: bool(bits >> place & 1) for place, each in enumerate(names)})
            else:
                arguments[names[0]], at = domain.decode(payload, at, 0)
    except (struct.error, IndexError):
        raise ProtocolError(SYNTAX_ERROR, "a method frame that ends too early") from None
    if at != len(payload):
        raise ProtocolError(SYNTAX_ERROR, f"{spec.name} with {len(payload) - at} bytes too many")
    return spec, Method(spec.name, arguments)


def name_of(close: Method) -> str:
    """The method that a connection.close or channel.close is about; "" when it names none."""
    spec = BY_KEY.get(close["class_id"] << 16 | close["method_id"])
    return spec.name if spec else ""
