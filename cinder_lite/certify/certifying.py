"""Puts a backend to the specifications while somebody watches."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from cinder_lite.certify.backend import candidate
from cinder_lite.certify.driver_specs import DRIVER_SPECIFICATIONS
from cinder_lite.certify.report import Report, line
from cinder_lite.certify.run import Outcome, Result, results
from cinder_lite.certify.target_specs import TARGET_SPECIFICATIONS
from cinder_lite.config import Backend
from common.base.clock import Clock

Show = Callable[[Result], None]


async def certified(
    backend: Backend, ports: Sequence[str], clock: Clock, *, my_ip: str, only: str = "", timeout_s: float = 300.0
) -> Report:
    """What it came to, with what is left behind. Raises Misconfigured, DriverNotInitialized, TargetUnavailable, PortalNotBound.

    ports   "driver", "target"
    only    words that a specification's sentence must have in it
    """
    async with candidate(backend, clock, my_ip=my_ip) as found:
        before = await found.everything()
        driver_specs = [one for one in DRIVER_SPECIFICATIONS if only in one.name and "driver" in ports]
        is_tried = "target" in ports and not found.why_no_target
        target_specs = [one for one in TARGET_SPECIFICATIONS if only in one.name and is_tried]
        told: list[Result] = []
        with progress(len(driver_specs) + len(target_specs)) as show:
            for stream in (
                results("driver", driver_specs, found.driver_bench, clock, timeout_s=timeout_s),
                results("target", target_specs, found.target_bench, clock, timeout_s=timeout_s),
            ):
                async for result in stream:
                    told.append(result)
                    show(result)
        leaks = sorted(await found.everything() - before)
        notes = (f"the target was not tried: {found.why_no_target}",) if "target" in ports and found.why_no_target else ()
        return Report(backend.name, f"driver {backend.plugin or backend.driver}, target {found.target.kind}", told, leaks, notes)


@contextmanager
def progress(total: int) -> Iterator[Show]:
    """On a terminal a bar, with what failed above it; elsewhere a line for each result. On stderr: the report is the output."""
    if not sys.stderr.isatty():
        yield lambda result: typer.echo(line(result), err=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def show(result: Result) -> None:
            if result.outcome is Outcome.FAILED:
                bar.console.print(Text(line(result), style="red"))
            bar.update(task, advance=1, description=f"{result.port} {result.specification}")

        yield show
