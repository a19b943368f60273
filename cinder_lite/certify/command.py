"""lite driver: certify a backend's driver and target against the specifications of their ports."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.app.commands import ConfigFiles, Debug, load
from common.base.errors import Broken, Misconfigured

if TYPE_CHECKING:  # read when a backend is certified, not when somebody asks for help
    from cinder_lite.config import Backend

app = typer.Typer(help="Volume drivers and their targets: do they keep the word of their ports?", no_args_is_help=True)


class NotCertified(Broken):
    """Backend {backend} is not certified: {reason}"""


@app.command()
def certify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A stanza that enabled_backends names.")],
    port: Annotated[str, typer.Option(metavar="PORT", help="driver, target or both.")] = "both",
    only: Annotated[str, typer.Option(metavar="WORDS", help="Only specifications in whose sentence these words are.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one specification may take.")] = 300.0,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as a page of HTML.")] = None,
    config_file: ConfigFiles = None, debug: Debug = False,
) -> None:  # fmt: skip
    """Put a backend to the specifications. It makes and deletes volumes of a few GiB there, and touches no others.

    Not while a cinder-volume serves the same backend: its reconciler takes away what it finds and does not know.
    """
    import asyncio

    from cinder_lite.certify.certifying import certified
    from cinder_lite.certify.report import as_html, as_junit, as_text
    from cinder_lite.config import load_cinder
    from common.app.logs import configure_logs
    from common.host.clock import SystemClock

    if port not in {"driver", "target", "both"}:
        raise typer.BadParameter(f"found {port!r}, wanted driver, target or both", param_hint="--port")
    config = load(load_cinder, "cinder", config_file, debug=debug)
    backend = _named(name, config.backends)
    configure_logs(service="lite driver", host=config.common.host, debug=debug, quiet=not debug)
    ports = ("driver", "target") if port == "both" else (port,)
    report = asyncio.run(certified(backend, ports, SystemClock(), my_ip=config.common.my_ip, only=only, timeout_s=timeout))
    typer.echo(as_text(report))
    for path, form in ((junit, as_junit), (html, as_html)):
        if path is not None:
            _write(path, form(report))
    if not report.is_passed:
        raise NotCertified(backend=name, reason=report.summary)


@app.command()
def specifications() -> None:
    """List what is specified, by port and number of guarantee."""
    from cinder_lite.certify.driver_specs import DRIVER_SPECIFICATIONS
    from cinder_lite.certify.target_specs import TARGET_SPECIFICATIONS

    for specification in DRIVER_SPECIFICATIONS:
        typer.echo(f"driver {specification}")
    for demand in TARGET_SPECIFICATIONS:
        typer.echo(f"target {demand}")


def _named(name: str, backends: "tuple[Backend, ...]") -> "Backend":
    found = {backend.name: backend for backend in backends}
    if name not in found:
        raise Misconfigured(reason=f"there is no backend {name}; enabled_backends names {', '.join(found)}")
    return found[name]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as exc:
        raise Misconfigured(reason=f"the report cannot be written to {path}: {exc.strerror}") from exc
