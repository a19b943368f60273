"""Sending replies, also to callers whose queue is missing for a while."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from common.base.clock import Clock
from common.base.errors import Fault
from common.base.ids import new_hex
from common.base.limits import PUBLISH_TIMEOUT_S, REPLIES_WAITING_MAX, SETTLE_TIMEOUT_S
from common.base.retry import Retry
from common.host.lean import structlog
from common.rpc.counts import Counts, Event
from common.transport.port import Message, MessageTooLarge, Pipelining, Transport, Unroutable
from common.wire.failure import encode_failure
from common.wire.messages import AnyRequest, Reply, encode_reply

_AGAIN = Retry(first_delay_s=0.1, factor=1.5, delay_s_max=1.0)
_GONE_MAX = 200
_log = structlog.get_logger(__name__)


def failed(msg_id: str, error: BaseException) -> bytes:
    """The body of a reply that raises `error` at the caller."""
    return encode_reply(Reply(msg_id, failure=encode_failure(error), unique_id=new_hex()))


class Replying:
    """How many replies are under way whose confirm nobody waits for; bounded by the prefetch of their requests."""

    def __init__(self) -> None:
        self._number = 0
        self._none = asyncio.Event()
        self._none.set()

    def one_more(self) -> None:
        """One was sent."""
        self._number += 1
        if self._number == 1:
            self._none.clear()

    def one_ended(self) -> None:
        """One is confirmed, or has failed."""
        self._number -= 1
        if not self._number:
            self._none.set()

    async def wait(self, timeout_s: float) -> None:
        """Returns when all are, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._none.wait()


class Replier:
    """Sends the replies of one server.

    A caller that reconnects after its broker died makes its queue anew under the same name: a reply that finds no queue is tried
    again in the background for `retry_s` seconds. A queue that was missing for so long is not waited for again.
    """

    def __init__(
        self, transport: Transport, *, server: str, clock: Clock, counts: Counts, retry_s: float, is_mandatory: bool = True
    ) -> None:
        self._transport = transport
        self._pipelining = transport if isinstance(transport, Pipelining) else None
        self._server = server
        self._clock = clock
        self._counts = counts
        self._retry_s = retry_s
        self._is_mandatory = is_mandatory
        self._waiting: set[asyncio.Task[None]] = set()
        self._gone: OrderedDict[str, None] = OrderedDict()

    def send_soon(self, request: AnyRequest, body: bytes, on_end: Callable[[Exception | None], None]) -> bool:
        """Send it, if that needs no waiting; `on_end` hears of the confirm, or of the error that `send` goes on from.

        False: it was not sent.
        """
        if self._pipelining is None or not request.is_call:
            return False
        try:
            return self._pipelining.publish_soon(self._message(request, body), on_end)
        except Fault:  # `send` meets it too
            return False

    async def send(self, request: AnyRequest, body: bytes, *, failed_with: Exception | None = None) -> None:
        """Returns when the bus has it, or when it is tried again in the background. Never raises.

        failed_with   what a first try came to
        """
        if not request.is_call:
            return
        try:
            if isinstance(failed_with, Unroutable):
                raise failed_with
            await self._publish(request, body)
        except MessageTooLarge as exc:
            _log.warning("reply refused", server=self._server, method=request.method, reason=str(exc))
            await self.send(request, failed(request.msg_id or "", exc))
        except Unroutable:
            self._wait_for_queue(request, body)
        except Fault as exc:
            _log.warning("reply not sent", server=self._server, method=request.method, reason=str(exc))
            self._counts.add(Event.REPLY_LOST, "bus")

    async def beat(self, request: AnyRequest) -> None:
        """A sign of life to the caller of a long call (oslo-wire 5.4). Raises Fault: nobody listens for it."""
        await self._publish(request, encode_reply(Reply(request.msg_id or "", ending=False, unique_id=new_hex())))

    async def close(self) -> None:
        """Give up what still waits."""
        for task in self._waiting:
            task.cancel()
        if self._waiting:
            await asyncio.wait(self._waiting, timeout=SETTLE_TIMEOUT_S)

    async def _publish(self, request: AnyRequest, body: bytes) -> None:
        await self._transport.publish(self._message(request, body), timeout_s=PUBLISH_TIMEOUT_S)
        self._gone.pop(request.reply_q or "", None)

    def _message(self, request: AnyRequest, body: bytes) -> Message:
        assert request.reply_q is not None
        return Message(None, request.reply_q, body, mandatory=self._is_mandatory)

    def _wait_for_queue(self, request: AnyRequest, body: bytes) -> None:
        if request.reply_q in self._gone or len(self._waiting) >= REPLIES_WAITING_MAX:
            self._lost(request)
            return
        task = asyncio.get_running_loop().create_task(self._send_later(request, body), name=f"reply of {self._server}")
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _send_later(self, request: AnyRequest, body: bytes) -> None:
        patience_s = self._retry_s if request.deadline_s is None else min(self._retry_s, request.deadline_s)
        until = self._clock.monotonic() + patience_s
        failures = 0
        while True:
            failures += 1
            await self._clock.sleep(_AGAIN.delay_s(failures))
            try:
                await self._publish(request, body)
            except Fault as exc:
                if self._clock.monotonic() >= until:
                    break
                _log.debug("reply waits for its queue", server=self._server, queue=request.reply_q, reason=str(exc))
            else:
                return
        self._gone[request.reply_q or ""] = None
        if len(self._gone) > _GONE_MAX:
            self._gone.popitem(last=False)
        self._lost(request)

    def _lost(self, request: AnyRequest) -> None:
        _log.info("caller is gone", server=self._server, method=request.method, queue=request.reply_q)
        self._counts.add(Event.REPLY_LOST, "no queue")
