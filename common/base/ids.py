"""Ids as types, so that one cannot be passed for another."""

import os
import uuid
from typing import NewType

ServerId = NewType("ServerId", str)
VolumeId = NewType("VolumeId", str)
AttachmentId = NewType("AttachmentId", str)
"""Made first and carried by every later message of an attachment: its fencing token."""
FlowId = NewType("FlowId", str)
RequestId = NewType("RequestId", str)


_MADE_BY_MESSAGES = uuid.UUID("6f1c3a55-9f0e-4d0b-8a51-2f5f0a6f0c7e")


def new_uuid() -> str:
    """A random UUID with dashes, as OpenStack's rows have it."""
    return str(uuid.uuid4())


def same_uuid(cause: str | None) -> str:
    """The UUID of what `cause` (a message's id) makes: a message that comes twice makes the same thing. None: a random one."""
    return new_uuid() if cause is None else str(uuid.uuid5(_MADE_BY_MESSAGES, cause))


def new_hex() -> str:
    """32 random hexadecimal digits, as oslo.messaging's `_msg_id` and `_unique_id` have them."""
    if os.urandom is not _SYSTEM:  # somebody counts what is drawn
        return os.urandom(16).hex()
    try:
        return _DRAWN.pop()
    except IndexError:
        digits = _SYSTEM(16 * _DRAWN_MAX).hex()
        _DRAWN.extend([digits[at : at + 32] for at in range(32, 32 * _DRAWN_MAX, 32)])
        return digits[:32]


def new_span_id() -> str:
    """16 random hexadecimal digits, as W3C's traces have them."""
    return new_hex()[:16] if os.urandom is _SYSTEM else os.urandom(8).hex()


_SYSTEM = os.urandom
_DRAWN_MAX = 64
_DRAWN: list[str] = []
"""Digits for the next ids: one question to the system for many of them costs a tenth. A forked child draws its own."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_DRAWN.clear)


def new_request_id() -> RequestId:
    """`req-<uuid>`, the form of oslo.context."""
    digits = new_hex()
    variant = "89ab"[
        int(digits[16], 16) & 3
    ]  # RFC 9562, 4.1 and 5.4: a random UUID, as uuid.uuid4 makes it in three times the time
    return RequestId(f"req-{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}")


def is_uuid(text: str) -> bool:
    """True when `text` is a UUID in the form with dashes, in either case."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
