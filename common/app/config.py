"""Configuration: oslo.config's files, options and rules, read strictly into frozen dataclasses.

A service says which sections it owns and which options are in them, `load` reads the files, and `Settings.read` gives a section
as a dataclass whose fields have the options' names. What oslo.config passes over in silence is an error here: an unknown option in
a section that we own, and a section that is almost named like one of ours. All errors are told at once, each with its file and line.

oslo.config's rules hold: later files win, `$name` stands for another option's value, deprecated names are taken.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from oslo_config import cfg

from common.app.config_check import Declared, complaints, deprecations, strangers
from common.app.config_files import Assignment, Problem, Scan, misconfigured, scan
from common.app.config_types import wanted

T = TypeVar("T")

DEFAULT = "DEFAULT"


@dataclass(frozen=True, slots=True)
class Section:
    """A section that a program owns, and its options.

    wanted_by   what makes the section necessary, "[DEFAULT] enabled_backends"; empty: it may be left out
    example     True for a section whose name the user chooses; a sample shows it, `load` does not know it
    idle        options that are known and have no effect here -> why; who chooses another value than the default is told
    """

    name: str
    options: Sequence[cfg.Opt]
    help: str = ""
    wanted_by: str = ""
    example: bool = False
    idle: Mapping[str, str] = field(default_factory=dict)


Overrides = Mapping[str, Mapping[str, str]]
"""section -> option -> value, as a file would say it; they win over every file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all options.

    values     section -> option -> value; no repr has it, since some are secrets
    warnings   what whoever runs this should hear once: deprecated names, sections passed over
    """

    values: Mapping[str, Mapping[str, Any]] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def read(self, section: str, into: type[T], **known: object) -> T:
        """The section as dataclass `into`, which may name a part of its options only; `known` fields come from the caller.

        Raises msgspec.ValidationError when fields and options disagree, which is a mistake in the program, not in a file.
        """
        return msgspec.convert({**self.values[section], **known}, into, dec_hook=_from_builtin)


def load(
    files: Sequence[Path],
    sections: Sequence[Section],
    *,
    then: Callable[[Settings], Sequence[Section]] | None = None,
    overrides: Overrides | None = None,
    foreign: Sequence[Section] = (),
) -> Settings:
    """The settings that `files` and `overrides` give to `sections`.

    then      more sections, found from the values of the first ones: the stanzas that enabled_backends names
    foreign   sections of another program that shares the files: what is in them is no error, and is not read

    Raises Misconfigured with every problem found: file and line, section and key, what was found, what is wanted.
    """
    scans = scan(files)
    more = _found_out(scans, sections, then, overrides or {}) if then else ()
    declared = Declared.of([*sections, *more], foreign)
    problems = [*complaints(scans, declared, fixed=[section.name for section in sections]), *_name_clashes(sections, more)]
    values, wrong = _values(scans, [*sections, *more], overrides or {})
    if problems or wrong:
        raise misconfigured([*problems, *wrong])
    warnings = (*deprecations(scans, declared), *strangers(scans, declared), *_idle(scans, sections, values))
    return Settings(values, warnings)


def _idle(scans: Sequence[Scan], sections: Sequence[Section], values: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One warning for each option that somebody set to something, and that has no effect."""
    for section in sections:
        for opt in section.options:
            if opt.dest in section.idle and values[section.name][opt.dest] != opt.default:
                found = _source(scans, section.name, opt)
                place = f"{found.place}: " if found else ""
                yield f"{place}[{section.name}] {opt.name} has no effect here: {section.idle[opt.dest]}"


def _found_out(
    scans: Sequence[Scan], sections: Sequence[Section], then: Callable[[Settings], Sequence[Section]], overrides: Overrides
) -> Sequence[Section]:
    """The sections that the first ones name; none where just that option is wrong, which is told with all the rest."""
    mine = {section.name for section in sections}
    values, _ = _values(scans, sections, {name: keys for name, keys in overrides.items() if name in mine})
    try:
        return then(Settings(values))
    except msgspec.ValidationError:
        return ()


