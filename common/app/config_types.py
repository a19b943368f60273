"""Types of options beyond oslo.config's own, and what a type wants in words."""

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from oslo_config import cfg, types


class Checked(types.ConfigType):
    """A type made of a function; `wanted` says in words what the function takes."""

    def __init__(self, convert: Callable[[str], Any], *, wanted: str) -> None:
        """`convert` raises ValueError for what it does not take."""
        super().__init__(type_name=wanted)
        self._convert = convert
        self.wanted = wanted

    def __call__(self, value: Any) -> Any:
        return self._convert(str(value))

    def _formatter(self, value: Any) -> str:
        return str(value)


def path_type() -> Checked:
    """A path; `~` is the user's home and a relative path begins where the process was started."""
    return Checked(lambda text: os.path.abspath(os.path.expanduser(text)) if text else "", wanted="a path")  # noqa: PTH100, PTH111 - text, not Path, goes into other options by $name


def matching(pattern: str, *, wanted: str) -> Checked:
    """A text that `pattern` matches from end to end."""

    def convert(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(text)
        return text

    return Checked(convert, wanted=wanted)


def one_of(words: Mapping[str, str]) -> Checked:
    """One of the keys; the option's value is what stands beside it."""

    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return words[text]

    return Checked(convert, wanted=f"one of {', '.join(words)}")


def wanted(opt: cfg.Opt) -> str:
    """What the option takes, as it stands in an error: "an integer from 1 to 65535"."""
    match opt.type:
        case Checked(wanted=words):
            pass
        case types.Boolean():
            words = "true or false"
        case types.Integer() as kind:
            words = f"an integer{_range(kind)}"
        case types.Float() as kind:
            words = f"a number{_range(kind)}"
        case types.List():
            words = "words divided by commas"
        case types.HostAddress() | types.IPAddress():
            words = "an IP address or a host name"
        case types.String(choices=choices) if choices:
            words = f"one of {', '.join(choices)}"
        case _:
            words = "text"
    return words


def _range(kind: types.Number) -> str:
    match kind.min, kind.max:
        case None, None:
            return ""
        case low, None:
            return f" of at least {low:.10g}"
        case None, high:
            return f" of at most {high:.10g}"
        case low, high:
            return f" from {low:.10g} to {high:.10g}"


def nearest(word: str, known: Mapping[str, str], *, cutoff: float = 0.6) -> str | None:
    """The value beside the key that is most like `word`, letter case aside; None when none is like it."""
    folded = {name.casefold(): name for name in known}
    close = get_close_matches(word.casefold(), folded, n=1, cutoff=cutoff)
    return known[folded[close[0]]] if close else None
