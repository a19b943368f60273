"""Names on the bus, as oslo.messaging's rabbit driver makes them (oslo-wire 2.1, 2.2)."""

_NAME_MAX = 255
"""Bytes of a short string of AMQP."""


def routing_key(topic: str, server: str | None) -> str:
    """`<topic>` for any server, `<topic>.<server>` for one. It is also the name of the queue."""
    return topic if server is None else f"{topic}.{server}"


def fanout_exchange(topic: str) -> str:
    """The exchange that reaches every server of a topic. The control exchange is not part of its name (oslo-wire 13.14)."""
    return f"{topic}_fanout"


def fanout_queue(topic: str, own: str) -> str:
    """One server's own fanout queue. `own` is what no other process has: a hex UUID, or `<host>:<process>:<n>`."""
    return f"{topic}_fanout_{own}"


def fanout_stream(topic: str) -> str:
    """The stream that all servers of a topic read (`rabbit_stream_fanout`)."""
    return f"{topic}_fanout"


def reply_queue(own: str) -> str:
    """One client's replies. `own` as in `fanout_queue`."""
    return f"reply_{own}"


def stable_name(hostname: str, processname: str, number: int) -> str:
    """What `use_queue_manager` puts in the place of a UUID. `number` counts from 1 among the processes of that name on the host."""
    return f"{hostname}:{processname}:{number}"


def cancel_exchange(topic: str) -> str:
    """The fanout exchange by which callers tell the servers of a topic that they left. No other framework's peer is bound to it."""
    return f"{topic}_cancel"


def cancel_queue(topic: str, own: str) -> str:
    """Where a server hears of callers that left, when it has no fanout queue of its own. `own` as in `fanout_queue`."""
    return f"{topic}_cancel_{own}"


def dead_letter_queue(topic: str) -> str:
    """Where a topic's servers put messages that they can do nothing with."""
    return f"{topic}_dead_letter"


def is_reply_queue(name: str) -> bool:
    """True for names that peers give their reply queues; a reply goes nowhere else, whatever a request asks."""
    return name.startswith("reply_") and len(name) <= _NAME_MAX
