"""What mypy finds in code that uses a contract: the five mistakes that a string-typed RPC lets through."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import asyncio
from typing import Protocol

from common.rpc import Context, Contract, call, cast
from common.rpc.contract import Sender


class Thing:
    size: int


class ThingAPI(Contract, Protocol, topic="things", version="1.0"):
    @call()
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...

    @cast()
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Right(ThingAPI):
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing:
        return Thing()

    async def note(self, ctx: Context, *, word: str) -> None: ...


class Missing(ThingAPI):
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing:
        return Thing()


class Renamed(ThingAPI):
    async def grow(self, ctx: Context, *, title: str, by: int = 1) -> Thing:  # mistake: override
        return Thing()

    async def note(self, ctx: Context, *, word: str) -> None: ...


async def use(sender: Sender) -> None:
    Right()
    Missing()  # mistake: abstract
    things = ThingAPI.over(sender)
    ctx = Context()
    thing = await things.on("host1").grow(ctx, name="a", by=2)
    print(thing.size)
    print(thing.weight)  # mistake: attr-defined
    await things.grow(ctx, name=5)  # mistake: arg-type
    await things.grow(ctx, by=1)  # mistake: call-arg
    await things.everywhere().note(ctx, word="x")
    async with asyncio.TaskGroup() as group:
        print(group.create_task(things.grow(ctx, name="a")).get_name())
"""


@pytest.mark.timeout(120)
def test_mypy_finds_each_of_the_five_mistakes_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "planted.py"
    path.write_text(CODE)
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", "--follow-imports", "silent", str(path)],
        cwd=root, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    found = {(int(line), code) for line, code in re.findall(r"planted\.py:(\d+): error: .*\[([a-z-]+)\]", ran.stdout)}
    wanted = {(number, line.split("# mistake: ")[1]) for number, line in enumerate(CODE.splitlines(), 1) if "# mistake: " in line}
    assert found == wanted, ran.stdout + ran.stderr
