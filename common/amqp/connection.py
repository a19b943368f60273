"""One connection: from the protocol's header to connection.close, and its channels in between."""

import heapq
import struct
from collections.abc import Callable, Mapping
from typing import Any

from common.amqp import fields
from common.amqp.channel import REPLY_SUCCESS, Busy, Channel
from common.amqp.content import Content, read_properties
from common.amqp.errors import (
    CHANNEL_ERROR,
    COMMAND_INVALID,
    FRAME_ERROR,
    SYNTAX_ERROR,
    UNEXPECTED_FRAME,
    ProtocolError,
)
from common.amqp.events import Blocked, ChannelClosed, ConnectionClosed, Event, Opened, Replied, Unblocked
from common.amqp.frames import FrameReader
from common.amqp.limits import FRAME_MIN_SIZE, Limits
from common.amqp.login import Login
from common.amqp.methods import FRAME, Method, decode_method, encode_method, name_of
from common.amqp.spec import (
    BODY_FRAME,
    BY_NAME,
    CLASS_BASIC,
    FRAME_END,
    FRAME_OVERHEAD,
    HEADER_FRAME,
    HEARTBEAT_FRAME,
    METHOD_FRAME,
    PROTOCOL_HEADER,
)
from common.amqp.states import CHANNEL_OPEN, ConnectionState, after

ACCESS_REFUSED, CONNECTION_FORCED = 403, 320
_HEARTBEAT = FRAME.pack(HEARTBEAT_FRAME, 0, 0) + bytes((FRAME_END,))
_DELIVER, _ACK = BY_NAME["basic.deliver"].key, BY_NAME["basic.ack"].key
_FREQUENT = frozenset((_DELIVER, _ACK))
_ACK_FRAME = 21
_METHOD_HEAD = struct.Struct(">BHII")
"""The head of a frame with a method, and which one it is."""
_TAG_AND_BIT = struct.Struct(">QB")
_HEAD = FRAME.size
_HEADER_FRAME_HEAD = struct.Struct(">BHIHHQ")
"""Of a content header: the frame's head, then class, weight and size of the body."""
_SHORTEST_HEADER = 14
_SHORTEST_HEADER_FRAME = _SHORTEST_HEADER + FRAME_OVERHEAD
_CAPABILITIES = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}
"""What a broker may do with us (https://www.rabbitmq.com/docs/consumer-cancel, .../connection-blocked, .../auth-notification)."""


