"""Service processes as an operator runs them: one operating system process each, with configuration files."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.app.armed import VARIABLE
from common.app.children import RESTARTS, Child, Children
from common.base.retry import Retry
from common.testing.servers import free_port

COMMAND_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def command(program: str, *words: str, files: Sequence[Path] = (), state: Path | None = None, stdin: bytes = b"") -> Ran:
    """Run `lite`, `nova-lite` or `cinder-lite` as a user would."""
    module = {"lite": "common.app", "nova-lite": "nova_lite", "cinder-lite": "cinder_lite"}[program]
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITE_")}
    env["LITE_CONFIG_FILES"] = os.pathsep.join(map(str, files))
    if state is not None:
        env["XDG_STATE_HOME"] = str(state)
    done = subprocess.run(
        [sys.executable, "-m", module, *words], input=stdin, capture_output=True, timeout=COMMAND_TIMEOUT_S, check=False, env=env
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


async def commanded(program: str, *words: str, files: Sequence[Path] = (), state: Path | None = None) -> Ran:
    """`command`, while the loop goes on."""
    return await asyncio.to_thread(command, program, *words, files=files, state=state)


@dataclass(frozen=True, slots=True)
class Cloud:
    """Running processes, and the files that a client of theirs names."""

    children: Children
    client: Path

    async def nova(self, *words: str) -> Ran:
        return await commanded("nova-lite", *words, files=[self.client])

    async def cinder(self, *words: str) -> Ran:
        return await commanded("cinder-lite", *words, files=[self.client])

    async def lite(self, *words: str) -> Ran:
        return await commanded("lite", *words, files=[self.client])


@asynccontextmanager
async def cloud(
    folder: Path, *, transport_url: str, connection: str, computes: Sequence[str] = ("cmp1", "cmp2"), restarts: Retry = RESTARTS,
    failpoints: Path | None = None, is_simulated: bool = False,
) -> AsyncIterator[Cloud]:  # fmt: skip
    """nova-api, two compute hosts, cinder-api, the scheduler, and one cinder-volume with two backends on one private tgtd each.

    failpoints     the folder in which they are armed (common.app.armed)
    is_simulated   local targets and simulated machines: for many at a time
    """
    env = {} if failpoints is None else {VARIABLE: str(failpoints)}
    client = folder / "lite.conf"
    client.write_text(
        f"[DEFAULT]\ntransport_url = {transport_url}\nstate_path = {folder}/state\nmy_ip = 127.0.0.1\nenable_data_probe = true\n"
        f"graceful_shutdown_timeout = 10\ncompute_driver = {'simulated.SimulatedDriver' if is_simulated else 'auto'}\n"
        f"[database]\nconnection = {connection}\n"
    )
    upgraded = await commanded("lite", "db", "upgrade", files=[client])
    assert upgraded.code == 0, upgraded.err
    backends = folder / "cinder.conf"
    backends.write_text(
        "[DEFAULT]\nenabled_backends = gold, iron\nhost = store1\n"
        + "".join(_stanza(folder, name, is_simulated=is_simulated) for name in ("gold", "iron"))
    )
    made = [Child(f"cinder-{name}", _argv("cinder_lite", name, client, backends), env) for name in ("api", "scheduler", "volume")]
    made.append(Child("nova-api", _argv("nova_lite", "api", client), env))
    for host in computes:
        own = folder / f"{host}.conf"
        own.write_text(f"[DEFAULT]\nhost = {host}\n")
        made.append(Child(f"nova-compute-{host}", _argv("nova_lite", "compute", client, own), env))
    lines: list[str] = []
    children = Children(grace_s=15, ready_s=50, restarts=restarts, write=lines.append, colors=False)
    try:
        async with children.running(made):
            yield Cloud(children, client)
    finally:
        (folder / "processes.log").write_text("".join(lines))


def _stanza(folder: Path, name: str, *, is_simulated: bool) -> str:
    if is_simulated:
        return f"[{name}]\ntarget_helper = local\nvolume_backend_name = {name}\nmax_over_subscription_ratio = 100\n"
    return (
        f"[{name}]\ntarget_helper = tgtadm\ntgtd_managed = true\ntgt_ipc_socket = {folder}/{name}.tgtd\n"
        f"target_ip_address = 127.0.0.1\ntarget_port = {free_port()}\nvolume_backend_name = {name}\nfile_capacity_gb = 10\n"
    )


def _argv(module: str, process: str, *files: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", module, "run", process, *(word for path in files for word in ("--config-file", str(path))))
