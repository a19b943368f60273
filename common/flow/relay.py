"""The relay: publishes a process's outbox, each address in order, until the bus has confirmed every letter."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.base.clock import Clock
from common.base.errors import Fault, Invalid
from common.base.failpoints import OFF, Failpoints
from common.base.limits import LETTER_ATTEMPTS, PUBLISH_TIMEOUT_S
from common.base.retry import Retry
from common.db.fence import fenced
from common.db.outbox import Letter, Outbox
from common.host.lean import structlog
from common.transport.port import Exchange, Message, Transport

PUBLISHING = "outbox.publishing"
"""A letter is to be published."""
PUBLISHED = "outbox.published"
"""The bus has confirmed it, its row is still there."""
SENT = "outbox.sent"
"""The row is gone."""

_AGAIN = Retry(first_delay_s=0.2, factor=2.0, delay_s_max=10.0)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Blocked:
    """An address that did not take its first letter."""

    failures: int
    until: float


class Relay:
    """`run` never ends. A database or bus that is away is waited for."""

    def __init__(self, outbox: Outbox, transport: Transport, *, clock: Clock, failpoints: Failpoints = OFF) -> None:
        self._outbox = outbox
        self._transport = transport
        self._clock = clock
        self._failpoints = failpoints
        self._poked = asyncio.Event()
        self._blocked: dict[str, _Blocked] = {}
        self._given_up: set[int] = set()

    def poke(self) -> None:
        """There may be something to send."""
        self._poked.set()

    async def run(self) -> None:
        """Send what there is, then wait to be poked, or for the time at which something is tried again."""
        failures = 0
        with fenced(None):
            while True:
                self._poked.clear()
                try:
                    await self.send_all()
                except Fault as exc:
                    failures += 1
                    if failures == 1:
                        _log.warning("outbox not read", reason=str(exc))
                    await self._wait_until(self._clock.monotonic() + _AGAIN.delay_s(failures))
                else:
                    failures = 0
                    await self._wait_until(min((blocked.until for blocked in self._blocked.values()), default=None))

    async def send_all(self) -> int:
        """Publish every letter whose address is not blocked; how many were sent. Raises what the database does."""
        sent, after = 0, 0
        seen: set[str] = set()
        held_up: set[str] = set()
        before = frozenset(self._given_up)
        given_up: set[int] = set()
        while letters := await self._outbox.pending(after):
            after = letters[-1].id
            given_up.update(letter.id for letter in letters if letter.id in self._given_up)
            letters = [letter for letter in letters if letter.id not in self._given_up]
            seen.update(letter.address for letter in letters)
            sent += await self._send(letters, held_up)
        # Another process may have taken letters over: nothing is left to wait for.
        self._blocked = {address: blocked for address, blocked in self._blocked.items() if address in seen}
        self._given_up -= before - given_up
        return sent

    async def _send(self, letters: Sequence[Letter], held_up: set[str]) -> int:
        """`held_up` are addresses of which a letter was passed over: what comes behind it waits too, whatever the time is then."""
        lines: dict[str, list[Letter]] = {}
        for letter in letters:
            lines.setdefault(letter.address, []).append(letter)
        async with asyncio.TaskGroup() as group:
            free = [(address, line) for address, line in lines.items() if address not in held_up]
            tasks = [group.create_task(self._send_line(address, line, held_up)) for address, line in free]
        return sum(len(task.result()) for task in tasks)

    async def _send_line(self, address: str, line: Sequence[Letter], held_up: set[str]) -> list[int]:
        """Ids of those that the bus has taken. The first that it does not take holds up the rest of its line, and no other line."""
        sent: list[int] = []
        blocked = self._blocked.get(address)
        if blocked is not None and blocked.until > self._clock.monotonic():
            held_up.add(address)
            return sent
        for letter in line:
            try:
                await self._publish(letter)
            except Fault as exc:
                await self._note_failure(letter, exc)
                if self._is_given_up(letter, exc):
                    continue
                held_up.add(address)
                break
            self._blocked.pop(address, None)
            sent.append(letter.id)
        if sent:
            await self._forget(address, sent)
        return sent

    async def _forget(self, address: str, sent: Sequence[int]) -> None:
        """Rows that stay, since the database is away, are sent once more, a little later."""
        try:
            await self._outbox.sent(sent)
        except Fault as exc:
            _log.warning("letters sent but not noted", address=address, reason=str(exc))
            self._blocked[address] = _Blocked(1, self._clock.monotonic() + _AGAIN.delay_s(1))
            return
        if self._failpoints.is_on:
            await self._failpoints.reach(SENT)

    async def _publish(self, letter: Letter) -> None:
        if self._failpoints.is_on:
            await self._failpoints.reach(PUBLISHING)
        await self._transport.publish(message_of(letter), timeout_s=PUBLISH_TIMEOUT_S)
        if self._failpoints.is_on:
            await self._failpoints.reach(PUBLISHED)

    async def _note_failure(self, letter: Letter, fault: Fault) -> None:
        blocked = self._blocked.setdefault(letter.address, _Blocked(0, 0.0))
        blocked.failures += 1
        blocked.until = self._clock.monotonic() + _AGAIN.delay_s(blocked.failures)
        if blocked.failures == 1:
            _log.warning("letter not sent", address=letter.address, reason=str(fault))
        try:
            await self._outbox.failed(letter.id, str(fault))
        except Fault as exc:
            _log.debug("failure not noted", reason=str(exc))

    def _is_given_up(self, letter: Letter, fault: Fault) -> bool:
        """What is wrong with a letter itself no waiting mends: then those behind it pass. Its row stays, and is tried by the next process."""
        failures = max(letter.attempts + 1, self._blocked[letter.address].failures)
        if not isinstance(fault, Invalid) or fault.retryable or failures < LETTER_ATTEMPTS:
            return False
        self._given_up.add(letter.id)
        del self._blocked[letter.address]
        _log.error("letter given up", address=letter.address, letter=letter.id, request_id=letter.request_id, reason=str(fault))
        return True

    async def _wait_until(self, due: float | None) -> None:
        """Until poked, or that time by the clock."""
        async with asyncio.TaskGroup() as group:
            alarm = None if due is None else group.create_task(self._poke_at(due))
            await self._poked.wait()
            if alarm is not None:
                alarm.cancel()

    async def _poke_at(self, due: float) -> None:
        await self._clock.sleep(due - self._clock.monotonic())
        self.poke()


def letter_of(message: Message, *, request_id: str | None = None) -> Letter:
    """A message as the outbox keeps it; its body must be text."""
    exchange = message.exchange
    declared = None
    if exchange is not None:
        declared = {"name": exchange.name, "kind": exchange.kind, "durable": exchange.durable, "auto_delete": exchange.auto_delete}
    return Letter(
        exchange=declared,
        routing_key=message.key,
        body=message.body.decode(),
        headers={**message.headers},
        request_id=request_id,
    )


def message_of(letter: Letter) -> Message:
    """The message that a letter was."""
    declared: Mapping[str, Any] | None = letter.exchange
    exchange = None if declared is None else Exchange(**declared)
    return Message(exchange, letter.routing_key, letter.body.encode(), mandatory=True, headers=letter.headers)
