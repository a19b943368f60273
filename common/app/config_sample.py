"""A sample configuration file, made from the options that the programs declare. Pure."""

import textwrap
from collections.abc import Iterator, Sequence

from oslo_config import cfg, types

from common.app.config import Section
from common.app.config_types import wanted

_WIDTH = 100


def sample(sections: Sequence[Section]) -> str:
    """The text of a configuration file that says every option's meaning, type and default, and changes nothing."""
    return "\n".join("\n".join(_section(section)).rstrip() + "\n" for section in sections)


def _section(section: Section) -> Iterator[str]:
    yield f"#[{section.name}]" if section.example else f"[{section.name}]"
    yield from _comment(section.help)
    yield ""
    for opt in section.options:
        yield from _comment(opt.help or "")
        if opt.dest in section.idle:
            yield from _comment(f"Without effect here: {section.idle[opt.dest]}.")
        yield from _comment(f"Wanted: {wanted(opt)}.")
        if old := [name.name for name in opt.deprecated_opts if name.name]:
            yield from _comment(f"Deprecated name: {', '.join(old)}.")
        yield f"#{opt.name} = {_default(opt)}".rstrip()
        yield ""


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False)


def _default(opt: cfg.Opt) -> str:
    value = opt.sample_default if opt.sample_default is not None else opt.default
    match value:
        case None:
            return ""
        case list() | tuple():
            return ", ".join(str(word) for word in value)
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case _ if isinstance(opt.type, types.String) and str(value).strip() != str(value):
            return f'"{value}"'
        case _:
            return str(value)
