"""Errors on the wire: a JSON string of class, module, message, tb, args, kwargs (`_drivers/common.py` serialize_remote_exception).

Ours sends no traceback: it would show paths and source lines to every peer. On receipt only classes derived from `Fault` that this
process knows are rebuilt, from their message and fields, and exceptions of modules that the caller allowed by name, as
oslo.messaging's allowed_remote_exmods; everything else is a `RemoteError`. No name from the wire is ever imported.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

from common.base.errors import Broken, Fault, known_faults
from common.base.limits import FAILURE_TEXT_MAX
from common.wire.values import WrongValue, to_primitive

_REMOTE = "_Remote"
_BUILTINS = "builtins"
_FAULT, _FIELDS = "fault", "fields"


class RemoteError(Broken):
    """Remote error: {exc_type} {value}"""

    wire = ("oslo_messaging.rpc.client", "RemoteError")


class NoSuchMethod(Fault):
    """Endpoint does not support RPC method {method}"""

    code = 400
    wire = ("oslo_messaging.rpc.dispatcher", "NoSuchMethod")


class UnsupportedVersion(Fault):
    """Endpoint does not support RPC version {version}. Attempted method: {method}"""

    code = 400
    wire = ("oslo_messaging.rpc.dispatcher", "UnsupportedVersion")


@dataclass(frozen=True, slots=True)
class Failure:
    """The parts of an error as the wire has them. `fault` and `fields`: of ours that goes under the name of a builtin."""

    cls: str
    module: str
    message: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


def encode_failure(error: BaseException) -> str:
    """The JSON string for `error`. Fields that have no JSON form are sent as text."""
    message = str(error)
    if not isinstance(error, Fault):
        cls, module = _without_remote(type(error).__name__, type(error).__module__)
        args = [_sendable(value) for value in error.args]
        return json.dumps(_keys(cls, module, message, args, _kwargs(error)))
    module, cls = error.identity()
    fields = {"code": error.code} | {name: _sendable(value) for name, value in error.fields.items()}
    if module != _BUILTINS:
        return json.dumps(_keys(cls, module, message, [message], fields))
    # A builtin takes no keywords. Our own kind reads two further keys, which oslo.messaging does not look at.
    return json.dumps(_keys(cls, module, message, [message], {}) | {_FAULT: _own_name(type(error)), _FIELDS: fields})


def _keys(cls: str, module: str, message: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {"class": cls, "module": module, "message": message, "tb": [], "args": args, "kwargs": kwargs}


def _own_name(fault: type[Fault]) -> str:
    return f"{fault.__module__}.{fault.__name__}"


def _kwargs(error: BaseException) -> dict[str, Any]:
    """What nova's and cinder's exceptions keep of their making."""
    found = getattr(error, "kwargs", None)
    return {str(name): _sendable(value) for name, value in found.items()} if isinstance(found, Mapping) else {}


def decode_failure(text: str, allowed: Mapping[str, ModuleType] | None = None) -> Exception:
    """The error to raise at the caller; never raises itself.

    allowed   modules, by the name that they have on the wire, whose exceptions are rebuilt; their `is_remote` is true
    """
    failure = _parse(text)
    for fault in known_faults():
        if _is_it(fault, failure):
            return fault.rebuilt(failure.message, failure.fields or failure.kwargs)
    foreign = _foreign((allowed or {}).get(failure.module), failure)
    if foreign is not None:
        return foreign
    return RemoteError.rebuilt(
        f"Remote error: {failure.cls} {failure.message}",
        {"exc_type": failure.cls, "value": failure.message, "module": failure.module},
    )


def _is_it(fault: type[Fault], failure: Failure) -> bool:
    """A builtin that a foreign peer raised is none of ours: there it may be a bug as well."""
    if failure.module == _BUILTINS:
        return failure.fault == _own_name(fault)
    return fault.identity() == (failure.module, failure.cls)


def _foreign(module: ModuleType | None, failure: Failure) -> Exception | None:
    """An exception of an allowed module as oslo.messaging rebuilds it, without a traceback in its text. None: it cannot be built."""
    cls = getattr(module, failure.cls, None) if module is not None else None
    if not isinstance(cls, type) or not issubclass(cls, Exception):
        return None
    try:
        error = cls(*failure.args, **failure.kwargs)
        if cls.__module__ != _BUILTINS:
            remote: Any = error
            remote.__class__ = _remote_class(cls)  # type: ignore[arg-type]  # classes are hashable; mypy asks their instances
            remote.remote_message = failure.message
    except Exception:  # noqa: BLE001  # whatever the class makes of a peer's arguments, the caller gets an error that says so
        return None
    return error


@cache
def _remote_class(cls: type[Exception]) -> Any:
    """`<Class>_Remote`, a subclass, so that `except` takes it and its text is the peer's."""
    return type(cls.__name__ + _REMOTE, (cls,), {"__str__": _said, "is_remote": True, "__module__": cls.__module__ + _REMOTE})


def _said(error: Any) -> str:
    return str(error.remote_message)


def _parse(text: str) -> Failure:
    try:
        found = _whole_characters(json.loads(text))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return Failure(cls="Unreadable", module="", message="the peer's error could not be read")
    cls, module = _without_remote(_word(found, "class"), _word(found, "module"))
    kwargs, fields = found.get("kwargs"), found.get(_FIELDS)
    args = found.get("args")
    return Failure(
        cls=cls,
        module=module,
        message=_first_part(_word(found, "message")),
        args=tuple(args) if isinstance(args, list) else (),
        kwargs=kwargs if isinstance(kwargs, dict) else {},
        fault=_word(found, _FAULT),
        fields=fields if isinstance(fields, dict) else {},
    )


def _whole_characters(found: Any) -> Any:
    """The same; halves of surrogate pairs, which no log and no terminal could write, become question marks."""
    text = json.dumps(found, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode("utf-8", "replace"))
    return found


def _without_remote(cls: str, module: str) -> tuple[str, str]:
    """The names of an error that is passed on are those that it began with."""
    if cls.endswith(_REMOTE) and module.endswith(_REMOTE):
        return cls.removesuffix(_REMOTE), module.removesuffix(_REMOTE)
    return cls, module


def _word(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _first_part(message: str) -> str:
    """Without the traceback that oslo appends when it forwards a remote error (`_Remote.__str__`)."""
    return message.split("\nTraceback (most recent call last)", maxsplit=1)[0][:FAILURE_TEXT_MAX]


def _sendable(value: Any) -> Any:
    try:
        return to_primitive(value)
    except WrongValue:
        return _shown(value)


def _shown(value: Any) -> str:
    try:
        return str(value)
    except (ValueError, RecursionError):  # a number of too many digits; a list that holds itself too deep
        return f"<{type(value).__name__}>"
