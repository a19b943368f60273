"""What reconcilers decide with: who is at work, how long ago something changed, and what has been seen twice. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from common.base.limits import RECONCILE_ACTIONS_MAX, RECONCILE_GRACE_S


@dataclass(frozen=True, slots=True)
class Busy:
    """What somebody is at work on, by the ids of volumes and servers. `is_everything`: too much waits to be told one by one."""

    ids: frozenset[str] = frozenset()
    is_everything: bool = False

    def __contains__(self, name: str | None) -> bool:
        return self.is_everything or name in self.ids


def is_young(now: datetime, *changed_at: datetime | None) -> bool:
    """True when one of these changes is younger than RECONCILE_GRACE_S. A change without a time is old."""
    return any(changed is not None and (now - changed).total_seconds() < RECONCILE_GRACE_S for changed in changed_at)


class Action(Protocol):
    """Something to be mended. Equal actions in two rounds are the same finding."""

    @property
    def subject(self) -> str:
        """ "volume:<id>" or "server:<uuid>"."""
        ...

    @property
    def destroys(self) -> bool:
        """True when it takes something away: then it must be found in two rounds."""
        ...


A = TypeVar("A", bound=Action)


@dataclass(frozen=True, slots=True)
class Due(Generic[A]):
    """What is to be done now, and what must be seen once more before."""

    actions: tuple[A, ...]
    suspects: frozenset[A]


def one_for_each(found: Iterable[A]) -> list[A]:
    """The first action for each subject: what else is wrong with it is seen again once that is done."""
    first: dict[str, A] = {}
    for action in found:
        first.setdefault(action.subject, action)
    return list(first.values())


def due(found: Sequence[A], suspected: frozenset[A], *, limit: int = RECONCILE_ACTIONS_MAX) -> Due[A]:
    """Of what was found: what takes nothing away, and what was suspected in the round before; at most `limit`."""
    actions = [action for action in found if not action.destroys or action in suspected]
    return Due(tuple(actions[:limit]), frozenset(action for action in found if action.destroys))
