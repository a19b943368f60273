"""The house as the tools hold it, and habits that no linter knows."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for package in ("common", "nova_lite", "cinder_lite") for path in sorted((ROOT / package).rglob("*.py"))]

MAY_SLEEP = {
    "common/host/clock.py",
    "common/testing/bus.py",  # these sleep in the loop of a simulation, whose time is what their clocks tell
    "common/testing/clock.py",
    "common/testing/inline_sqlite.py",
    "common/testing/process.py",
}
"""Everybody else sleeps by the Clock port."""
MAY_OWN_TASKS = {
    "common/host/to_its_end.py",  # work that cancellation must not cut off, awaited to its end
    "common/notify/intake.py",  # as rpc/server.py
    "common/rpc/client.py",  # tells servers that a caller left, behind its back; awaited by close(). A publish that its reply may overtake
    "common/rpc/replies.py",  # replies whose queue is missing for a while; ended by close()
    "common/rpc/server.py",  # one for each delivery, ended by drain()
    "common/testing/process.py",  # a simulated process is its tasks, and dies with them
    "common/transport/kombu_consume.py",  # an ack behind the back of who need not wait for it
    "common/transport/rabbit_link.py",  # closes a channel behind a caller who is gone
    "common/transport/rabbit_outbox.py",  # hands frames over when the writer has room again
    "common/transport/tasks.py",  # keep() and end() for transports
}
"""Everybody else begins tasks in a TaskGroup."""
MAY_CATCH_ALL = {
    "common/rpc/work.py",
    "common/rpc/oslo/endpoints.py",  # logs what nobody expected, and raises it on
    "common/flow/driver.py",
    "common/flow/runner.py",
    "common/app/supervisor.py",
    "common/app/cli.py",
    "cinder_lite/certify/run.py",  # as notify/dispatch.py: a driver of anybody's
    "common/wire/failure.py",  # a class of another project is built from what a peer sent
    "common/notify/dispatch.py",
    "common/notify/notifier.py",
}
"""Where a bug is reported and outlived."""
MAY_LEAVE_A_THREAD = {
    "common/app/observing.py",  # closing; what it waits for may not come
    "common/app/tracing.py",  # likewise
}
"""Where a thread may go on after its awaiter was cancelled. Everybody else changes things by `in_thread`."""


def test_every_floor_imports_only_lower_ones() -> None:
    ran = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " 0 broken" in ran.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_keeps_the_habits(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text())
    found = set(habits(tree))
    if name in MAY_SLEEP:
        found.discard("asyncio.sleep")
    if name in MAY_OWN_TASKS:
        found.discard("a task without a group")
    if name in MAY_CATCH_ALL:
        found.discard("except Exception")
    if name in MAY_LEAVE_A_THREAD:
        found.discard("a thread left alone")
    assert found == set(), name


def habits(tree: ast.Module) -> Iterator[str]:
    """What nobody but the named modules may do."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="asyncio"), attr="sleep"):
                yield "asyncio.sleep"
            case (
                ast.Attribute(value=ast.Name(id="asyncio"), attr="create_task" | "ensure_future")
                | ast.Attribute(value=ast.Call(func=ast.Attribute(attr="get_running_loop" | "get_event_loop")), attr="create_task")
            ):
                yield "a task without a group"
            case ast.Expr(value=ast.Await(value=ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr="to_thread")))):
                yield "a thread left alone"
            case ast.ExceptHandler(type=None) | ast.ExceptHandler(type=ast.Name(id="Exception")):
                yield "except Exception"
            case (
                ast.ImportFrom(module="oslo_config.cfg", names=[ast.alias(name="CONF")])
                | ast.Attribute(value=ast.Name(id="cfg"), attr="CONF")
            ):
                yield "the global CONF"
            case ast.Global():
                yield "global"
