"""What the pages say about the framework is true: their Python runs and prints what they show, and the tests they name are there."""

import ast
import asyncio
import contextlib
import inspect
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "common/rpc/MIGRATING.md")
_NAMED_TEST = re.compile(r"(tests/[\w/]+\.py)(?:::(\w+))?")
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


def blocks(text: str) -> list[str]:
    """The Python of a page, with as many empty lines before it as makes errors name the page's own lines."""
    fences = [token for token in MarkdownIt().parse(text) if token.type == "fence" and token.info.split()[:1] == ["python"]]
    return ["\n" * (token.map[0] + 1 if token.map else 0) + token.content for token in fences]


def promised(code: str) -> list[str]:
    """What the comments behind `print(...)` say it prints."""
    lines = code.splitlines()
    ends = sorted(
        node.end_lineno or 0
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )
    return [lines[end - 1].partition("  # ")[2] for end in ends]


async def run(page: str, text: str) -> list[tuple[str, str]]:
    """(promised, printed) of each line that the page prints. Blocks run in order, as if typed into `python -m asyncio`."""
    found: list[tuple[str, str]] = []
    with module(page) as made:
        for code in blocks(text):
            out = io.StringIO()
            compiled = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with contextlib.redirect_stdout(out):
                result = eval(compiled, made.__dict__)  # the page's code is this project's own
                if inspect.iscoroutine(result):
                    async with asyncio.timeout(20):
                        await result
            printed = [line for line in out.getvalue().splitlines() if not line.startswith("20")]  # log lines begin with the time
            found += zip(promised(code), printed, strict=True)
    return found


@contextlib.contextmanager
def module(page: str) -> Iterator[ModuleType]:
    """A module for the page's code, since dataclasses and type hints look names up there."""
    made = ModuleType(re.sub(r"\W", "_", page))
    sys.modules[made.__name__] = made
    try:
        yield made
    finally:
        del sys.modules[made.__name__]


@pytest.mark.parametrize("page", PAGES)
async def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page: str) -> None:
    lines = await run(page, (ROOT / page).read_text())
    assert lines
    assert [printed for _, printed in lines] == [said for said, _ in lines]


@pytest.mark.parametrize("page", PAGES)
def test_tests_and_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text()
    for path in set(_LINK.findall(text)):
        assert ((ROOT / page).parent / path).exists(), path
    for path, name in _NAMED_TEST.findall(text):
        assert (ROOT / path).is_file(), path
        assert not name or re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{name}"


async def test_a_page_that_lies_is_found_out() -> None:
    true = "```python\nprint(1 + 1)  # 2\n```\n"
    assert await run("page", true) == [("2", "2")]
    assert await run("page", true.replace("# 2", "# 3")) == [("3", "2")]
    with pytest.raises(NameError):
        await run("page", "```python\nundefined\n```\n")
    with pytest.raises(ValueError, match="zip"):
        await run("page", "```python\nif False:\n    print(1)  # 1\n```\n")
    assert await run("page", "```python\nimport asyncio\nawait asyncio.sleep(0)\nprint('ran')  # ran\n```\n") == [("ran", "ran")]
