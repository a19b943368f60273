"""One channel: what was asked on it, what is open on it, and the message that is just coming in."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from common.amqp.content import (
    NO_PROPERTIES,
    Content,
    Form,
    Properties,
    encode_properties,
    header_size,
    publish_frames,
    publish_method,
    read_properties,
)
from common.amqp.errors import CHANNEL_ERROR, COMMAND_INVALID, FRAME_ERROR, UNEXPECTED_FRAME, ProtocolError
from common.amqp.events import (
    ChannelClosed,
    Confirmed,
    ConsumerCancelled,
    Delivered,
    Event,
    FlowChanged,
    Replied,
    Returned,
)
from common.amqp.limits import Limits
from common.amqp.methods import Method, decode_method, encode_method, name_of
from common.amqp.spec import BODY_FRAME, BY_NAME, HEADER_FRAME, METHOD_FRAME
from common.amqp.states import CHANNEL, CHANNEL_OPEN, ChannelState
from common.amqp.tables import Unconfirmed, Unsettled

REPLY_SUCCESS = 200


_ID_BASE = 16
_MESSAGE_ID = b"%x"
"""Of a mandatory publish, by its number."""


class Busy(Exception):
    """There is no room for one more of what the limits bound; wait for answers first."""


class _Incoming:
    """A message of which the body, or even the header, is still to come."""

    __slots__ = ("header", "kept", "method", "pieces", "received", "size")

    def __init__(self, method: Method) -> None:
        self.method = method
        self.header: bytes | None = None
        self.size = self.received = self.kept = 0
        self.pieces: list[bytes] = []


class Channel:
    """Commands put bytes into the connection; `received` makes events of what comes. Made by `Connection.open_channel`."""

    def __init__(self, number: int, *, send: Callable[[bytes], None], limits: Limits, frame_bytes: int) -> None:
        self.number = number
        self.state = ChannelState.OPENING
        self.is_confirming = False
        self.may_publish = True
        """False while the broker asks for a pause by channel.flow."""
        self.unconfirmed = Unconfirmed(limits.unconfirmed)
        self.unsettled = Unsettled(number, limits.unsettled)
        self._send = send
        self._limits = limits
        self._frame_bytes = frame_bytes
        self._requests: deque[tuple[tuple[str, ...], Any, bool]] = deque()
        self._unacked_consumers: set[str] = set()
        self.incoming: _Incoming | None = None
        """A message of which the rest is still to come."""

    # -- commands -----------------------------------------------------------------------------------------------------

    def request(self, name: str, token: Any = None, **arguments: Any) -> None:
        """Ask for something that is answered: `Replied` with this token, or `ChannelClosed`. Answers come in order.

        Raises Busy at the limit of requests, ValueError for what is no request, or not one of these arguments.
        """
        spec = BY_NAME[name]
        if not spec.replies or arguments.get("nowait"):
            raise ValueError(f"{name} is not answered")
        self._check_open()
        if len(self._requests) >= self._limits.requests:
            raise Busy(f"{len(self._requests)} requests without an answer")
        self._send(encode_method(self.number, name, arguments))
        is_unacked = name in {"basic.consume", "basic.get"} and bool(arguments.get("no_ack"))
        self._requests.append((spec.replies, token, is_unacked))
        if name == "confirm.select":
            self.is_confirming = True  # the broker counts from here on, whenever its answer comes

    def tell(self, name: str, **arguments: Any) -> None:
        """Send a method that is not answered; messages and settlements have their own commands."""
        if BY_NAME[name].content or (BY_NAME[name].replies and not arguments.get("nowait")):
            raise ValueError(f"{name} is answered, or carries a message")
        self._check_open()
        self._send(encode_method(self.number, name, arguments))

    def publish(
        self, body: bytes, *, exchange: str, routing_key: str, properties: Properties = NO_PROPERTIES, mandatory: bool = False,
        token: Any = None,
    ) -> int:  # fmt: skip
        """Send a message; on a confirming channel `Confirmed` or `Returned` follow with this token.

        A mandatory message is given a message_id, by which the broker's return is known to be its.
        Returns the number of the publish; 0 without confirms. Raises Busy at the limit of what is unconfirmed, ValueError for
        names and properties that AMQP cannot carry.
        """
        number = self._next_number()
        if number and mandatory:
            if properties.message_id is not None:
                raise ValueError("the message_id of a mandatory message belongs to the channel")
            properties = replace(properties, message_id=(_MESSAGE_ID % number).decode())
        method, encoded = publish_method(self.number, exchange, routing_key, mandatory), encode_properties(properties)
        self._send(publish_frames(self.number, method=method, properties=encoded, body=body, frame_bytes=self._frame_bytes))
        if number:
            self.unconfirmed.add(token)
        return number

    def publish_form(
        self, form: Form, body: bytes, headers: Mapping[str, Any], *, expiration_ms: int | None = None, token: Any = None
    ) -> int:
        """`publish` of a message of one of our forms."""
        number = self._next_number()
        message_id = _MESSAGE_ID % number if number and form.mandatory else b""
        expiration = b"" if expiration_ms is None else b"%d" % expiration_ms
        self._send(form.frames(body, headers, expiration=expiration, message_id=message_id, frame_bytes=self._frame_bytes))
        if number:
            self.unconfirmed.add(token)
        return number

    def form(
        self, exchange: str, routing_key: str, *, mandatory: bool, content_type: str, content_encoding: str, delivery_mode: int,
        priority: int,
    ) -> Form:  # fmt: skip
        """For `publish_form` on this channel. Raises ValueError for names that are too long."""
        return Form(
            self.number, exchange, routing_key, mandatory=mandatory, content_type=content_type,
            content_encoding=content_encoding, delivery_mode=delivery_mode, priority=priority,
        )  # fmt: skip

    def _next_number(self) -> int:
        """Of the publish that is about to leave; 0 without confirms."""
        if self.state is not CHANNEL_OPEN:
            self._check_open()
        if not self.is_confirming:
            return 0
        unconfirmed = self.unconfirmed
        if len(unconfirmed.tokens) >= unconfirmed.limit:
            raise Busy(f"{len(unconfirmed)} publishes without a confirm")
        return unconfirmed.last + 1

    def ack(self, tag: int) -> None:
        """Leaves with the connection's next bytes, together with others. Raises ValueError for what is not unsettled."""
        if self.state is not CHANNEL_OPEN:
            self._check_open()
        self.unsettled.ack(tag)

    def reject(self, tag: int, *, requeue: bool) -> None:
        """Give one back, or drop it."""
        self._check_open()
        self._send(self.unsettled.reject(tag, requeue=requeue))

    def reject_up_to(self, tag: int, *, requeue: bool) -> None:
        """Give back, or drop, all up to this one (basic.nack)."""
        self._check_open()
        self._send(self.unsettled.reject_up_to(tag, requeue=requeue))

    def close(self, reply_code: int = REPLY_SUCCESS, reply_text: str = "") -> None:
        """End it; `ChannelClosed` follows. A second call does nothing."""
        if self.state in {ChannelState.CLOSING, ChannelState.CLOSED}:
            return
        self.flush()
        self.state = ChannelState.CLOSING
        self.incoming = None
        self._send(encode_method(self.number, "channel.close", {"reply_code": reply_code, "reply_text": reply_text}))

    def give_up(self) -> None:
        """The connection is about to be closed: acks leave, and nothing more is taken."""
        self.flush()
        self.state = ChannelState.CLOSING
        self.incoming = None

    def flush(self) -> None:
        """Send the acks that were collected."""
        if frames := self.unsettled.frames():
            self._send(frames)

    def _check_open(self) -> None:
        if self.state is not CHANNEL_OPEN and self.state is not ChannelState.OPENING:
            raise ValueError(f"channel {self.number} is {self.state}")

    # -- what comes ---------------------------------------------------------------------------------------------------

    def received(self, kind: int, payload: bytes) -> Event | None:
        """What a frame means. Raises ProtocolError."""
        if kind == METHOD_FRAME:
            if self.incoming is not None:
                raise ProtocolError(UNEXPECTED_FRAME, "a method in the middle of a message")
            spec, method = decode_method(payload)
            if self.state is ChannelState.CLOSING and method.name not in CHANNEL[self.state]:
                return None
            if method.name not in CHANNEL[self.state]:
                raise ProtocolError(COMMAND_INVALID, f"{method.name} on a channel that is {self.state}")
            if spec.content:
                self._check_wanted(method)
                self.incoming = _Incoming(method)
                return None
            return self._method(method)
        if self.state is ChannelState.CLOSING:
            return None
        if kind == HEADER_FRAME:
            return self._header(payload)
        if kind == BODY_FRAME:
            return self._body(payload)
        raise ProtocolError(FRAME_ERROR, f"a frame of the unknown type {kind}")

    def delivered(self, consumer_tag: str, delivery_tag: int, *, redelivered: bool, content: Content) -> Delivered:
        """One message for a consumer, whole. Raises ProtocolError."""
        if consumer_tag not in self._unacked_consumers:
            self.unsettled.delivered(delivery_tag)
        return Delivered(self.number, consumer_tag, delivery_tag, redelivered, content)

    def confirmed(self, tag: int, *, multiple: bool, is_ack: bool = True) -> Confirmed | None:
        """The broker has one publish, or all up to it; with `is_ack` false it has them not. Raises ProtocolError."""
        if not self.is_confirming:
            raise ProtocolError(COMMAND_INVALID, f"basic.{'ack' if is_ack else 'nack'} on a channel without confirms")
        tokens = self.unconfirmed.settle(tag, multiple=multiple)
        return Confirmed(self.number, tokens, is_ack) if tokens else None

    def end(self, reply_code: int, reply_text: str, *, is_by_peer: bool, method: str = "") -> ChannelClosed:
        """It is over, whatever ended it."""
        self.state = ChannelState.CLOSED
        self.incoming = None
        requests = tuple(token for _, token, _ in self._requests)
        self._requests.clear()
        return ChannelClosed(self.number, reply_code, reply_text, is_by_peer, method, requests, self.unconfirmed.drain())

    def _header(self, payload: bytes) -> Event | None:
        incoming = self.incoming
        if incoming is None or incoming.header is not None:
            raise ProtocolError(UNEXPECTED_FRAME, "a content header without its method")
        incoming.size = header_size(payload)
        incoming.header = payload
        return self._whole(incoming) if not incoming.size else None

    def _body(self, payload: bytes) -> Event | None:
        incoming = self.incoming
        if incoming is None or incoming.header is None:
            raise ProtocolError(UNEXPECTED_FRAME, "a body without its header")
        incoming.received += len(payload)
        if incoming.received > incoming.size:
            raise ProtocolError(UNEXPECTED_FRAME, f"a body of more than the {incoming.size} bytes that were announced")
        if (room := self._limits.body_bytes - incoming.kept) > 0 and payload:
            piece = payload[:room]
            incoming.pieces.append(piece)
            incoming.kept += len(piece)
        return self._whole(incoming) if incoming.received == incoming.size else None

    def _whole(self, incoming: _Incoming) -> Event:
        self.incoming = None
        assert incoming.header is not None
        arguments = incoming.method.arguments
        properties, unreadable = read_properties(incoming.header)
        content = Content(
            arguments["exchange"], arguments["routing_key"], properties, b"".join(incoming.pieces), incoming.size, unreadable
        )
        match incoming.method.name:
            case "basic.deliver":
                return self.delivered(
                    arguments["consumer_tag"], arguments["delivery_tag"], redelivered=arguments["redelivered"], content=content
                )
            case "basic.return":
                token = self._returned(content)
                return Returned(self.number, token, arguments["reply_code"], arguments["reply_text"], content)
            case _:
                _, token, is_unacked = self._requests.popleft()
                if not is_unacked:
                    self.unsettled.delivered(arguments["delivery_tag"])
                return Replied(self.number, token, incoming.method, content)

    def _returned(self, content: Content) -> Any:
        """The token of the publish that comes back; None for one that is not known, as on a channel without confirms."""
        try:
            number = int(content.properties.message_id or "", _ID_BASE)
        except ValueError:
            return None
        return self.unconfirmed.take(number)

    def _method(self, method: Method) -> Event | None:
        match method.name:
            case "basic.ack" | "basic.nack":
                return self.confirmed(method["delivery_tag"], multiple=method["multiple"], is_ack=method.name == "basic.ack")
            case "basic.cancel":
                self._unacked_consumers.discard(method["consumer_tag"])
                if not method["nowait"]:
                    self._send(encode_method(self.number, "basic.cancel-ok", {"consumer_tag": method["consumer_tag"]}))
                return ConsumerCancelled(self.number, method["consumer_tag"])
            case "channel.flow":
                self.may_publish = method["active"]
                self._send(encode_method(self.number, "channel.flow-ok", {"active": method["active"]}))
                return FlowChanged(self.number, method["active"])
            case "channel.close":
                return self._closed_by_peer(method)
            case "channel.close-ok":
                return self.end(REPLY_SUCCESS, "", is_by_peer=False)
            case _:
                return self._reply(method)

    def _closed_by_peer(self, method: Method) -> ChannelClosed | None:
        self._send(encode_method(self.number, "channel.close-ok", {}))
        if self.state is ChannelState.CLOSING:
            return None  # both at once: its answer to our close is still to come
        return self.end(method["reply_code"], method["reply_text"], is_by_peer=True, method=name_of(method))

    def _reply(self, method: Method) -> Replied:
        self._check_wanted(method)
        _, token, is_unacked = self._requests.popleft()
        if method.name == "channel.open-ok":
            self.state = CHANNEL_OPEN
        elif method.name == "basic.consume-ok" and is_unacked:
            self._unacked_consumers.add(method["consumer_tag"])
        elif method.name == "basic.cancel-ok":
            self._unacked_consumers.discard(method["consumer_tag"])
        return Replied(self.number, token, method)

    def _check_wanted(self, method: Method) -> None:
        if method.name in {"basic.deliver", "basic.return"}:
            return
        if not self._requests or method.name not in self._requests[0][0]:
            wanted = " or ".join(self._requests[0][0]) if self._requests else "nothing"
            raise ProtocolError(CHANNEL_ERROR, f"{method.name} on channel {self.number}, where {wanted} was due")

    def opening(self, token: Any) -> None:
        """Send channel.open."""
        self.request("channel.open", token)
