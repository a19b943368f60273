"""How much a peer may make us keep."""

from dataclasses import dataclass

FRAME_MIN_SIZE = 4096
"""Least frame-max that both sides must take (AMQP 0-9-1, 4.2.3)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection.

    frame_bytes      of a frame with its eight bytes around the payload; tuned down to the peer's, never up. RabbitMQ's own: 128 KiB
    body_bytes       of a message that is kept; a longer body is read to its end and cut there
    channels         open at once; tuned down to the peer's
    requests         that wait for their reply on one channel
    unconfirmed      publishes of one channel without a confirm
    unsettled        deliveries of one channel that are neither acked nor rejected
    table_depth      tables and arrays within each other
    """

    frame_bytes: int = 131_072
    body_bytes: int = 16 * 1024 * 1024
    channels: int = 2047
    requests: int = 1000
    unconfirmed: int = 100_000
    unsettled: int = 65_536
    table_depth: int = 32
