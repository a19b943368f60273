"""How deep JSON is nested: the bytes are asked first, and the value only where they leave it open."""

from typing import Any

from common.base.limits import NESTING_MAX

_SHORT = 4096
"""Bytes that are counted through in less time than a few looks from one container to the next take."""


def is_surely_flat(written: bytes) -> bool:
    """True when no more containers begin in this JSON than may be nested; False: it is deep, or broad, or has brackets in texts."""
    if len(written) <= _SHORT:
        return written.count(b"[") + written.count(b"{") <= NESTING_MAX
    left = NESTING_MAX
    for opening in (b"[", b"{"):
        at = written.find(opening)
        while at >= 0:
            if not left:
                return False
            left -= 1
            at = written.find(opening, at + 1)
    return True


def is_deep(value: Any) -> bool:
    """Whether it is nested deeper than NESTING_MAX. Without recursion, which is what the depth would break; takes time of the number
    of its containers.
    """
    level = [value]
    for _ in range(NESTING_MAX):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
