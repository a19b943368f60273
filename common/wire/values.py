"""Python values to JSON's and back.

Outwards as oslo.serialization's `to_primitive`: tuples and sets become lists, datetimes ISO text, enums their value. Inwards by the
type that the contract declares, strictly: a wrong type is named, not guessed.
"""

from typing import Any

import msgspec


class WrongValue(ValueError):
    """A value does not have the declared type."""


def to_primitive(value: Any) -> Any:
    """`value` with JSON's types only. Raises WrongValue for an object that has no JSON form."""
    try:
        return msgspec.to_builtins(value, str_keys=True)
    except (TypeError, ValueError, RecursionError) as exc:
        raise WrongValue(f"{type(value).__name__} cannot be sent: {exc}") from exc


def from_primitive(value: Any, wanted: Any) -> Any:
    """`value` as the type `wanted`. Raises WrongValue naming the place and the types."""
    if wanted is None or wanted is type(None):
        return None
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as exc:
        raise WrongValue(str(exc)) from exc
