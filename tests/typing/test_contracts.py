"""What type checkers find in code that uses a contract, seen from outside: the mistakes that a string-typed RPC lets through.

Each line with a mistake names the rule by which mypy finds it, and behind a stroke that of pyright (basedpyright, whose wheel brings its
own node: it runs without a network). A line without one has none, for mypy --strict and for pyright's strict mode.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 110

HEAD = """
from typing import Protocol

import msgspec

from common.rpc import Context, Contract, call, cast


class Thing(msgspec.Struct):
    size: int


class ThingAPI(Contract, Protocol, topic="things", version="1.0"):
    @call()
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...

    @cast()
    async def note(self, ctx: Context, *, word: str) -> None: ...
"""

SERVERS = """

class Right(ThingAPI):
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing:
        return Thing(1)

    async def note(self, ctx: Context, *, word: str) -> None: ...


class More(Right):
    async def grow(self, ctx: Context, *, name: str | None, by: int = 1, color: str = "") -> Thing:
        return Thing(1)


class MethodMissing(ThingAPI):
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing:
        return Thing(1)


class ParameterRenamed(Right):
    async def grow(self, ctx: Context, *, title: str, by: int = 1) -> Thing:  # mistake: override | reportIncompatibleMethodOverride
        return Thing(1)


class ParameterMissing(Right):
    async def grow(self, ctx: Context, *, name: str) -> Thing:  # mistake: override | reportIncompatibleMethodOverride
        return Thing(1)


class ParameterOfAnotherType(Right):
    async def grow(self, ctx: Context, *, name: bytes, by: int = 1) -> Thing:  # mistake: override | reportIncompatibleMethodOverride
        return Thing(1)


class DefaultMissing(Right):
    async def grow(self, ctx: Context, *, name: str, by: int) -> Thing:  # mistake: override | reportIncompatibleMethodOverride
        return Thing(1)


class OtherResult(Right):
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> str:  # mistake: override | reportIncompatibleMethodOverride
        return ""


class NotAsync(Right):
    def note(self, ctx: Context, *, word: str) -> None: ...  # mistake: override | reportIncompatibleMethodOverride


def serve() -> None:
    Right()
    More()
    MethodMissing()  # mistake: abstract | reportAbstractUsage
"""

CLIENTS = """
import asyncio

from common.rpc.contract import Sender


async def use(sender: Sender) -> None:
    things = ThingAPI.over(sender)
    ctx = Context()
    thing = await things.on("host1").within(5).grow(ctx, name="a", by=2)
    size: int = thing.size
    await things.everywhere().note(ctx, word=f"x{size}")
    async with asyncio.TaskGroup() as group:
        print(group.create_task(things.grow(ctx, name="a")).get_name())

    print(thing.weight)  # mistake: attr-defined | reportAttributeAccessIssue
    word: str = await things.grow(ctx, name="a")  # mistake: assignment | reportAssignmentType
    print(word)
    await things.grow(ctx, name=5)  # mistake: arg-type | reportArgumentType
    await things.grow(ctx, name="a", by="b")  # mistake: arg-type | reportArgumentType
    await things.grow(ctx, by=1)  # mistake: call-arg | reportCallIssue
    await things.grow(ctx, "a")  # mistake: call-arg | reportCallIssue
    await things.grow(name="a")  # mistake: call-arg | reportCallIssue
    await things.grow(ctx, name="a", color="c")  # mistake: call-arg | reportCallIssue
    await things.shrink(ctx, name="a")  # mistake: attr-defined | reportAttributeAccessIssue
    await things.on(5).note(ctx, word="x")  # mistake: arg-type | reportArgumentType
    print(things.grow(ctx, name="a").size)  # mistake: attr-defined | reportAttributeAccessIssue
    things.grow(ctx, name="a")  # mistake: unused-coroutine | reportUnusedCoroutine
    things.everywhere().note(ctx, word="w")  # mistake: unused-coroutine | reportUnusedCoroutine
"""

INSTALLED = """
from cinder_lite.contract import VolumeAPI
from common.rpc import Context
from common.rpc.contract import Sender
from nova_lite.contract import ComputeManagerAPI, Instance, VmState


async def use(sender: Sender, instance: Instance) -> str | None:
    cinder, nova = VolumeAPI.over(sender), ComputeManagerAPI.over(sender)
    ctx = Context()
    volume = await cinder.get(ctx, volume_id="v")
    bdm = await nova.on("cmp1").reserve_block_device_name(ctx, instance=instance, device=None, volume_id=volume.id)
    await nova.on("cmp1").attach_volume(ctx, instance=instance, bdm=bdm)
    if instance.vm_state is VmState.ERROR:
        return None
    await nova.on("cmp1").attach_volume(ctx, instance=instance, bdm=volume)  # mistake: arg-type | reportArgumentType
    await cinder.reserve_volume(ctx, volume_id="v", attachment_id="a")  # mistake: call-arg | reportCallIssue
    for found in await cinder.get_all(ctx):
        print(found.device_name)  # mistake: attr-defined | reportAttributeAccessIssue
    return bdm.device_name
"""

CODES = {"servers": HEAD + SERVERS, "clients": HEAD + CLIENTS, "installed": INSTALLED}
Found = set[tuple[int, str]]


def planted(code: str, checker: int) -> Found:
    """(line, rule) of every mistake, as this checker (0 mypy, 1 pyright) calls it."""
    marks = [(number, line.partition("# mistake: ")[2]) for number, line in enumerate(code.splitlines(), 1)]
    return {(number, mark.split(" | ")[checker]) for number, mark in marks if mark}


def run(*words: str) -> str:
    """A checker's stdout."""
    argv = [sys.executable, "-m", *words]
    ran = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr  # 1: there are findings; 2 and more: it could not look
    return ran.stdout


@pytest.mark.timeout(TIMEOUT_S + 10)
@pytest.mark.parametrize("name", CODES)
def test_mypy_finds_each_mistake_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / "planted.py"
    path.write_text(CODES[name])
    out = run("mypy", "--strict", "--config-file", os.devnull, "--follow-imports", "silent", str(path))
    found = {(int(line), code) for line, code in re.findall(r"planted\.py:(\d+): error: .*\[([a-z-]+)\]", out)}
    assert found == planted(CODES[name], 0), out


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What pyright finds in each of the codes, all looked at in one run."""
    folder: Path = tmp_path_factory.mktemp("pyright")
    for name, code in CODES.items():
        (folder / f"{name}.py").write_text(code)
    config = {"include": ["."], "extraPaths": [str(ROOT)], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    out = run("basedpyright", "--project", str(folder), "--pythonpath", sys.executable, "--outputjson")
    found: dict[str, Found] = {name: set() for name in CODES}
    for one in json.loads(out)["generalDiagnostics"]:
        found[Path(one["file"]).stem].add((one["range"]["start"]["line"] + 1, one["rule"]))
    return found


@pytest.mark.timeout(TIMEOUT_S + 10)
@pytest.mark.parametrize("name", CODES)
def test_pyright_finds_each_mistake_and_nothing_else(pyright: dict[str, Found], name: str) -> None:
    wanted = planted(CODES[name], 1)
    assert wanted <= pyright[name]
    # What follows from a mistake, an unknown type, is told again on its own line and on no other.
    assert {line for line, _ in pyright[name]} == {line for line, _ in wanted}
