"""A channel with futures: questions and their answers, publishes and their confirms, deliveries and their settlement."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from common.amqp.channel import Channel
from common.amqp.content import Form
from common.amqp.events import ChannelClosed, Confirmed, ConsumerCancelled, Delivered, FlowChanged, Replied, Returned
from common.amqp.states import CHANNEL_OPEN, ChannelState
from common.transport.port import Message

_PERSISTENT, _PRIORITY = 2, 0
_FORMS_MAX = 1000

ANSWERS = frozenset({311, 403, 404, 405, 406, 540})
"""Reply codes that answer a request: content-too-large, access-refused, not-found, resource-locked, precondition-failed,
not-implemented."""


class Lost(Exception):
    """The connection or the channel ended during what was tried; nobody knows whether it was done."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class Refused(Exception):
    """The broker closed the channel because of what was asked. `code` is one of ANSWERS."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class NoRoute(Exception):
    """No queue took the mandatory message."""


class NotTaken(Exception):
    """The broker said basic.nack: no queue has the message."""


class Sender(Protocol):
    """Where the bytes of a channel go."""

    has_room: bool

    def published(self) -> None: ...
    def wake(self) -> None: ...
    def wake_later(self) -> None: ...


class Sent(Protocol):
    """A publish under way."""

    def end(self, error: Exception | None) -> None:
        """It is confirmed, or this is what became of it: NoRoute, NotTaken, Refused, Lost. Called once; must return at once."""
        ...


def _nothing(*_: object) -> None:
    pass


class AmqpChannel:
    """One channel of a `Wire`. `on_ended` is called when it is over."""

    def __init__(self, core: Channel, sender: Sender, *, opened: "asyncio.Future[Replied]") -> None:
        self.core = core
        self.opened = opened
        self.on_delivery: Callable[[Delivered], None] = _nothing
        self.on_cancelled: Callable[[], None] = _nothing
        self.on_ended: Callable[[], None] = _nothing
        self._sender = sender
        self._forms: dict[tuple[str, str, bool, str, str], Form] = {}
        self._ending: asyncio.Future[None] = opened.get_loop().create_future()
        self._reason = Lost("the channel was closed")

    @property
    def has_room(self) -> bool:
        """True when what is published now can leave at once, and its confirm be waited for."""
        core = self.core
        unconfirmed = core.unconfirmed
        return core.state is CHANNEL_OPEN and self._sender.has_room and len(unconfirmed.tokens) < unconfirmed.limit

    @property
    def is_closed(self) -> bool:
        """True when it takes nothing more."""
        state = self.core.state
        return state is not CHANNEL_OPEN and state is not ChannelState.OPENING

    async def ask(self, name: str, **arguments: Any) -> Replied:
        """The answer to a request. Raises Refused with the broker's words, or Lost."""
        if self.is_closed:
            raise self._reason
        answer: asyncio.Future[Replied] = self.opened.get_loop().create_future()
        self.core.request(name, answer, **arguments)
        self._sender.wake()
        return await answer

    def publish(self, message: Message, sent: Sent) -> None:
        """Send it with oslo.messaging's properties: persistent, priority 0, and headers even when there are none.

        `sent` hears of its confirm. Raises Lost when the channel is closed, ValueError for a name too long.
        """
        core, exchange, expiration_ms = self.core, message.exchange, message.expiration_ms
        if core.state is not CHANNEL_OPEN and self.is_closed:
            raise self._reason
        name = "" if exchange is None else exchange.name
        place = name, message.key, message.mandatory, message.content_type, message.content_encoding
        form = self._forms.get(place) or self._new_form(*place)
        core.publish_form(form, message.body, message.headers, expiration_ms=expiration_ms, token=sent)
        self._sender.published()

    def _new_form(self, exchange: str, key: str, mandatory: bool, content_type: str, content_encoding: str) -> Form:
        form = self.core.form(
            exchange, key, mandatory=mandatory, content_type=content_type, content_encoding=content_encoding,
            delivery_mode=_PERSISTENT, priority=_PRIORITY,
        )  # fmt: skip
        if len(self._forms) >= _FORMS_MAX:
            self._forms.clear()
        self._forms[exchange, key, mandatory, content_type, content_encoding] = form
        return form

    def ack(self, tag: int) -> None:
        """It is on its way when the loop turns."""
        self.core.ack(tag)
        self._sender.wake()

    def ack_soon(self, tag: int, prefetch: int) -> None:
        """It is on its way in a moment; with the loop's turn where the broker may hold messages back for want of it."""
        unsettled = self.core.unsettled
        self.core.ack(tag)
        if unsettled.held * 2 < prefetch:
            self._sender.wake_later()
        else:
            self._sender.wake()

    def reject(self, tag: int, *, requeue: bool) -> None:
        """Likewise."""
        self.core.reject(tag, requeue=requeue)
        self._sender.wake()

    def close_soon(self) -> "asyncio.Future[None]":
        """Begin to end it; the future is done when it has ended."""
        if not self.is_closed:
            self.core.close()
            self._sender.wake()
        return self._ending

    # -- events -------------------------------------------------------------------------------------------------------

    def confirmed(self, event: Confirmed) -> None:
        error = None if event.is_ack else NotTaken("basic.nack")
        for sent in event.tokens:
            sent.end(error)

    def take(self, event: Replied | Returned | ConsumerCancelled | FlowChanged) -> None:
        match event:
            case Replied():
                if not event.token.done():
                    event.token.set_result(event)
            case Returned():
                if event.token is not None:
                    event.token.end(NoRoute(event.reply_text))
            case ConsumerCancelled():
                self.on_cancelled()
            case FlowChanged():  # RabbitMQ of today has basic.qos and connection.blocked instead
                pass

    def ended(self, event: ChannelClosed) -> None:
        """It is over: whoever waits hears so. What the broker closed it for was asked by the oldest request, or is a publish."""
        lost = self._reason = Lost(event.reply_text or "the channel was closed", event.reply_code)
        is_answer = event.is_by_peer and event.reply_code in ANSWERS
        for number, answer in enumerate(event.requests):
            if not answer.done():
                is_meant = is_answer and number == 0 and event.method != "basic.publish"
                answer.set_exception(Refused(event.reply_code, event.reply_text) if is_meant else lost)
                answer.exception()  # nobody need be waiting any more
        is_meant = is_answer and event.method in {"basic.publish", ""}
        for sent in event.unconfirmed:
            sent.end(Refused(event.reply_code, event.reply_text) if is_meant else lost)
        if not self._ending.done():
            self._ending.set_result(None)
        self.on_ended()
