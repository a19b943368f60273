"""Who carries work on: a life of a process, and who may take over when it ends."""

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, false

from common.base.ids import new_hex

_BOOT_DIGITS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One life of a process.

    process    its name: "nova-compute.cmp1"
    home       who may carry its work on: "nova-api" for any nova-api, "nova-compute.cmp1" for this host's alone
    is_alone   no other process of that name can be alive (a lock on its host sees to it), so whoever had it before is gone
    dead       earlier boots of that name that are known to be gone
    """

    process: str
    home: str
    is_alone: bool = False
    boot: str = field(default_factory=lambda: new_hex()[:_BOOT_DIGITS])
    dead: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.process}#{self.boot}"

    def predecessors(self, column: ColumnElement[str]) -> ColumnElement[bool]:
        """True in SQL for an owner that is known to be gone, whatever its lease says."""
        if self.is_alone:
            return column.startswith(f"{self.process}#", autoescape=True) & (column != str(self))
        return column.in_(sorted(f"{self.process}#{boot}" for boot in self.dead)) if self.dead else false()


def process_of(owner: str) -> str:
    """The process of which an owner is one life: "nova-compute.cmp1"."""
    return owner.partition("#")[0]


def is_of_home(owner: str, home: str) -> bool:
    """True when `owner` is a life of a process that may carry on the work of `home`: of it alone, or of any process of that kind."""
    process = process_of(owner)
    return bool(home) and home in {process, process.partition(".")[0]}
