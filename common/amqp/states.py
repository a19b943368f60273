"""Which method of the server may come when, and what the connection or the channel is then.

    connection: start -> tune -> open-ok -> OPEN -> (close sent) CLOSING -> CLOSED
    channel:    OPENING -> OPEN -> (close sent) CLOSING -> CLOSED

A method that a state does not list is an error of the peer. Replies to what was asked are matched by `channel`, in their order.
Source: AMQP 0-9-1, 2.2.4 "Opening and closing a connection" and the grammars of the classes connection and channel.
"""

from enum import StrEnum

from common.amqp.spec import METHODS, SERVER


class ConnectionState(StrEnum):
    """What a connection waits for."""

    START = "start"
    TUNE = "tune"
    OPEN_OK = "open-ok"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class ChannelState(StrEnum):
    """What may be done on a channel."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


CHANNEL_OPEN = ChannelState.OPEN
"""Python 3.11 finds a member of an enumeration by way of an error: what asks for each message asks for this."""

_C = ConnectionState
CONNECTION: dict[tuple[ConnectionState, str], ConnectionState] = {
    (_C.START, "connection.start"): _C.TUNE,
    (_C.TUNE, "connection.tune"): _C.OPEN_OK,
    (_C.TUNE, "connection.close"): _C.CLOSED,
    (_C.OPEN_OK, "connection.open-ok"): _C.OPEN,
    (_C.OPEN_OK, "connection.close"): _C.CLOSED,
    (_C.OPEN, "connection.blocked"): _C.OPEN,
    (_C.OPEN, "connection.unblocked"): _C.OPEN,
    (_C.OPEN, "connection.update-secret-ok"): _C.OPEN,
    (_C.OPEN, "connection.close"): _C.CLOSED,
    (_C.CLOSING, "connection.close-ok"): _C.CLOSED,
    (_C.CLOSING, "connection.close"): _C.CLOSED,  # both sides at once
}
"""(state, method of the server on channel 0) -> next state. While CLOSING all else is read and dropped."""

_PASSED = frozenset({"basic.deliver", "basic.return", "basic.ack", "basic.nack", "basic.cancel", "channel.flow"})
"""What comes without having been asked for."""

_REPLIES = frozenset(reply for method in METHODS if method.sender != SERVER for reply in method.replies)

CHANNEL: dict[ChannelState, frozenset[str]] = {
    ChannelState.OPENING: frozenset({"channel.open-ok", "channel.close"}),
    ChannelState.OPEN: _PASSED | {"channel.close"} | _REPLIES - {"channel.open-ok", "channel.close-ok"},
    ChannelState.CLOSING: frozenset({"channel.close", "channel.close-ok"}),
    ChannelState.CLOSED: frozenset(),
}
"""Methods of the server that a channel takes in each state. While CLOSING all others are read and dropped."""


def after(state: ConnectionState, method: str) -> ConnectionState | None:
    """The state that the method leads to; None: it must not come now."""
    return CONNECTION.get((state, method))
