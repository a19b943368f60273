"""Client middleware that repeats what surely did not happen, within the request's deadline and a budget of the process."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec.structs import replace
from tenacity import AsyncRetrying, RetryCallState
from tenacity.wait import wait_exponential, wait_random

from common.base.budget import RetryBudget
from common.base.clock import Clock
from common.base.limits import RPC_RESPONSE_TIMEOUT_S
from common.base.retry import Retry
from common.rpc.client import NobodyListens
from common.rpc.middleware import Outgoing
from common.transport.port import BusUnavailable

DEFAULT = Retry(attempts=5, first_delay_s=0.1, factor=2.0, delay_s_max=2.0)


def surely_did_not_happen(error: BaseException | None) -> bool:
    """True when no server can have the request: nobody listens, or the bus was away and never given it.

    Not a Timeout; not what a peer reports of others; not a refusal, which a second try meets too; and not a bus that was lost
    while it had the message and had not confirmed it, since the message may be in its queue.
    """
    if isinstance(error, NobodyListens):
        return not error.is_remote
    return isinstance(error, BusUnavailable) and error.retryable and not error.is_remote and not error.fields.get("is_sent", True)


class Retrying:
    """Implements `common.rpc.middleware.ClientMiddleware`; it belongs outside of those that measure each try.

    budget      shared by all clients of a process
    timeout_s   time of a request that sets none itself: rpc_response_timeout
    """

    def __init__(
        self, clock: Clock, *, budget: RetryBudget, retry: Retry = DEFAULT, timeout_s: float = RPC_RESPONSE_TIMEOUT_S
    ) -> None:
        self._clock = clock
        self._budget = budget
        self._retry = retry
        self._timeout_s = timeout_s
        rising = wait_exponential(multiplier=retry.first_delay_s, exp_base=retry.factor, max=retry.delay_s_max)
        self._wait = rising + wait_random(0, retry.first_delay_s)

    async def __call__(self, request: Outgoing, proceed: Callable[[Outgoing], Awaitable[Any]]) -> Any:
        self._budget.earn()
        timeout_s = request.route.timeout_s or request.method.timeout_s or self._timeout_s
        ctx = request.ctx.until(self._clock.monotonic() + timeout_s)
        tries = AsyncRetrying(
            sleep=self._clock.sleep, wait=self._wait, retry=self._is_worth_it(ctx.deadline), reraise=True,
        )  # fmt: skip
        return await tries(proceed, replace(request, ctx=ctx))

    def _is_worth_it(self, deadline: float | None) -> Callable[[RetryCallState], bool]:
        def is_worth_it(state: RetryCallState) -> bool:
            assert state.outcome is not None
            if not state.outcome.failed or not surely_did_not_happen(state.outcome.exception()):
                return False
            if state.attempt_number >= self._retry.attempts:
                return False
            longest_s = self._retry.delay_s(state.attempt_number) + self._retry.first_delay_s
            return (deadline is None or self._clock.monotonic() + longest_s < deadline) and self._budget.spend()

        return is_worth_it
