"""`lite asyncapi` and `lite contract`: what the installed services offer on the bus, for readers and for comparison."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from common.app.commands import ConfigFiles, Debug, tell
from common.app.exits import Exit
from common.app.service import GROUP, services
from common.app.whole import DEFAULT_EXCHANGE, read_whole
from common.base.errors import Misconfigured
from common.rpc.asyncapi import Server, document
from common.rpc.evolution import Breaks, changes
from common.rpc.options import RpcOptions
from common.rpc.snapshot import SIZE_MAX, NotASnapshot, Snapshot, dump as dumped, read, take
from common.transport.rabbit_url import parse_rabbit_url
from common.transport.url import without_password

app = typer.Typer(
    help="The contracts of the installed services, and whether those of another day understand them.", no_args_is_help=True
)


class Format(StrEnum):
    """How a document is written."""

    JSON = "json"
    YAML = "yaml"


@app.command()
def dump() -> None:
    """Print the contracts as a file to keep, for `lite contract check`."""
    typer.echo(dumped(_installed()), nl=False)


@app.command()
def check(
    old: Annotated[
        Path, typer.Argument(metavar="OLD", help="What `lite contract dump` printed then.", exists=True, dir_okay=False, readable=True)
    ],
    verbose: Annotated[bool, typer.Option("--verbose", help="List the changes that break nobody too, and every place.")] = False,
) -> int:  # fmt: skip
    """Say what has changed since OLD that breaks old clients or new ones; exit code 1 if anything does."""
    found = changes(_kept(old), _installed())
    breaking = [change for change in found if change.breaks is not Breaks.NOBODY]
    for change in found if verbose else breaking:
        typer.echo(_printable(change.in_full if verbose else str(change)))
    if breaking:
        tell(f"{len(breaking)} of {len(found)} changes since {old} break somebody.")
        return Exit.REFUSED
    tell(f"Nothing since {old} breaks anybody; {len(found)} changes.")
    return Exit.OK


def asyncapi(
    format_: Annotated[Format, typer.Option("--format", help="How the document is written.")] = Format.JSON,
    config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Print an AsyncAPI 3.0 document of all contracts. Its servers are those of --config-file, without passwords."""
    control_exchange, servers = _bus(config_file, debug=debug)
    owners = {entry.dist.name: entry.dist.version for entry in entry_points(group=GROUP) if entry.dist is not None}
    found = document(
        _installed(),
        servers,
        options=RpcOptions(control_exchange=control_exchange),
        title=f"RPC contracts of {', '.join(services())}",
        version=", ".join(owners.values() if len(owners) == 1 else (f"{name} {number}" for name, number in owners.items())) or "0",
    )
    text = json.dumps(found, indent=2, ensure_ascii=False)
    typer.echo(text if format_ is Format.JSON else _yaml(text).rstrip())


def _kept(path: Path) -> Snapshot:
    try:
        with path.open("rb") as file:
            return read(file.read(SIZE_MAX + 1), name=str(path))
    except NotASnapshot as exc:
        raise typer.BadParameter(_printable(exc.message)) from exc
    except OSError as exc:
        raise typer.BadParameter(f"{path} cannot be read: {exc.strerror}") from exc


def _printable(text: str) -> str:
    """One line, whatever names a file brings."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _installed() -> Snapshot:
    return take({name: service.contracts for name, service in services().items()})


def _yaml(text: str) -> str:
    try:
        import yaml  # noqa: PLC0415  # oslo.config brings it, and may cease to
    except ImportError:
        raise typer.BadParameter("PyYAML is not installed: take --format json") from None
    written: str = yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True, width=120)
    return written


def _bus(files: Sequence[Path] | None, *, debug: bool) -> tuple[str, Mapping[str, Server]]:
    """The control exchange, and the servers that the files name; without files a pattern, so that the document is the same everywhere."""
    if not files:
        variables = {
            "host": ("localhost", "A broker's host"),
            "port": ("5672", "Its port; 5671 with TLS"),
            "virtual_host": ("", "The virtual host"),
        }
        return DEFAULT_EXCHANGE, {
            "rabbit": Server("{host}:{port}", "amqp", "/{virtual_host}", "The broker of transport_url.", variables)
        }
    config = read_whole(files, debug=debug).common
    return config.control_exchange, _servers(config.transport_url)


def _servers(url: str) -> Mapping[str, Server]:
    scheme, _, rest = without_password(url).partition("://")
    if scheme == "rabbit":
        where = parse_rabbit_url(url)
        protocol = "amqp" if where.tls is None else "amqps"
        return {
            f"rabbit{number}": Server(f"{host.name}:{host.port}", protocol, f"/{where.virtual_host.removeprefix('/')}")
            for number, host in enumerate(where.hosts, 1)
        }
    if not scheme.startswith("kombu+"):
        raise Misconfigured(reason=f"transport_url {without_password(url)}: only its own process can reach it")
    host, slash, path = rest.rpartition("@")[2].partition("/")
    return {"bus": Server(host or "localhost", scheme.removeprefix("kombu+"), slash + path)}
