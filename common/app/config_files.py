"""What configuration files say and where: oslo.config's own reading of INI, with the line of every assignment kept."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from oslo_config import iniparser

from common.base.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a configuration file; shown as the file was named by the user."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which line where there is one."""

    text: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


@dataclass(frozen=True, slots=True)
class Assignment:
    """`key = value` within a section. The value may be a secret, so no repr has it."""

    place: Place
    section: str
    key: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Scan:
    """What one file says, in its order.

    headers   every section header, also of sections without a line
    """

    file: str
    headers: tuple[tuple[Place, str], ...]
    assignments: tuple[Assignment, ...]


def scan(files: Iterable[Path]) -> tuple[Scan, ...]:
    """What the files say, in their order. Raises Misconfigured, naming every file that cannot be read or understood."""
    scans: list[Scan] = []
    problems: list[Problem] = []
    for file in files:
        try:
            text = file.expanduser().read_text(encoding="utf-8")
            scans.append(_Parser(str(file)).read(text))
        except FileNotFoundError:
            problems.append(Problem(f"{file}: there is no such file; correct --config-file or create it"))
        except UnicodeDecodeError as exc:
            problems.append(Problem(f"{file}: byte {exc.start} is not UTF-8 text"))
        except OSError as exc:
            problems.append(Problem(f"{file}: it cannot be read: {exc.strerror}"))
        except _SyntaxProblem as exc:
            problems.append(exc.problem)
    if problems:
        raise misconfigured(problems)
    return tuple(scans)


def misconfigured(problems: Iterable[Problem]) -> Misconfigured:
    """One error for all that is wrong, so that nobody mends a file line by line; those of one file by line, the rest first."""
    ordered = sorted(problems, key=lambda problem: (problem.place.file, problem.place.line) if problem.place else ("", 0))
    if len(ordered) == 1:
        return Misconfigured(reason=str(ordered[0]))
    return Misconfigured(reason="\n  ".join([f"{len(ordered)} problems", *map(str, ordered)]))


class _SyntaxProblem(Exception):
    """It quotes nothing of the line, which may hold a secret."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Parser(iniparser.BaseParser):
    """Keeps the line at which each assignment begins; oslo.config itself reports it when the next one begins."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self._file = file
        self._section = ""
        self._begun = 0
        self._headers: list[tuple[Place, str]] = []
        self._assignments: list[Assignment] = []

    def read(self, text: str) -> Scan:
        self.parse(text.split("\n"))
        return Scan(self._file, tuple(self._headers), tuple(self._assignments))

    def _split_key_value(self, line: str) -> tuple[str, list[str]]:
        self._begun = self.lineno
        if not self._section:
            self._refuse("an option before any [section]; put [DEFAULT] above it")
        return super()._split_key_value(line)

    def new_section(self, section: str) -> None:
        self._section = section
        self._headers.append((Place(self._file, self.lineno), section))

    def assignment(self, key: str, value: list[str]) -> None:
        place = Place(self._file, self._begun)
        self._assignments.append(Assignment(place, self._section, key, "\n".join(value)))

    def _refuse(self, reason: str) -> NoReturn:
        raise _SyntaxProblem(Problem(reason, Place(self._file, self.lineno)))

    def error_invalid_assignment(self, line: str) -> NoReturn:
        del line
        self._refuse("neither a [section] nor key = value: the line has no '='")

    def error_empty_key(self, line: str) -> NoReturn:
        del line
        self._refuse("a value without a key: the line begins with '='")

    def error_unexpected_continuation(self, line: str) -> NoReturn:
        del line
        self._refuse("a line that begins with a blank continues the option above it, and there is none; remove the blank")

    def error_no_section_end_bracket(self, line: str) -> NoReturn:
        del line
        self._refuse("the section header does not end with ']'")

    def error_no_section_name(self, line: str) -> NoReturn:
        del line
        self._refuse("the section header has no name")
