"""How every command talks to people: errors in one line, exit codes that scripts can tell apart, tables like OpenStack's clients."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import typer
from rich.box import ASCII2
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.main import get_command

from common.app.completion import for_named_shell
from common.app.exits import Ending, Exit
from common.app.supervisor import run_command, say


def run_cli(app: typer.Typer, argv: Sequence[str] | None = None, *, name: str | None = None) -> int:
    """Run the command that `argv` (without the program's name; None: the process's own) names; its exit code.

    A Fault is one line on stderr. Any other error is one line that names its class; with --debug or LITE_DEBUG=1 its
    traceback too. Ctrl-C is 130, a reader that went away 141 and silence.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    trace = "--debug" in words or os.environ.get("LITE_DEBUG", "") not in ("", "0")
    try:
        code = run_command(lambda: _run(app, words, name), trace=trace)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_gone()
    return code


def _run(app: typer.Typer, words: list[str], name: str | None) -> int:
    try:
        if name is not None and (text := for_named_shell(words, name)) is not None:
            typer.echo(text)
            return Exit.OK
        result = get_command(app).main(args=words, prog_name=name, standalone_mode=False)
    except typer.TyperException as exc:
        return say(_usage(exc))
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except SystemExit as exc:
        if isinstance(exc.__context__, BrokenPipeError):
            raise exc.__context__ from None
        return exc.code if isinstance(exc.code, int) else Exit.OK if exc.code is None else Exit.REFUSED
    return result if isinstance(result, int) and not isinstance(result, bool) else Exit.OK


def _usage(error: typer.TyperException) -> Ending:
    """What typer has to say, without its frame; it knows the commands and options that are near a mistyped one."""
    context: Any = getattr(error, "ctx", None)
    if context is None:
        return Ending(Exit.USAGE, f"error: {error.format_message()}")
    if type(error).__name__ == "NoArgsIsHelpError":
        return Ending(Exit.USAGE, error.format_message())
    hint = f"Try '{context.command_path} {context.help_option_names[0]}' for help."
    return Ending(Exit.USAGE, f"{context.get_usage()}\n{hint}\nerror: {' '.join(error.format_message().split())}")


def _reader_gone() -> int:
    """Nothing more can be written; the interpreter's own last flush must not complain about it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return Exit.BROKEN_PIPE


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, file: TextIO | None = None) -> None:
    """A table with lines around it. On a terminal long cells are folded; elsewhere every row is one line, however long."""
    out = file or sys.stdout
    table = Table(box=ASCII2, header_style="bold", show_edge=True)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(cell, out)) for cell in row))
    _console(out, table).print(table)


def print_properties(properties: Mapping[str, object], *, file: TextIO | None = None) -> None:
    """One thing as OpenStack's clients show it: a table of Property and Value."""
    print_table(("Property", "Value"), properties.items(), file=file)


def print_facts(facts: Iterable[tuple[str, object]], *, file: TextIO | None = None) -> None:
    """Lines of a word and what there is to say of it, for a screen. What has no value is left out."""
    out = file or sys.stdout
    shown = [(word, _cell(value, out)) for word, value in facts if value is not None]
    width = max((len(word) for word, _ in shown), default=0)
    out.writelines(f"{word:<{width}}  {text}\n" for word, text in shown)


def print_json(value: object, *, file: TextIO | None = None) -> None:
    """JSON for programs, indented; what JSON does not know is written as text."""
    out = file or sys.stdout
    out.write(json.dumps(value, indent=2, default=str, ensure_ascii=not _speaks_unicode(out)) + "\n")


def span(seconds: float) -> str:
    """A time in its largest unit; what lies ahead, by a clock that differs, is no time."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _console(out: TextIO, table: Table) -> Console:
    if out.isatty():
        return Console(file=out, highlight=False)
    wide = Console(file=out, width=10_000_000)
    return Console(file=out, width=max(1, wide.measure(table).maximum), no_color=True, highlight=False, force_terminal=False)


def _cell(value: object, out: TextIO) -> str:
    """What a cell shows. Characters that would move the cursor or that `out` cannot write are escaped."""
    match value:
        case None:
            text = "-"
        case str():
            text = value
        case Mapping() | list() | tuple():
            text = json.dumps(value, default=str, ensure_ascii=False)
        case _:
            text = str(value)
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return (
        safe if _speaks_unicode(out) else safe.encode(out.encoding or "ascii", "backslashreplace").decode(out.encoding or "ascii")
    )


def _speaks_unicode(out: TextIO) -> bool:
    return (out.encoding or "ascii").lower().replace("-", "").startswith("utf")
