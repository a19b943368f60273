"""A specification: one sentence about a port, and the code that finds out whether an adapter keeps it.

    @specifies(2)
    async def a_volume_in_use_is_not_deleted(bench: DriverBench) -> None: ...

The number is that of a guarantee at the head of the port's module. pytest runs the same functions on every adapter of this
project (tests/conformance), and `lite driver certify` on whatever a configuration file names.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from common.base.errors import Fault

B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)
T = TypeVar("T")

SHOWN_MAX = 400


class NotAsSpecified(AssertionError):
    """An adapter does not keep its port's word. The message says what was found and what was wanted."""


class NotStaged(Exception):
    """The bench of this adapter cannot bring about the situation. The message says which; the specification is skipped."""


@dataclass(frozen=True, slots=True)
class Specification(Generic[B]):
    """port "driver" or "target", the number of its guarantee, the sentence, and what checks it on a bench."""

    guarantee: int
    name: str
    check: Callable[[B], Awaitable[None]]

    def __str__(self) -> str:
        return f"{self.guarantee} {self.name}"


def specifies(guarantee: int) -> Callable[[Callable[[B], Awaitable[None]]], Specification[B]]:
    """Makes a specification of a coroutine function; its sentence is the function's name."""

    def made(check: Callable[[B], Awaitable[None]]) -> Specification[B]:
        return Specification(guarantee, check.__name__.replace("_", " "), check)

    return made


def collected(module: Mapping[str, Any]) -> tuple[Specification[Any], ...]:
    """The specifications in a module's globals, in their order there."""
    return tuple(found for found in module.values() if isinstance(found, Specification))


def expect(what: str, found: T, wanted: T) -> None:
    """Raises NotAsSpecified unless they are equal."""
    if found != wanted:
        raise NotAsSpecified(f"{what}: found {_shown(found)}, wanted {_shown(wanted)}")


def expect_that(holds: bool, what: str) -> None:
    """Raises NotAsSpecified with `what` unless it holds."""
    if not holds:
        raise NotAsSpecified(what)


@contextmanager
def refused(*kinds: type[Fault], naming: str = "") -> Iterator[None]:
    """The block must raise one of `kinds`, whose message has `naming` in it. Raises NotAsSpecified otherwise."""
    wanted = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield
    except kinds as exc:
        expect_that(naming in str(exc), f"{type(exc).__name__} does not name {naming}: {exc}")
    except Fault as exc:
        raise NotAsSpecified(f"found {type(exc).__name__}: {exc}; wanted {wanted}") from exc
    else:
        raise NotAsSpecified(f"nothing was raised; wanted {wanted}")


def _shown(value: object) -> str:
    shown = repr(sorted(value, key=str) if isinstance(value, set | frozenset) else value)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[:SHOWN_MAX]}... ({len(shown)} characters)"
