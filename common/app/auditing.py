"""How a service takes part in `lite doctor`: it compares its own rows with what its hosts report, and says what differs."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from common.base.clock import Clock
from common.base.context import Context
from common.base.errors import Fault
from common.base.violation import UNKNOWN, Violation
from common.rpc.contract import Sender

if TYPE_CHECKING:  # commands that need no database read this module too
    from common.db.engine import Database
    from common.db.hosts import ServiceRow

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """What an auditor looks with.

    services       the rows of services, those of other services too
    silent         (binary, host) of those among them that do not answer: that is reported already, and they need not be asked
    older_than_s   after so long a state that should pass is a finding
    """

    database: "Database"
    rpc: Sender
    clock: Clock
    ctx: Context
    services: tuple["ServiceRow", ...]
    silent: frozenset[tuple[str, str]]
    older_than_s: float

    def hosts(self, binary: str) -> frozenset[str]:
        """Every host of a binary that has a row."""
        return frozenset(row.host for row in self.services if row.binary == binary)

    def speaking(self, binary: str) -> list[str]:
        """The hosts of a binary that answer."""
        return sorted(host for host in self.hosts(binary) if (binary, host) not in self.silent)

    def is_old(self, changed_at: datetime | None) -> bool:
        """True when what changed then has had its time. A row without a time is old."""
        return changed_at is None or (self.clock.utcnow() - changed_at).total_seconds() > self.older_than_s


@dataclass(frozen=True, slots=True)
class Audit:
    """What a look came to. `checked` counts what was looked at: {"volumes": 3, "backends": 1}."""

    violations: tuple[Violation, ...] = ()
    checked: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable["Audit"]) -> "Audit":
        """All of them in one; a finding that several made is there once."""
        parts = list(parts)
        checked: dict[str, int] = {}
        for part in parts:
            for what, number in part.checked.items():
                checked[what] = checked.get(what, 0) + number
        return cls(tuple(dict.fromkeys(found for part in parts for found in part.violations)), checked)

    def still(self, later: "Audit") -> "Audit":
        """The later look, of its findings those that this one had too: what was only in motion is gone."""
        known = {found.identity for found in self.violations}
        return Audit(tuple(found for found in later.violations if found.identity in known), later.checked)


class Auditor(Protocol):
    """A service's part. `config` is what the service's own `load` gave."""

    async def audit(self, config: Any, look: Look) -> Audit:
        """What differs. A host that does not answer is a finding, no error. Raises what the database raises."""
        ...

    async def reconcile(self, config: Any, look: Look) -> list[str]:
        """Has every host of the service mend what it can; what was done, and who could not, a line each."""
        ...


async def asked(hosts: Iterable[K], ask: Callable[[K], Awaitable[T]]) -> tuple[dict[K, T], dict[K, Fault]]:
    """Each host's answer, all asked at once; and the faults of those that gave none."""
    answers: dict[K, T] = {}
    faults: dict[K, Fault] = {}

    async def one(host: K) -> None:
        try:
            answers[host] = await ask(host)
        except Fault as exc:
            faults[host] = exc

    async with asyncio.TaskGroup() as group:
        for host in hosts:
            group.create_task(one(host))
    return answers, faults


def unanswered(binary: str, faults: Mapping[str, Fault]) -> list[Violation]:
    """The findings for services that answer, but do not say what they have."""
    return [
        Violation(
            UNKNOWN,
            service_subject(binary, host),
            f"it answers, but does not tell what it has: {fault}",
            "Mend what it complains of (its log says more), or bring it to this release",
        )
        for host, fault in sorted(faults.items())
    ]


def service_subject(binary: str, host: str) -> str:
    """How a service is named in a finding."""
    return f"service:{binary} on {host}"
