"""Python values to JSON's and back.

Outwards as oslo.serialization's `to_primitive`: tuples and sets become lists, datetimes ISO text, enums their value. Inwards by the
type that the contract declares, strictly: a wrong type is named, not guessed. What is declared a versioned object crosses in its
envelope (common.wire.objects).
"""

import json
from typing import Any

import msgspec

from common.base.limits import NESTING_MAX
from common.wire.nesting import is_surely_flat
from common.wire.objects import Misfit, WrongValue as WrongValue  # noqa: PLC0414  # re-exported on purpose
from common.wire.plan import plan_of

_TEXT_MAX = 500

_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False)


def to_primitive(value: Any, declared: Any = Any) -> Any:
    """`value` with JSON's types only, versioned objects in their envelopes where `declared` has them; by default, plain. Raises
    WrongValue for what has no JSON form: an unknown class, NaN, half a surrogate pair, a number of more than 4,300 digits, too
    deep a nesting.
    """
    plan = plan_of(declared)
    try:
        found = msgspec.to_builtins(value, str_keys=True)
        if plan is not None:
            found = plan.pack(found)
        if not is_sendable(found, msgspec.json.encode(found)):
            # Asked here, where an error can still be answered: msgspec turns NaN into null and meets the others too late.
            _JSON.encode(found).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise WrongValue(f"{type(value).__name__} cannot be sent: {exc}") from exc
    return found


def is_sendable(value: Any, written: bytes) -> bool:
    """True when msgspec wrote `value` as it is; of what it did not, or may not have, `to_primitive` says what is wrong with it."""
    if len(written) > NESTING_MAX and not is_surely_flat(written):  # most have fewer bytes than that
        return False
    return written.rfind(b"null") < 0 or _has_only_numbers(value)  # from the end: Python looks twice as fast there


def _has_only_numbers(value: Any) -> bool:
    """False when there may be a NaN in it, or an infinity, which msgspec writes as null too. MessagePack has them as they are."""
    try:
        packed = msgspec.msgpack.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return packed.find(_NOT_A_NUMBER) < 0 and packed.find(_NOT_A_NUMBER_EITHER) < 0  # `in` asks first whether it is a number


_NOT_A_NUMBER, _NOT_A_NUMBER_EITHER = b"\xcb\x7f", b"\xcb\xff"
"""Where a float of MessagePack begins whose exponent may be all ones (IEEE 754, 3.4)."""


def from_primitive(value: Any, wanted: Any) -> Any:
    """`value` as the type `wanted`. Raises WrongValue naming the place and the types."""
    if wanted is None or wanted is type(None):
        return None
    plan = plan_of(wanted)
    try:
        if plan is not None:
            value = plan.unpack(value)
        return msgspec.convert(value, wanted, str_keys=True)
    except (msgspec.ValidationError, UnicodeError, OverflowError) as exc:
        # The last two: half of a surrogate pair, a number beyond its type's range.
        raise WrongValue(_short(str(exc))) from exc
    except Misfit as exc:
        raise WrongValue(_short(f"{exc} - at `${exc.place}`" if exc.place else str(exc))) from exc
    except RecursionError as exc:
        raise WrongValue("nested too deep") from exc


def _short(text: str) -> str:
    """Some of these errors quote the value, whose length the peer chose; the place stands at their end."""
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX // 2]} ... {text[-_TEXT_MAX // 2 :]}"
