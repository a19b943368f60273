"""Follow what goes on behind an accepted request until its state is final, as a client: by asking."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from common.base.clock import Clock
from common.base.errors import Timeout
from common.base.retry import Retry

T = TypeVar("T")

WAIT_TIMEOUT_S = 120.0
"""How long `--wait` waits by default."""
_BETWEEN_LOOKS = Retry(first_delay_s=0.05, factor=1.5, delay_s_max=1.0)


async def follow(
    look: Callable[[], Awaitable[T]], *, is_final: Callable[[T], bool], shown: Callable[[T], str], tell: Callable[[str], None],
    clock: Clock, what: str, timeout_s: float = WAIT_TIMEOUT_S,
) -> T:  # fmt: skip
    """Look again and again until `is_final`; `tell` each new state once, as `shown` puts it.

    Raises Timeout when it is not final in time, and whatever `look` raises.
    """
    deadline = clock.monotonic() + timeout_s
    told, looks = "", 0
    while True:
        found = await look()
        looks += 1
        if shown(found) != told:
            told = shown(found)
            tell(told)
        if is_final(found):
            return found
        if clock.monotonic() >= deadline:
            raise Timeout(what=f"{what} (now {told})", timeout_s=timeout_s)
        await clock.sleep(_BETWEEN_LOOKS.delay_s(looks))
