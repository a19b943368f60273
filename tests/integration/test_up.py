"""`lite up`, as two terminals see it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import Ran, commanded

pytestmark = pytest.mark.timeout(200, func_only=True)
READY_S = 90


@dataclass
class Up:
    """A running `lite up`; `words` is what it has written."""

    process: asyncio.subprocess.Process
    state: Path
    words: list[str]

    async def run(self, program: str, *words: str) -> Ran:
        return await commanded(program, *words, state=self.state)

    async def says(self, word: str) -> None:
        """Read on until a line holds `word`."""
        assert self.process.stderr is not None
        async with asyncio.timeout(READY_S):
            while line := (await self.process.stderr.readline()).decode():
                self.words.append(line)
                if word in line:
                    return
        raise AssertionError(f"it never said {word!r}:\n{''.join(self.words[-30:])}")

    def child(self, name: str) -> int:
        """The process id in what a child logged last."""
        line = next(line for line in reversed(self.words) if f"service={name} " in line and "pid=" in line)
        return int(line.split("pid=")[1].split()[0])


@asynccontextmanager
async def up(state: Path, path: str | None = None) -> AsyncIterator[Up]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITE_")}
    env |= {"XDG_STATE_HOME": str(state), "PATH": path or env["PATH"]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "common.app", "up", stderr=asyncio.subprocess.PIPE, env=env, start_new_session=True
    )
    made = Up(process, state, [])
    try:
        await made.says("processes are up")
        yield made
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        _, rest = await process.communicate()
        assert process.returncode == 0, "".join(made.words[-20:]) + rest.decode()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.real("tgt", "qemu")
async def test_a_second_terminal_attaches_a_volume_calls_any_method_and_survives_a_killed_service(tmp_path) -> None:
    async with up(tmp_path) as running:
        demo = await running.run("lite", "demo")
        assert demo.code == 0, demo.err
        assert "real iSCSI" in demo.out
        await check_verbs(running)
        await check_rpc(running)
        pids = [running.child(name) for name in ("nova-api", "nova-compute", "cinder-api", "cinder-scheduler", "cinder-volume")]
        for binary, pid in (("nova-api", pids[0]), ("cinder-volume", pids[4])):
            os.kill(pid, signal.SIGKILL)
            await running.says(f"serving binary={binary}")
            assert (await running.run("lite", "demo")).code == 0
    assert not any(alive(pid) for pid in pids)
    assert (await commanded("nova-lite", "list", state=tmp_path)).code == 3


async def check_verbs(running: Up) -> None:
    booted = await running.run("nova-lite", "boot", "--flavor", "m1.small", "web", "--wait", "--json")
    assert (booted.code, json.loads(booted.out)["vm_state"]) == (0, "active")
    for _ in range(2):
        assert (await running.run("cinder-lite", "create", "--name", "twin", "1", "--wait")).code == 0
    rows = (await running.run("cinder-lite", "list", "--json")).json()
    ambiguous = await running.run("nova-lite", "volume-attach", "web", "twin")
    assert ambiguous.code == 1
    assert all(row["id"] in ambiguous.err for row in rows)
    assert (await running.run("nova-lite", "volume-attach", "web", rows[0]["id"], "--wait")).code == 0
    listed = await running.run("nova-lite", "volume-attachments", "web")
    assert rows[0]["id"] in listed.out
    assert "/dev/vdb" in listed.out
    await check_growing(running, used=rows[0]["id"], free=rows[1]["id"])
    busy = await running.run("cinder-lite", "delete", rows[0]["id"])
    assert (busy.code, "must be detached first" in busy.err) == (1, True)
    assert (await running.run("nova-lite", "delete", "web", "--wait")).code == 0
    assert (await running.run("cinder-lite", "delete", *(row["id"] for row in rows), "--wait")).code == 0


async def check_growing(running: Up, *, used: str, free: str) -> None:
    larger = await running.run("cinder-lite", "extend", used, "2", "--wait", "--json")
    assert (larger.code, larger.json()["size"], larger.json()["status"]) == (0, 2, "in-use"), larger.err
    taken = await running.run("cinder-lite", "snapshot-create", free, "--name", "before", "--wait", "--json")
    assert (taken.code, taken.json()["status"], taken.json()["volume_id"]) == (0, "available", free), taken.err
    copy = await running.run("cinder-lite", "create", "--snapshot", "before", "--name", "copy", "--wait", "--json")
    assert (copy.code, copy.json()["snapshot_id"], copy.json()["size"]) == (0, taken.json()["id"], 1), copy.err
    assert "before" in (await running.run("cinder-lite", "snapshot-list")).out
    assert (await running.run("cinder-lite", "snapshot-delete", "before", "--wait")).code == 0
    gone = await running.run("cinder-lite", "snapshot-show", "before")
    assert (gone.code, gone.err) == (1, "error: Snapshot before could not be found.\n")
    assert (await running.run("cinder-lite", "delete", "copy", "--wait")).code == 0


async def check_rpc(running: Up) -> None:
    found = json.loads((await running.run("lite", "rpc", "call", "nova-api", "get_all")).out)
    assert (found["nova_object.name"], found["nova_object.data"]) == ("InstanceList", {"objects": []})
    refused = await running.run("lite", "rpc", "call", "nova-api", "get", "server=nobody")
    assert (refused.code, refused.err) == (1, "error: Instance nobody could not be found.\n")
    assert (await running.run("lite", "rpc", "cast", "cinder-volume", "publish_service_capabilities")).code == 0
    assert (await running.run("lite", "rpc", "fanout", "cinder-volume", "publish_service_capabilities")).code == 0
    assert (await running.run("lite", "rpc", "call", "compute.nowhere", "about", "--namespace", "probe")).code == 3
    api = running.child("cinder-api")
    os.kill(api, signal.SIGSTOP)
    try:
        late = await running.run("lite", "rpc", "call", "cinder-api", "get_all", "--timeout", "0.5")
    finally:
        os.kill(api, signal.SIGCONT)
    assert late.code == 2
    assert "no answer within 0.5 s" in late.err


async def test_without_tgtd_and_qemu_the_demo_says_what_stands_in_for_them(tmp_path) -> None:
    async with up(tmp_path / "s", path=str(tmp_path)) as running:
        demo = await running.run("lite", "demo")
        assert demo.code == 0, demo.err
        assert "target local" in demo.out
        assert "machine simulated" in demo.out
        assert "the machine reads the 4096 bytes back" in demo.out
        await check_doctor(running)


async def check_doctor(running: Up) -> None:
    """Sound, then with a file of nobody and a service that is stopped, then sound again."""
    sound = await running.run("lite", "doctor", "--strict")
    assert (sound.code, sound.out) == (0, ""), sound.out
    assert "Nothing is wrong. Looked at backends: 1, hosts: 1, servers: 0, services: 5, snapshots: 0, volumes: 0." in sound.err
    stray = running.state / "lite" / "volumes" / "file" / f"volume-{STRAY}"
    stray.write_bytes(b"")
    api = running.child("nova-api")
    os.kill(api, signal.SIGSTOP)
    try:
        told = await running.run("lite", "doctor")
        strict = await running.run("lite", "doctor", "--strict", "--json", "--fix")
    finally:
        os.kill(api, signal.SIGCONT)
    assert (told.code, strict.code) == (0, 1), told.err + strict.err
    found = [(each["invariant"], each["subject"]) for each in strict.json()["violations"]]
    assert len(found) == 2
    assert found[0][0] == "unknown"
    assert found[0][1].startswith("service:nova-api on ")
    assert found[1] == ("L3", f"volume:{STRAY}")
    assert STRAY in told.out
    assert "does not answer within 5 s" in told.out
    stray.unlink()
    assert (await running.run("lite", "doctor", "--strict")).code == 0


STRAY = "6b1f0a36-6f0c-4b8e-9b0a-0d5f5f3c2b11"