def _name_clashes(fixed: Sequence[Section], more: Sequence[Section]) -> Iterator[Problem]:
    """oslo.config cannot tell a section from an option of [DEFAULT] that has its name."""
    taken = {section.name for section in fixed} | {
        opt.dest for section in fixed if section.name == DEFAULT for opt in section.options
    }
    for section in more:
        if section.name in taken and section.wanted_by:
            yield Problem(f"{section.wanted_by}: {section.name} already means something else here; give that section another name")


def _values(
    scans: Sequence[Scan], sections: Sequence[Section], overrides: Overrides
) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
    """section -> option -> value, without the options whose value is wrong, and what is wrong with those."""
    values: dict[str, dict[str, Any]] = {section.name: {} for section in sections}
    wrong: list[Problem] = []
    with _deprecations_told_by_us():
        conf = _conf(scans, sections)
        wrong.extend(_override(conf, sections, overrides))
        for section in sections:
            for opt in section.options:
                try:
                    value = _value(conf, section.name, opt.dest)
                except (cfg.Error, ValueError) as exc:
                    wrong.append(_wrong(scans, section.name, opt, exc))
                    continue
                if value in (None, "") and opt.default not in (None, ""):
                    wrong.append(_wrong(scans, section.name, opt, None))
                else:
                    values[section.name][opt.dest] = value
    return values, wrong


def _conf(scans: Sequence[Scan], sections: Sequence[Section]) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    for section in sections:
        conf.register_opts(list(section.options), group=None if section.name == DEFAULT else section.name)
    files = [str(Path(found.file).expanduser()) for found in scans]
    conf(args=[], project="lite", prog="lite", default_config_files=files, default_config_dirs=[], use_env=False)
    return conf


def _value(conf: cfg.ConfigOpts, section: str, name: str) -> Any:
    return conf[name] if section == DEFAULT else conf[section][name]


def _override(conf: cfg.ConfigOpts, sections: Sequence[Section], overrides: Overrides) -> Iterator[Problem]:
    opts = {(section.name, opt.dest): opt for section in sections for opt in section.options}
    for name, keys in overrides.items():
        for key, value in keys.items():
            opt = opts.get((name, key))
            if opt is None:
                yield Problem(f"command line: [{name}] {key}: there is no such option")
                continue
            try:
                conf.set_override(key, value, group=None if name == DEFAULT else name)
            except ValueError:
                yield Problem(f"command line: [{name}] {key}: found {_shown(opt, value)}, wanted {wanted(opt)}")


def _wrong(scans: Sequence[Scan], section: str, opt: cfg.Opt, error: Exception | None) -> Problem:
    found = _source(scans, section, opt)
    if found is None:
        return Problem(f"[{section}] {opt.name}: its default does not fit this machine; set the option to {wanted(opt)}")
    at = f"[{section}] {found.key}: "
    if isinstance(error, cfg.NoSuchOptError | cfg.NoSuchGroupError | cfg.TemplateSubstitutionError):
        return Problem(f"{at}$ begins another option's name, and there is none of that name; write $$ for a plain $", found.place)
    return Problem(f"{at}found {_shown(opt, found.value)}, wanted {wanted(opt)}", found.place)


def _source(scans: Sequence[Scan], section: str, opt: cfg.Opt) -> Assignment | None:
    """The assignment that oslo.config takes: of the last file that has the option, under its newest name, the last one."""
    names = [(section, opt.name), *((old.group or section, old.name or opt.name) for old in opt.deprecated_opts)]
    for found in reversed(scans):
        for group, name in names:
            for assignment in reversed(found.assignments):
                if (assignment.section.lower(), assignment.key) == (group.lower(), name):
                    return assignment
    return None


def _shown(opt: cfg.Opt, value: str) -> str:
    if opt.secret:
        return "a value that is secret and not shown"
    return repr(value) if value else "nothing"


@contextmanager
def _deprecations_told_by_us() -> Iterator[None]:
    """oslo.config logs each deprecated name; ours come with file and line instead, once."""

    def ours(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    names = ("oslo_config.cfg", "oslo_log.versionutils")
    for name in names:
        logging.getLogger(name).addFilter(ours)
    try:
        yield
    finally:
        for name in names:
            logging.getLogger(name).removeFilter(ours)


def _from_builtin(kind: type, value: Any) -> Any:
    if issubclass(kind, Path):
        return Path(value)
    raise TypeError(f"an option cannot be read as {kind.__name__}")
