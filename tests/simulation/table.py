"""What happens when something dies: boundary x fault -> outcome, counted over single faults, as a page in Markdown that can be read back."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.simulation.cases import Case, Report
from tests.simulation.scenario import Outcome

PAGE = Path(__file__).with_name("OUTCOMES.md")

Key = tuple[str, str, str]
"""Operation, boundary ("nova-compute: commit"), fault."""

_LOST = "lost"
_DONE_IS = {
    "create": ("available", "error, or nothing was made"),
    "boot": ("active", "error, or nothing was made"),
    "attach": ("in-use", "available"),
    "detach": ("available", "in-use"),
    "delete_server": ("the server deleted, its volume available", "still there"),
    "delete_volume": ("deleted", "still there"),
}
_FAULTS = {
    "crash": "the process is killed (kill -9)",
    "gone": "the process is killed, and its queues are gone with it",
    "pause": "the process stands still for 25 s, longer than its lease",
    "forward": "the clock of its host jumps an hour ahead",
    "backward": "the clock of its host jumps an hour back",
    "raise": "the act fails, before or after its effect",
    "hang": "the act hangs for 130 s, then fails",
    "cut": "the process's connection to the bus breaks",
    "lost": "the message is lost, and no confirm comes",
    "unconfirmed": "the message arrives, and no confirm comes",
    "twice": "the message arrives twice",
    "late": "the message arrives 70 s late",
    "swap": "the message is overtaken by others",
    "busy": "the database is busy",
    "error": "the database fails at commit, before or after it",
    "target": "the target daemon restarts, keeping nothing",
    "machine": "the machines die",
    "clings": "a guest does not let go of its disk, once",
}
_KINDS = {
    "effect": "an act on the target, the host or the machine",
    "publish": "a message is sent",
    "deliver": "a message comes in",
    "ack": "a message is settled",
    "commit": "a transaction is committed",
    "failpoint": "a place between them",
}
_CELL = re.compile(r"(\d+)(?: / (\d+))?(?: \*\*(\d+)\*\*)?")


def key_of(case: Case) -> Key:
    """Where it belongs."""
    strike = case.strikes[0]
    process, _, event = strike.boundary.partition("|")
    return case.stage, f"{process.partition('.')[0]}: {event.partition(' ')[0]}", strike.fault


def counted(reports: Iterable[Report]) -> dict[Key, Counter[str]]:
    """What cases came to before anybody asked again."""
    found: dict[Key, Counter[str]] = {}
    for report in reports:
        found.setdefault(key_of(report.case), Counter())[_LOST if report.violations else report.outcome or Outcome.UNDONE] += 1
    return found


def page(counts: Mapping[Key, Counter[str]]) -> str:
    """All of it."""
    whole = sum(counts.values(), Counter[str]())
    return "\n".join(
        [
            "# What happens when something dies",
            "",
            "One fault in one place, tried one by one in the simulation; written by `python -m tests.simulation --write-table`.",
            f"{whole.total()} cases: in {whole[Outcome.DONE]} what was asked for was done, in {whole[Outcome.UNDONE]} it was taken back whole,",
            f"and {whole[_LOST]} violated an invariant. That is what they came to before anybody asked again.",
            "",
            "A cell holds how many cases were done; behind a stroke, how many were taken back; in bold, how many violated an invariant.",
            "",
            *(f"* `{fault}`: {what}" for fault, what in _FAULTS.items()),
            "",
            "A row is a process, and what it was about to do or had just done: "
            + "; ".join(f"`{kind}`: {what}" for kind, what in _KINDS.items())
            + ".",
            *(line for stage in _DONE_IS for line in _section(stage, counts)),
            "",
        ]
    )


def _section(stage: str, counts: Mapping[Key, Counter[str]]) -> Iterator[str]:
    mine = {(place, fault): found for (of, place, fault), found in counts.items() if of == stage}
    faults = [fault for fault in _FAULTS if any(fault == other for _, other in mine)]
    done, undone = _DONE_IS[stage]
    yield from ("", f"## {stage}", "", f"Done: {done}. Taken back: {undone}.", "")
    yield f"| boundary | {' | '.join(faults)} |"
    yield f"|---|{'---|' * len(faults)}"
    for place in sorted({place for place, _ in mine}, key=_order):
        yield f"| {place} | {' | '.join(_cell(mine.get((place, fault))) for fault in faults)} |"


def _order(place: str) -> tuple[str, int]:
    process, _, kind = place.partition(": ")
    return process, list(_KINDS).index(kind)


def _cell(found: Counter[str] | None) -> str:
    if found is None:
        return ""
    undone = f" / {found[Outcome.UNDONE]}" if found[Outcome.UNDONE] else ""
    lost = f" **{found[_LOST]}**" if found[_LOST] else ""
    return f"{found[Outcome.DONE]}{undone}{lost}"


def read(text: str) -> dict[Key, Counter[str]]:
    """The counts of a page."""
    found: dict[Key, Counter[str]] = {}
    stage, faults = "", list[str]()
    for line in text.splitlines():
        if line.startswith("## "):
            stage = line.removeprefix("## ")
        elif line.startswith("| "):
            place, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            if place == "boundary":
                faults = cells
                continue
            for fault, cell in zip(faults, cells, strict=True):
                if match := _CELL.fullmatch(cell):
                    done, undone, lost = (int(number or 0) for number in match.groups())
                    found[stage, place, fault] = Counter({Outcome.DONE: done, Outcome.UNDONE: undone, _LOST: lost})
    return found
