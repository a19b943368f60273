"""From what callers and servers noted to the counts of a run; pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.survival.job import HUNG, OK, WRONG, Outcome


@dataclass(frozen=True, slots=True)
class Execution:
    """One line of the servers' record; `word` is begin or end."""

    word: str
    number: int
    pid: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Outage:
    """When something was taken away, and when it was back."""

    began_s: float
    returned_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """A run in numbers.

    errors            by the class of what the caller was told, those that came at the end of the timeout not among them
    hung              calls that waited until their timeout ran out, or were not answered at all
    executed_twice    numbers that were begun more than once
    finished_twice    numbers whose work was done more than once
    reply_lost        numbers that were executed to the end and whose caller has no result
    away_s            how long the fault lasted
    first_success_s   from the return of what was away to the first right answer; None: there was none
    longest_gap_s     longest time between two right answers that follow each other
    took_s            from the first call's begin to the last one's end
    """

    correct: int
    wrong: int
    errors: Mapping[str, int]
    hung: int
    executed_twice: int
    finished_twice: int
    reply_lost: int
    away_s: float
    first_success_s: float | None
    longest_gap_s: float
    took_s: float

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def count(calls: int, outcomes: Sequence[Outcome], executions: Iterable[Execution], *, outage: Outage) -> Counts:
    """What came of `calls` calls."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    answered = {outcome.number for outcome in outcomes if outcome.kind == OK}
    notes = list(executions)
    begun = Counter(note.number for note in notes if note.word == "begin")
    ended = Counter(note.number for note in notes if note.word == "end")
    successes = sorted(outcome.ended_s for outcome in outcomes if outcome.kind == OK)
    after = [at_s for at_s in successes if at_s >= outage.returned_s]
    return Counts(
        correct=kinds[OK],
        wrong=kinds[WRONG],
        errors={kind: number for kind, number in sorted(kinds.items()) if kind not in {OK, WRONG, HUNG}},
        hung=kinds[HUNG] + calls - len(outcomes),
        executed_twice=sum(1 for times in begun.values() if times > 1),
        finished_twice=sum(1 for times in ended.values() if times > 1),
        reply_lost=sum(1 for number in ended if number not in answered),
        away_s=outage.returned_s - outage.began_s,
        first_success_s=after[0] - outage.returned_s if after else None,
        longest_gap_s=max((later - earlier for earlier, later in pairwise(successes)), default=0.0),
        took_s=max((outcome.ended_s for outcome in outcomes), default=0.0)
        - min((outcome.began_s for outcome in outcomes), default=0.0),
    )


def read_executions(text: str) -> list[Execution]:
    """The servers' record."""
    return [
        Execution(word, int(number), int(pid), float(at_s))
        for word, number, pid, at_s in (line.split() for line in text.splitlines())
    ]
