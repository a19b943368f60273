"""What came of a request, in one of few words: for labels of metrics, logs and traces."""

import asyncio

from common.base.errors import Broken, Conflict, Fault, Invalid, NotFound, Timeout, Unavailable
from common.transport.port import Unroutable
from common.wire.failure import NoSuchMethod, UnsupportedVersion

OK = "ok"
NOBODY = "nobody_listens"

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (asyncio.CancelledError, "cancelled"),
    (NoSuchMethod, "refused"),
    (UnsupportedVersion, "refused"),
    (Timeout, "timeout"),
    (Unavailable, "unavailable"),
    (NotFound, "not_found"),
    (Unroutable, "not_found"),
    (Conflict, "conflict"),
    (Invalid, "invalid"),
    (Broken, "broken"),
    (Fault, "fault"),
)
"""The first that fits."""


def outcome_of(error: BaseException | None) -> str:
    """ "ok", or the kind of error; "bug" is what no contract foresaw. What a peer raised has the same word as there."""
    if error is None:
        return OK
    if isinstance(error, Unroutable) and not error.is_remote:
        return NOBODY
    return next((word for kind, word in _WORDS if isinstance(error, kind)), "bug")
