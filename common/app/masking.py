"""Secrets out of whatever is about to be shown: by the name of what holds them, and by their form within a text. Pure."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_WORDS = r"(?:\w*_)?(?:password|passwd|provider_auth|auth_token)"
_NAME = re.compile(rf"{_WORDS}|(?:\w*_)?(?:token|secret)|transport_url|connection|service_catalog", re.IGNORECASE)
"""`discovery_auth_password`, `admin_token` too; `connection_info` is not one: what is secret in it is masked by its own name."""

_URL = re.compile(r"(?<![a-z0-9+.-])(?P<kept>[a-z][a-z0-9+.-]*://[^\s:/@'\"]*:)[^\s'\"]*(?=@)", re.IGNORECASE)
"""Up to the last @ before a blank, since unquoted passwords hold / and @. Of `rabbit://a:b@h1,c:d@h2` only h2 is left: too much hidden is no harm."""

_CHAP = re.compile(r"(?P<kept>\bCHAP\s+\S+\s+)[^\s'\",;)}\]]+")
"""volumes.provider_auth: CHAP <username> <password>."""

_ASSIGNED = re.compile(
    rf"(?P<kept>\b{_WORDS}\b(?:\\*['\"])?\s*[:=]\s*)"
    r"(?:(?P<quote>\\*['\"]).*?(?:(?<!\\)(?P=quote)|\Z)|[^\s'\",;)}\]]+)",
    re.IGNORECASE | re.DOTALL,
)
"""A dict's repr, JSON, JSON within JSON (the bus has that), an option, a keyword argument: 'password': 'x', \"password\": \"x\", password=x.

Not `connection: ...`, which begins many a sentence; the password in such a URL has gone already."""

_DEPTH_MAX = 8


def mask_text(text: str) -> str:
    """`text` with *** for every password in a URL, CHAP password and value of something named like a secret."""
    for pattern in (_URL, _CHAP, _ASSIGNED):
        text = pattern.sub(rf"\g<kept>{MASK}", text)
    return text


def mask(value: Any, *, depth: int = 0) -> Any:
    """`value` for showing: containers as lists and dicts, numbers as they are, anything else as text; no secret in it.

    What lies deeper than eight containers is left out.
    """
    shown: Any
    match value:
        case _ if depth > _DEPTH_MAX:
            shown = "..."
        case bytes() | bytearray():
            shown = mask_text(bytes(value).decode(errors="replace"))
        case Mapping():
            shown = {str(key): MASK if _holds_secret(key, item) else mask(item, depth=depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            shown = [mask(item, depth=depth + 1) for item in value]
        case bool() | int() | float() | None:
            shown = value
        case _:
            shown = mask_text(str(value))
    return shown


def _holds_secret(key: object, value: object) -> bool:
    """A secret's name with something in it: None and False say that there is none, which is worth knowing."""
    return value is not None and value is not False and _NAME.fullmatch(str(key)) is not None
