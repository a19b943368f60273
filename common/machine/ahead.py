"""What still lies ahead of a flow, if from now on everything went well. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from common.machine.decide import Compensated, Completed, Do, Entry, Mark, Parked, Undo, decide
from common.machine.saga import Saga


@dataclass(frozen=True, slots=True)
class Ahead:
    """`acts` in the order in which they would be carried out, and how the flow would end. The first may be in progress."""

    acts: tuple[Do | Undo, ...]
    end: Completed | Compensated


def ahead(saga: Saga, journal: Sequence[Entry]) -> Ahead:
    """What `decide` would say, again and again, if each act succeeded; a parked flow goes on as if a person had resumed it."""
    rows, acts = list(journal), list[Do | Undo]()
    while True:
        match decide(saga, rows):
            case Do(step) as act:
                acts.append(act)
                rows += [Entry(step.name, Mark.BEGUN), Entry(step.name, Mark.DONE)]
            case Undo(step) as act:
                acts.append(act)
                rows += [Entry(step.name, Mark.UNDOING), Entry(step.name, Mark.UNDONE)]
            case Parked(step):
                rows.append(Entry(step.name, Mark.RESUMED))
            case Completed() | Compensated() as end:
                return Ahead(tuple(acts), end)
            case decision:
                assert_never(decision)