class Connection:
    """A client's connection. It begins with bytes to send: the protocol's header.

    heartbeat_s   what we wish for; the broker may want it shorter. 0: never
    properties    of the client, for the broker's lists: `connection_name`, `product`
    now_s         of any clock that does not go back; all of its times are of the same
    """

    def __init__(
        self, login: Login, *, virtual_host: str, now_s: float, heartbeat_s: int = 60, limits: Limits = Limits(),  # noqa: B008 - frozen
        properties: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        if limits.frame_bytes < FRAME_MIN_SIZE:
            raise ValueError(f"frames of {limits.frame_bytes} bytes; AMQP wants at least {FRAME_MIN_SIZE}")
        self.state = ConnectionState.START
        self.limits = limits
        self.heartbeat_s = heartbeat_s
        """As both agreed, once it is open."""
        self.is_blocked = False
        self.channels: dict[int, Channel] = {}
        self._login = login
        self._virtual_host = virtual_host
        self._properties = dict(properties or {})
        self._server_properties: dict[str, Any] = {}
        self._reader = FrameReader(limits.frame_bytes)
        self._frame_bytes = limits.frame_bytes
        self._channels_max = limits.channels
        self._free: list[int] = []
        self._highest = 0
        self._secrets: list[Any] = []
        self._out: list[bytes] = [PROTOCOL_HEADER]
        self.pending_bytes = len(PROTOCOL_HEADER)
        """Bytes that wait for `data_to_send`; acks that it adds are not among them."""
        self._sent_s = self._heard_s = now_s

    # -- commands -----------------------------------------------------------------------------------------------------

    def data_to_send(self, now_s: float) -> bytes:
        """Everything since the last time, in one piece."""
        for channel in self.channels.values():
            channel.flush()
        if not self._out:
            return b""
        self._sent_s = now_s
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self.pending_bytes = 0
        return data

    def open_channel(self, token: Any = None) -> Channel:
        """A channel that may be used at once; `Replied` says that it is open. Raises Busy when there are too many."""
        if self.state is not ConnectionState.OPEN:
            raise ValueError(f"the connection is {self.state}")
        if self._free:
            number = heapq.heappop(self._free)
        elif self._highest < self._channels_max:
            number = self._highest = self._highest + 1
        else:
            raise Busy(f"{len(self.channels)} channels are open, the most that were agreed")
        channel = Channel(number, send=self._send, limits=self.limits, frame_bytes=self._frame_bytes)
        self.channels[number] = channel
        channel.opening(token)
        return channel

    def update_secret(self, secret: bytes, reason: str, token: Any = None) -> None:
        """Give the broker a fresh token of an authorization server; `Replied` follows (RabbitMQ's extension)."""
        if self.state is not ConnectionState.OPEN:
            raise ValueError(f"the connection is {self.state}")
        self._send(encode_method(0, "connection.update-secret", {"new_secret": secret, "reason": reason}))
        self._secrets.append(token)

    def close(self, reply_code: int = REPLY_SUCCESS, reply_text: str = "") -> None:
        """End it in good order: `ConnectionClosed` follows when the broker has answered. A second call does nothing."""
        if self.state in {ConnectionState.CLOSING, ConnectionState.CLOSED}:
            return
        for channel in self.channels.values():
            channel.give_up()
        is_open = self.state is ConnectionState.OPEN
        self.state = ConnectionState.CLOSING if is_open else ConnectionState.CLOSED
        if is_open:
            self._send(encode_method(0, "connection.close", {"reply_code": reply_code, "reply_text": reply_text}))

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def next_tick_s(self) -> float | None:
        """When `tick` has something to do, at the latest; None: never."""
        if not self.heartbeat_s or self.state not in {ConnectionState.OPEN, ConnectionState.CLOSING}:
            return None
        return min(self._sent_s + self.heartbeat_s / 2, self._heard_s + 2 * self.heartbeat_s)

    def tick(self, now_s: float) -> list[Event]:
        """Send a heartbeat when nothing else was sent for half of the interval; give up a peer that was silent for two (4.2.7)."""
        if self.next_tick_s is None:
            return []
        if now_s - self._heard_s >= 2 * self.heartbeat_s:
            silent_s = now_s - self._heard_s
            return self._over(CONNECTION_FORCED, f"the peer was silent for {silent_s:.1f} s", is_by_peer=False)
        if now_s - self._sent_s >= self.heartbeat_s / 2:
            self._send(_HEARTBEAT)
        return []

    # -- what comes ---------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now_s: float) -> list[Event]:
        """What these bytes mean. An error in them is the event `ConnectionClosed`; what comes after it is dropped."""
        events: list[Event] = []
        if self.state is ConnectionState.CLOSED:
            return events
        if data:
            self._heard_s = now_s
        try:
            if (buffer := self._reader.buffer(data)) is not None:
                at = self._receive(buffer, events)
                if not self._is_closed:
                    self._reader.keep(buffer, at)
        except ProtocolError as exc:
            self._out.clear()
            self._send(encode_method(0, "connection.close", {"reply_code": exc.code, "reply_text": exc.text[:200]}))
            events += self._over(exc.code, exc.text, is_by_peer=False)
        return events

    def receive_eof(self) -> list[Event]:
        """The peer ended the stream of bytes without a connection.close."""
        if self.state is ConnectionState.CLOSED:
            return []
        return self._over(CONNECTION_FORCED, "the peer ended the connection without a word", is_by_peer=True)

    @property
    def _is_closed(self) -> bool:
        return self.state is ConnectionState.CLOSED

    def _receive(self, buffer: bytes, events: list[Event]) -> int:
        """Read whole frames; the place where the first one begins that is not whole. Raises ProtocolError."""
        at, total, channels, end_of_frame, append = 0, len(buffer), self.channels, self._reader.end_of_frame, events.append
        while True:
            if total - at >= _METHOD_HEAD.size:
                kind, number, size, key = _METHOD_HEAD.unpack_from(buffer, at)
                if (
                    kind == METHOD_FRAME
                    and key in _FREQUENT  # nearly all bytes are these two
                    and (channel := channels.get(number)) is not None
                    and channel.state is CHANNEL_OPEN
                    and channel.incoming is None
                ):
                    end = at + FRAME_OVERHEAD + size
                    if next_at := (self._delivery if key == _DELIVER else self._confirm)(buffer, at, end, channel, append):
                        at = next_at
                        continue
            if not (end := end_of_frame(buffer, at)):
                return at
            self._frame(buffer, at, end, events)
            at = end
            if self._is_closed:
                return at

    def _frame(self, buffer: bytes, at: int, end: int, events: list[Event]) -> None:
        """Any frame. Raises ProtocolError."""
        kind, number, _ = FRAME.unpack_from(buffer, at)
        payload = buffer[at + _HEAD : end - 1]
        channel = self.channels.get(number)
        if channel is not None:
            event = channel.received(kind, payload)
            if event is not None:
                events.append(event)
                if isinstance(event, ChannelClosed):
                    self._forget(number)
        elif number == 0:
            events += self._on_zero(kind, payload)
        else:
            self._unknown(kind, number)

    def _confirm(self, buffer: bytes, at: int, end: int, channel: Channel, append: Callable[[Event], None]) -> int:
        """As `_delivery`, for a basic.ack."""
        if end - at != _ACK_FRAME or len(buffer) < end or buffer[end - 1] != FRAME_END:
            return 0
        tag, is_multiple = _TAG_AND_BIT.unpack_from(buffer, at + _METHOD_HEAD.size)
        if (event := channel.confirmed(tag, multiple=is_multiple & 1 == 1)) is not None:
            append(event)
        return end

    def _delivery(self, buffer: bytes, at: int, end: int, channel: Channel, append: Callable[[Event], None]) -> int:
        """Read a basic.deliver that ends at `end`, with its header and its only body frame.

        The place behind it; 0 when it is something else, or not all there yet: then it is read frame by frame. Raises ProtocolError.
        """
        total, size, most = len(buffer), end - at - FRAME_OVERHEAD, self._frame_bytes - FRAME_OVERHEAD
        if total - end < _SHORTEST_HEADER_FRAME or size > most or buffer[end - 1] != FRAME_END:
            return 0
        kind, number, length, class_id, _, body_size = _HEADER_FRAME_HEAD.unpack_from(buffer, end)
        after_header: int = end + FRAME_OVERHEAD + length
        if kind != HEADER_FRAME or number != channel.number or class_id != CLASS_BASIC or length < _SHORTEST_HEADER:
            return 0  # an error, or a frame of another channel in between
        after_body: int = after_header + FRAME_OVERHEAD + body_size if body_size else after_header
        if after_body > total or body_size > self.limits.body_bytes or length > most or body_size > most:
            return 0
        body = b""
        if body_size:
            kind, number, found = FRAME.unpack_from(buffer, after_header)
            if kind != BODY_FRAME or number != channel.number or found != body_size or buffer[after_body - 1] != FRAME_END:
                return 0
            body = buffer[after_header + _HEAD : after_body - 1]
        if buffer[after_header - 1] != FRAME_END:
            return 0
        try:
            place = at + _METHOD_HEAD.size
            stop = place + 1 + buffer[place]
            consumer_tag = buffer[place + 1 : stop].decode("utf-8", "replace")
            delivery_tag, bits = _TAG_AND_BIT.unpack_from(buffer, stop)
            stop += _TAG_AND_BIT.size
            exchange, key, stop = fields.decode_two_short(buffer, stop)
        except (struct.error, IndexError):
            raise ProtocolError(SYNTAX_ERROR, "basic.deliver that ends too early") from None
        if stop != end - 1:
            raise ProtocolError(SYNTAX_ERROR, "basic.deliver of another length than its frame")
        properties, unreadable = read_properties(buffer[end + _HEAD : after_header - 1])
        content = Content(exchange, key, properties, body, body_size, unreadable)
        append(channel.delivered(consumer_tag, delivery_tag, redelivered=bits & 1 == 1, content=content))
        return after_body

    def _unknown(self, kind: int, number: int) -> None:
        if self.state is not ConnectionState.CLOSING:
            raise ProtocolError(CHANNEL_ERROR, f"a frame of type {kind} on channel {number}, which is not open")

    def _on_zero(self, kind: int, payload: bytes) -> list[Event]:
        if kind == HEARTBEAT_FRAME:
            return []
        if kind != METHOD_FRAME:
            if self.state is ConnectionState.CLOSING:
                return []
            raise ProtocolError(UNEXPECTED_FRAME, f"a frame of type {kind} on channel 0")
        _, method = decode_method(payload)
        state = after(self.state, method.name)
        if state is None:
            if self.state is ConnectionState.CLOSING:
                return []
            if method.name == "connection.secure":
                raise ProtocolError(COMMAND_INVALID, "the broker's login asks for a second answer, which no mechanism of ours has")
            raise ProtocolError(COMMAND_INVALID, f"{method.name} while the connection waits for {self.state}")
        return self._advance(method, state)

    def _advance(self, method: Method, state: ConnectionState) -> list[Event]:
        was, self.state = self.state, state
        match method.name:
            case "connection.start":
                return self._start(method)
            case "connection.tune":
                return self._tune(method)
            case "connection.close":
                return self._closed_by_peer(method, was)
            case "connection.close-ok":
                return self._over(REPLY_SUCCESS, "", is_by_peer=False)
            case _:
                return [self._told(method)]

    def _told(self, method: Method) -> Event:
        match method.name:
            case "connection.open-ok":
                return Opened(self._server_properties, self.heartbeat_s)
            case "connection.blocked":
                self.is_blocked = True
                return Blocked(method["reason"])
            case "connection.unblocked":
                self.is_blocked = False
                return Unblocked()
            case _:  # connection.update-secret-ok
                if not self._secrets:
                    raise ProtocolError(COMMAND_INVALID, "connection.update-secret-ok without a new secret")
                return Replied(0, self._secrets.pop(0), method)

    def _closed_by_peer(self, method: Method, was: ConnectionState) -> list[Event]:
        self._out.clear()  # nobody reads it any more
        self._send(encode_method(0, "connection.close-ok", {}))
        if was is ConnectionState.CLOSING:
            return self._over(REPLY_SUCCESS, "", is_by_peer=False)
        return self._over(method["reply_code"], method["reply_text"], is_by_peer=True, method=name_of(method))

    def _start(self, method: Method) -> list[Event]:
        if (method["version_major"], method["version_minor"]) != (0, 9):
            raise ProtocolError(COMMAND_INVALID, f"AMQP {method['version_major']}.{method['version_minor']}; wanted: 0.9")
        self._server_properties = method["server_properties"]
        mechanism = self._login.chosen(method["mechanisms"])
        if mechanism is None:
            offered = method["mechanisms"].decode("ascii", "replace")[:200]
            return self._over(ACCESS_REFUSED, f"it logs in by {offered}, not by {self._login.mechanism}", is_by_peer=False)
        answer = {
            "client_properties": {**self._properties, "capabilities": _CAPABILITIES},
            "mechanism": mechanism,
            "response": self._login.response(mechanism),
            "locale": "en_US",
        }
        self._send(encode_method(0, "connection.start-ok", answer))
        return []

    def _tune(self, method: Method) -> list[Event]:
        theirs, ours = method["frame_max"], self.limits.frame_bytes
        if theirs and theirs < FRAME_MIN_SIZE:
            raise ProtocolError(FRAME_ERROR, f"frames of {theirs} bytes; AMQP wants at least {FRAME_MIN_SIZE}")
        self._frame_bytes = self._reader.frame_bytes = min(theirs, ours) if theirs else ours
        self._channels_max = min(method["channel_max"] or self.limits.channels, self.limits.channels)
        if self.heartbeat_s and method["heartbeat"]:
            self.heartbeat_s = min(self.heartbeat_s, method["heartbeat"])
        agreed = {"channel_max": self._channels_max, "frame_max": self._frame_bytes, "heartbeat": self.heartbeat_s}
        self._send(encode_method(0, "connection.tune-ok", agreed))
        self._send(encode_method(0, "connection.open", {"virtual_host": self._virtual_host}))
        return []

    def _over(self, reply_code: int, reply_text: str, *, is_by_peer: bool, method: str = "") -> list[Event]:
        """The end: of all channels, then of the connection."""
        self.state = ConnectionState.CLOSED
        events: list[Event] = [channel.end(reply_code, reply_text, is_by_peer=is_by_peer) for channel in self.channels.values()]
        self.channels.clear()
        events.append(ConnectionClosed(reply_code, reply_text, is_by_peer, method))
        return events

    def _forget(self, number: int) -> None:
        del self.channels[number]
        heapq.heappush(self._free, number)

    def _send(self, data: bytes) -> None:
        self._out.append(data)
        self.pending_bytes += len(data)
