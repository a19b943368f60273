"""Commands whose modules are read when they are asked for, so that `--help` and each of them wait for nobody else's libraries."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group_from_info
from typer.models import TyperInfo


class Later(NamedTuple):
    """A command or a group of them: where it is ("module:name" of a Typer, or of a function), and the first sentence of its help.

    Without that sentence its module is read for a list of commands, too.
    """

    place: str
    help: str = ""


class LazyGroup(TyperGroup):
    """Subclass it with `later`; give the subclass to Typer as `cls`. Commands that are added to that Typer are there as ever."""

    later: ClassVar[Mapping[str, Later]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Those that are there, then those that come later."""
        return list(dict.fromkeys((*super().list_commands(ctx), *self.later)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, read now; None when there is none of that name."""
        if cmd_name in self.later and cmd_name not in self.commands:
            self.commands[cmd_name] = _read(cmd_name, self.later[cmd_name].place)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As ever; for a name that nobody has, all are read, so that the near ones can be named."""
        if args[0] not in self.list_commands(ctx):
            for name in self.later:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of the help, from `later` as far as it goes."""
        rows = [(name, self._short_help(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _short_help(self, ctx: Any, name: str) -> str:
        if name in self.later and self.later[name].help:
            return self.later[name].help
        return str(self.get_command(ctx, name).get_short_help_str(limit=100))


def _read(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        info = TyperInfo(found, name=name)
        return get_group_from_info(info, pretty_exceptions_short=False, suggest_commands=True, rich_markup_mode=None)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name)(found)
    return get_command(alone)
