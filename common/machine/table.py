"""A status table: which event leads from which states to which one. The table is the machine.

    VOLUME = Machine("volume", start=CREATING, rows={(AVAILABLE, RESERVE): ATTACHING, ...}, ends={DELETED})

Rules that a table is checked against when it is made:
1. Every state that a row names is reachable from `start`.
2. From every state an end is reachable: nothing is stuck by design.
3. One event has one target, whatever state it starts from, so that an event is one SQL statement:
   UPDATE ... SET status = :target WHERE id = :id AND status IN (:sources).
4. No row leaves an end.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=Hashable)
E = TypeVar("E", bound=Hashable)


class NotInTable(LookupError):
    """The table has no row for this state and event: the request must be refused."""


@dataclass(frozen=True)
class Machine(Generic[S, E]):
    """A checked status table.

    Raises ValueError when a rule of the module's head is broken; the message names the state or event.
    """

    name: str
    start: S
    rows: Mapping[tuple[S, E], S]
    ends: frozenset[S]

    def __post_init__(self) -> None:
        for check in (_one_target_per_event, _nothing_leaves_an_end, _all_reachable, _all_can_end):
            check(self)

    @property
    def states(self) -> frozenset[S]:
        """Every state that the table names."""
        return frozenset({self.start, *self.ends, *(state for state, _ in self.rows), *self.rows.values()})

    @property
    def events(self) -> frozenset[E]:
        """Every event that the table names."""
        return frozenset(event for _, event in self.rows)

    def after(self, state: S, event: E) -> S:
        """The state that `event` leads to. Raises NotInTable when `state` forbids it."""
        try:
            return self.rows[state, event]
        except KeyError:
            raise NotInTable(f"{self.name}: {event} is not allowed in state {state}") from None

    def allows(self, state: S, event: E) -> bool:
        """True when `event` may happen in `state`."""
        return (state, event) in self.rows

    def sources(self, event: E) -> frozenset[S]:
        """The states in which `event` may happen."""
        return frozenset(state for state, found in self.rows if found == event)

    def target(self, event: E) -> S:
        """The one state that `event` leads to. Raises NotInTable for an event without a row."""
        for (_, found), state in self.rows.items():
            if found == event:
                return state
        raise NotInTable(f"{self.name}: no row has the event {event}")

    def reachable(self, start: S) -> frozenset[S]:
        """`start` and every state that some run of events leads to from it."""
        seen, todo = {start}, [start]
        while todo:
            here = todo.pop()
            fresh = {there for (state, _), there in self.rows.items() if state == here} - seen
            seen |= fresh
            todo += fresh
        return frozenset(seen)


def _one_target_per_event(machine: Machine[S, E]) -> None:
    for event in machine.events:
        targets = {there for (_, found), there in machine.rows.items() if found == event}
        if len(targets) > 1:
            raise ValueError(f"{machine.name}: event {event} has several targets: {sorted(map(str, targets))}")


def _nothing_leaves_an_end(machine: Machine[S, E]) -> None:
    for state, event in machine.rows:
        if state in machine.ends:
            raise ValueError(f"{machine.name}: {event} leaves the end {state}")


def _all_reachable(machine: Machine[S, E]) -> None:
    lost = machine.states - machine.reachable(machine.start)
    if lost:
        raise ValueError(f"{machine.name}: not reachable from {machine.start}: {sorted(map(str, lost))}")


def _all_can_end(machine: Machine[S, E]) -> None:
    stuck = {state for state in machine.states if not machine.reachable(state) & machine.ends}
    if stuck:
        raise ValueError(f"{machine.name}: no end is reachable from {sorted(map(str, stuck))}")
