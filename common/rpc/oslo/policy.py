"""Which attributes of an endpoint the bus can reach."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

EXPECTED = "__rpc_expected__"
EXPOSED = "exposed"


class RPCAccessPolicy(Protocol):
    """Asked once for each attribute of an endpoint, when its server is made. What is forbidden looks as if it were not there."""

    def is_allowed(self, endpoint: object, method: str) -> bool: ...


class DefaultRPCAccessPolicy:
    """Everything that does not begin with an underscore."""

    def is_allowed(self, endpoint: object, method: str) -> bool:  # noqa: ARG002  # the interface is oslo.messaging's
        return not method.startswith("_")


class LegacyRPCAccessPolicy:
    """Everything."""

    def is_allowed(self, endpoint: object, method: str) -> bool:  # noqa: ARG002
        return True


class ExplicitRPCAccessPolicy:
    """What is marked by `@expose`."""

    def is_allowed(self, endpoint: object, method: str) -> bool:
        return bool(getattr(getattr(endpoint, method), EXPOSED, False))


def expose(function: F) -> F:
    """Mark a method for ExplicitRPCAccessPolicy."""
    setattr(function, EXPOSED, True)
    return function


def expected_exceptions(*classes: type[Exception]) -> Callable[[F], F]:
    """Exceptions that are part of a method's answer: the caller hears of them as of all others, and the log has no traceback."""

    def marked(function: F) -> F:
        setattr(function, EXPECTED, classes)
        return function

    return marked
