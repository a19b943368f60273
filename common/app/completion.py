"""What a shell offers behind the Tab key: commands by typer, topics and methods by the contracts of the installed services."""

from collections.abc import Iterator, Sequence

import typer
from typer.completion import Shells, get_completion_script, install  # type: ignore[attr-defined]  # typer's own, told nowhere else

from common.app.service import services
from common.rpc.contract import Contract, Kind, methods_of

_SHOW, _INSTALL = "--show-completion", "--install-completion"
Offer = list[tuple[str, str]]


def for_named_shell(words: Sequence[str], name: str) -> str | None:
    """What to print for `--show-completion SHELL` or `--install-completion SHELL`; None: the words say something else.

    typer's own options know only the shell that runs the command, and do not look at one that is named.
    Raises BadParameter for an unknown shell.
    """
    if len(words) != 2 or words[0] not in {_SHOW, _INSTALL}:
        return None
    known = [shell.value for shell in Shells]
    if words[1] not in known:
        raise typer.BadParameter(f"completion for {words[1]!r} is not known; known: {', '.join(known)}")
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    if words[0] == _SHOW:
        return str(get_completion_script(prog_name=name, complete_var=variable, shell=words[1]))
    shell, path = install(shell=words[1], prog_name=name, complete_var=variable)
    return f"{shell} completion is in {path}; it takes effect in the next shell."


def topics(ctx: typer.Context, incomplete: str) -> Offer:
    """The topics of all contracts that have methods for this command, with the first contract's first sentence."""
    offered: dict[str, str] = {}
    for contract in _contracts():
        if any(method.kind is _kind(ctx) for method in methods_of(contract).values()):
            offered.setdefault(contract.__rpc_route__.topic, _first_line(contract))
    return [(topic, text) for topic, text in offered.items() if topic.startswith(incomplete)]


def methods(ctx: typer.Context, incomplete: str) -> Offer:
    """The methods of the topic and namespace that stand before, of the kind of the command: calls, or casts."""
    topic, namespace = ctx.params.get("topic") or "", ctx.params.get("namespace")
    offered: dict[str, str] = {}
    for contract in _contracts():
        route = contract.__rpc_route__
        if (topic == route.topic or topic.startswith(f"{route.topic}.")) and route.namespace == namespace:
            known = methods_of(contract)
            offered.update({name: _first_line(getattr(contract, name)) for name in known if known[name].kind is _kind(ctx)})
    return [(name, text) for name, text in offered.items() if name.startswith(incomplete)]


def installed(incomplete: str) -> list[str]:
    """The names of the installed services."""
    return [name for name in services() if name.startswith(incomplete)]


def _contracts() -> Iterator[type[Contract]]:
    for service in services().values():
        yield from service.contracts


def _kind(ctx: typer.Context) -> Kind:
    return Kind.CALL if ctx.info_name == Kind.CALL else Kind.CAST


def _first_line(thing: object) -> str:
    return (thing.__doc__ or "").strip().partition("\n")[0]
