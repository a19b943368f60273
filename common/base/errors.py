"""One tree of errors, ordered by what the caller can do about them.

    Fault                        everything this project raises on purpose
    +- Invalid                   fix the request
    |  +- NotFound               ... it names a thing that is not there
    |  +- Conflict               ... or the thing is in a state that forbids it
    +- Unavailable               wait and retry
    |  +- Timeout                ... and the outcome is unknown: look before you act again
    +- Broken                    call a person
       +- Misconfigured          ... who mends a configuration file

The message of a fault is its docstring, filled with its fields. It names the thing, the state found, the state wanted.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self


class Fault(Exception):
    """Something failed: {reason}"""

    code: ClassVar[int] = 500
    """The HTTP status that OpenStack's API gives this error."""
    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without a change."""
    wire: ClassVar[tuple[str, str] | None] = None
    """(module, class) that an oslo.messaging peer knows this error by; None: this class's own module and name."""

    is_remote: bool = False
    """True for an error that a peer raised and this process rebuilt from its reply."""

    def __init__(self, message: str | None = None, /, **fields: Any) -> None:
        self.fields: Mapping[str, Any] = fields
        self.message = message if message is not None else _fill(type(self), fields)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.fields)))

    def __getattr__(self, name: str) -> Any:
        if name != "fields" and name in self.fields:
            return self.fields[name]
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    @classmethod
    def identity(cls) -> tuple[str, str]:
        """(module, class) under which this error crosses the wire."""
        return cls.wire or (cls.__module__, cls.__name__)

    @classmethod
    def rebuilt(cls, message: str, fields: Mapping[str, Any]) -> Self:
        """The same error on the caller's side: its message word for word, no template filled."""
        fault = cls(message, **{name: value for name, value in fields.items() if name.isidentifier()})
        fault.is_remote = True
        return fault


def _fill(cls: type[Fault], fields: Mapping[str, Any]) -> str:
    template = " ".join((cls.__doc__ or cls.__name__).split("\n\n", maxsplit=1)[0].split())
    return template.format_map(_Shown(fields))


class _Shown(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return _NotGiven(f"<{key} not given>")


class _NotGiven(str):
    """Stands for itself whatever format the template asks for."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(self)


def _rebuild(cls: type[Fault], message: str, fields: dict[str, Any]) -> Fault:
    return cls(message, **fields)


def known_faults(root: type[Fault] = Fault) -> Iterator[type[Fault]]:
    """Every fault class that this process has imported, `root` first."""
    yield root
    for child in root.__subclasses__():
        yield from known_faults(child)


class Invalid(Fault):
    """The request is not valid: {reason}"""

    code = 400


class NotFound(Invalid):
    """{kind} {name} could not be found."""

    code = 404


class Conflict(Invalid):
    """{kind} {name} is in state {found}; wanted: {expected}."""

    code = 409


class Ambiguous(Invalid):
    """More than one {kind} is named {name}: {candidates}. Use an id."""

    code = 409


class Unavailable(Fault):
    """{what} is not available: {reason}"""

    code = 503
    retryable = True


class Timeout(Unavailable):
    """{what} gave no answer within {timeout_s:g} s. It may still happen: look at its state before you repeat it."""

    code = 504


class Broken(Fault):
    """{what} is broken: {reason}"""


class Misconfigured(Broken):
    """Configuration: {reason}"""
