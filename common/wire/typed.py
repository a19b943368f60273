"""What a method takes and returns, between Python and the wire in one step each.

`values` goes by way of primitives and can say what is wrong with each; nearly always nothing is, and then a decoder that knows the
types is done in a fifth of the time. Whatever is unusual here goes that other way, so that both come to the same.
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from common.wire.envelope import UNREADABLE
from common.wire.plan import plan_of
from common.wire.values import WrongValue, from_primitive, is_sendable, to_primitive

_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)


class Typed:
    """Values of one type of a contract."""

    def __init__(self, declared: Any) -> None:
        self._declared = declared
        self._is_nothing = declared is None or declared is type(None)
        self.is_plain = plan_of(declared) is None
        """False when versioned objects may be in it: their envelopes are put around primitives."""
        self._decoder = msgspec.json.Decoder(declared) if self.is_plain else None

    def encode(self, value: Any) -> bytes:
        """The JSON of `to_primitive`. Raises WrongValue."""
        if self.is_plain and (written := _written(value)) is not None:
            return written
        return msgspec.json.encode(to_primitive(value, self._declared))

    def decode(self, written: bytes | msgspec.Raw) -> Any:
        """What `from_primitive` makes of it. Raises WrongValue."""
        if self._is_nothing:
            return None
        if self._decoder is not None:
            try:
                return self._decoder.decode(written)
            except UNREADABLE:
                pass
        try:
            value = msgspec.json.decode(written)
        except UNREADABLE as exc:
            raise WrongValue(f"not JSON: {exc}") from exc
        return from_primitive(value, self._declared)


class Signature:
    """The keyword arguments of one method, as the JSON object that they are on the wire.

    parameters   name -> type; `optional` are those that may be left out
    result       the type of what it returns
    """

    def __init__(self, parameters: Mapping[str, Any], optional: Collection[str], result: Any) -> None:
        self._parameters = parameters
        self._optional = frozenset(optional)
        self._result_type = result
        self._result: Typed | None = None
        self._objects: dict[str, Typed] | None = None
        self._decoder: msgspec.json.Decoder[Any] | None = None

    @property
    def result(self) -> Typed:
        """Of what it returns."""
        if self._result is None:
            self._result = Typed(self._result_type)
        return self._result

    def encode(self, arguments: Mapping[str, Any]) -> msgspec.Raw:
        """All of them; one that is no parameter goes as what it is. Raises WrongValue, naming the argument."""
        if self._objects is None:
            self._prepare()
        if not self._objects and (written := _written(arguments)) is not None:
            return msgspec.Raw(written)
        return msgspec.Raw(msgspec.json.encode({name: self._encoded(name, value) for name, value in arguments.items()}))

    def decode(self, written: msgspec.Raw) -> dict[str, Any] | None:
        """All of them, of their types; None: something is wrong, and `dispatch` says what."""
        if self._decoder is None:
            self._prepare()
        assert self._decoder is not None
        try:
            arguments = msgspec.structs.asdict(self._decoder.decode(written))
            if self._optional:
                arguments = {name: value for name, value in arguments.items() if value is not msgspec.UNSET}
            if self._objects:
                for name in self._objects.keys() & arguments.keys():
                    arguments[name] = self._objects[name].decode(arguments[name])
        except (*UNREADABLE, WrongValue):
            return None
        return arguments

    def _prepare(self) -> None:
        """At the first use: most methods of a contract are never called by a process that knows it."""
        typed = {name: Typed(declared) for name, declared in self._parameters.items()}
        self._objects = {name: each for name, each in typed.items() if not each.is_plain}
        needed, others = [], []
        for name, declared in self._parameters.items():
            wire_type = msgspec.Raw if name in self._objects else declared
            if name in self._optional:
                others.append((name, wire_type, msgspec.UNSET))
            else:
                needed.append((name, wire_type))
        record = msgspec.defstruct("Arguments", [*needed, *others], forbid_unknown_fields=True)
        self._decoder = msgspec.json.Decoder(record)

    def _encoded(self, name: str, value: Any) -> msgspec.Raw:
        assert self._objects is not None
        try:
            return msgspec.Raw(self._objects.get(name, _ANY).encode(value))
        except WrongValue as exc:
            raise WrongValue(f"argument {name}: {exc}") from exc


_ANY = Typed(Any)


def _written(value: Any) -> bytes | None:
    """The JSON of a value without versioned objects; None: look at it more closely."""
    try:
        written = msgspec.json.encode(value)
    except _UNWRITABLE:
        return None
    return written if is_sendable(value, written) else None
