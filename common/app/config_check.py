"""What is wrong or odd in configuration files, found by comparing them with what programs declare. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from oslo_config import cfg

from common.app.config_files import Assignment, Problem, Scan
from common.app.config_types import nearest

_SECTION_LIKENESS = 0.85
"""[databse] is like [database] by 0.93, upstream's [api_database] by 0.80: the first is a slip, the second another section."""


class SectionLike(Protocol):
    """What is asked of `common.app.config.Section` here."""

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> Sequence[cfg.Opt]: ...
    @property
    def wanted_by(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Declared:
    """What programs know, with sections in lower case, as oslo.config compares them.

    names      section in lower case -> as it is written
    keys       section -> every name of its options -> (section, option) that it means today
    wanted     section -> what makes it necessary
    """

    names: Mapping[str, str]
    keys: Mapping[str, Mapping[str, tuple[str, str]]]
    wanted: Mapping[str, str]

    @classmethod
    def of(cls, sections: Sequence[SectionLike], foreign: Sequence[SectionLike] = ()) -> Self:
        """What `sections` and `foreign` declare together."""
        keys: dict[str, dict[str, tuple[str, str]]] = {}
        for section in [*foreign, *sections]:
            mine = keys.setdefault(section.name.lower(), {})
            for opt in section.options:
                mine[opt.name] = (section.name, opt.name)
                for old in opt.deprecated_opts:
                    keys.setdefault((old.group or section.name).lower(), {})[old.name or opt.name] = (section.name, opt.name)
        return cls(
            names={section.name.lower(): section.name for section in [*foreign, *sections]},
            keys=keys,
            wanted={section.name: section.wanted_by for section in sections if section.wanted_by},
        )


def complaints(scans: Sequence[Scan], declared: Declared, *, fixed: Sequence[str]) -> Iterator[Problem]:
    """Sections that are missing or misspelt (only `fixed` names are compared), and options that nobody knows."""
    written = {header.lower(): header for found in scans for _, header in found.headers}
    for name, reason in declared.wanted.items():
        if name.lower() not in written:
            yield Problem(_missing(name, reason, written, declared))
    own = {name.lower(): name for name in fixed}
    for found in scans:
        for place, header in found.headers:
            if _is_default(header, declared) and header != declared.names[header.lower()]:
                yield Problem(f"[{header}] is not a section; did you mean [{declared.names[header.lower()]}]?", place)
            elif header.lower() not in declared.keys and (near := nearest(header, own, cutoff=_SECTION_LIKENESS)):
                yield Problem(f"[{header}] is not a section that we know; did you mean [{near}]?", place)
        for assignment in found.assignments:
            if (keys := declared.keys.get(assignment.section.lower())) is not None and assignment.key not in keys:
                yield Problem(_unknown(assignment, declared), assignment.place)


def _is_default(header: str, declared: Declared) -> bool:
    """oslo.config folds the case of every section but this one."""
    return declared.names.get(header.lower()) == "DEFAULT"


def _missing(name: str, reason: str, written: Mapping[str, str], declared: Declared) -> str:
    unclaimed = {header: header for lower, header in written.items() if lower not in declared.keys}
    near = nearest(name, unclaimed)
    hint = f"is [{near}] meant?" if near else f"add it, or take {name} out"
    return f"{reason} names {name}, but no file has a section [{name}]; {hint}"


def _unknown(found: Assignment, declared: Declared) -> str:
    section = found.section.lower()
    at = f"[{found.section}] {found.key}: unknown option; "
    homes = sorted({keys[found.key] for keys in declared.keys.values() if found.key in keys})
    if homes:
        return at + "it belongs to " + " or ".join(f"[{home}]" for home in dict.fromkeys(home for home, _ in homes))
    near = nearest(found.key, {name: today[1] for name, today in declared.keys[section].items()})
    return at + (f"did you mean {near}?" if near else "nothing here has a name like it: remove it")


def deprecations(scans: Sequence[Scan], declared: Declared) -> tuple[str, ...]:
    """One warning for each deprecated name in use, at its first place."""
    told: dict[tuple[str, str], str] = {}
    for found in scans:
        for assignment in found.assignments:
            section = assignment.section.lower()
            today = declared.keys.get(section, {}).get(assignment.key)
            if today is None or (today[0].lower(), today[1]) == (section, assignment.key):
                continue
            now = today[1] if today[0].lower() == section else f"[{today[0]}] {today[1]}"
            text = f"{assignment.place}: [{assignment.section}] {assignment.key} is deprecated, use {now}"
            told.setdefault((section, assignment.key), text)
    return tuple(told.values())


def strangers(scans: Sequence[Scan], declared: Declared) -> tuple[str, ...]:
    """One warning that lists the sections which nobody here reads; none when there are none."""
    unread = dict.fromkeys(header for found in scans for _, header in found.headers if header.lower() not in declared.keys)
    if not unread:
        return ()
    return (f"sections that are not ours were passed over: {', '.join(f'[{header}]' for header in unread)}",)
