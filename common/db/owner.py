"""Who carries work on: a life of a process, and who may take over when it ends."""

import re
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, String, bindparam

from common.base.ids import new_hex

_BOOT_DIGITS = 12
_ESCAPE = "/"
_NOBODY = "#"
"""No owner is called so."""

ME: BindParameter[str] = bindparam("me", type_=String())
"""In a statement that is given an owner's `parameters`: that owner."""


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

    @property
    def parameters(self) -> dict[str, Any]:
        """Values of `ME` and of what is in `is_predecessor`."""
        earlier = f"{_literally(self.process)}#%" if self.is_alone else _NOBODY
        dead = sorted(f"{self.process}#{boot}" for boot in self.dead)
        return {"me": str(self), "earlier": earlier, "dead": dead or [_NOBODY]}


def is_predecessor(column: ColumnElement[str]) -> ColumnElement[bool]:
    """In a statement that is given an owner's `parameters`: true for one that is known to be gone, whatever its lease says."""
    earlier_life = column.like(bindparam("earlier"), escape=_ESCAPE) & (column != ME)
    return earlier_life | column.in_(bindparam("dead", expanding=True))


def _literally(text: str) -> str:
    """In a pattern of LIKE."""
    return re.sub(r"[/%_]", lambda found: f"{_ESCAPE}{found[0]}", text)


def process_of(owner: str) -> str:
    """The process of which an owner is one life: "nova-compute.cmp1"."""
    return owner.partition("#")[0]


def is_of_home(owner: str, home: str) -> bool:
    """True when `owner` is a life of a process that may carry on the work of `home`: of it alone, or of any process of that kind."""
    process = process_of(owner)
    return bool(home) and home in {process, process.partition(".")[0]}
