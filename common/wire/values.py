"""Python values to JSON's and back.

Outwards as oslo.serialization's `to_primitive`: tuples and sets become lists, datetimes ISO text, enums their value. Inwards by the
type that the contract declares, strictly: a wrong type is named, not guessed.
"""

import json
from typing import Any

import msgspec

_TEXT_MAX = 500


class WrongValue(ValueError):
    """A value does not have the declared type."""


def to_primitive(value: Any) -> Any:
    """`value` with JSON's types only. Raises WrongValue for what has no JSON form: an unknown class, NaN, half a surrogate pair,
    a number of more than 4,300 digits, too deep a nesting.
    """
    try:
        found = msgspec.to_builtins(value, str_keys=True)
        # Asked here, where an error can still be answered: the encoder turns NaN into null and meets the others too late.
        json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise WrongValue(f"{type(value).__name__} cannot be sent: {exc}") from exc
    return found


def from_primitive(value: Any, wanted: Any) -> Any:
    """`value` as the type `wanted`. Raises WrongValue naming the place and the types."""
    if wanted is None or wanted is type(None):
        return None
    try:
        return msgspec.convert(value, wanted, str_keys=True)
    except (msgspec.ValidationError, UnicodeError, OverflowError, RecursionError) as exc:
        # The last three: half of a surrogate pair, a number beyond its type's range, too deep a nesting.
        raise WrongValue(_short(str(exc))) from exc


def _short(text: str) -> str:
    """Some of these errors quote the value, whose length the peer chose; the place stands at their end."""
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX // 2]} ... {text[-_TEXT_MAX // 2 :]}"
