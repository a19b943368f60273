"""QMP without I/O: how bytes are cut into pieces does not matter, and no bytes break it in an unforeseen way."""

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, strategies as st

from nova_lite.virt.qmp import Error, Event, Greeting, Message, ProtocolError, Qmp, Return, parse_message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=8), JSON, max_size=3)
IDS = st.none() | st.integers(0, 2**53)
MESSAGES = (
    st.builds(Greeting, st.just("7.2.22"), st.lists(st.text(max_size=8), max_size=3).map(tuple))
    | st.builds(Return, IDS, JSON)
    | st.builds(Error, IDS, st.text(max_size=20), st.text(max_size=40))
    | st.builds(Event, st.text(max_size=20), OBJECTS)
)
NEAR_LINES = st.dictionaries(st.sampled_from(["QMP", "return", "error", "event", "data", "id", "class", "desc"]), JSON, max_size=4)


def wire(message: Message) -> bytes:
    """A line as QEMU writes it."""
    fields: dict[str, Any]
    match message:
        case Greeting(capabilities=capabilities):
            fields = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}}, "capabilities": capabilities}}
        case Return(id=number, value=value):
            fields = {"return": value} | ({} if number is None else {"id": number})
        case Error(id=number, kind=kind, text=text):
            fields = {"error": {"class": kind, "desc": text}} | ({} if number is None else {"id": number})
        case Event(name=name, data=data):
            fields = {"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 2}}
    return msgspec.json.encode(fields) + b"\r\n"


def drained(qmp: Qmp) -> list[Message | str]:
    """All messages there are; a protocol error ends them with its text."""
    found: list[Message | str] = []
    try:
        while (message := qmp.next_message()) is not None:
            found.append(message)
    except ProtocolError as failure:
        found.append(str(failure))
    return found


def received(pieces: list[bytes]) -> list[Message | str]:
    qmp, found = Qmp(), list[Message | str]()
    for piece in pieces:
        qmp.receive_data(piece)
        if not (found and isinstance(found[-1], str)):
            found += drained(qmp)
    return found


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """A stream, whole and in pieces."""
    stream = draw(streams)
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *places, len(stream)]
    return stream, [stream[start:end] for start, end in pairwise(edges)]


LINES = st.lists(
    MESSAGES.map(wire) | st.just(b"\r\n") | NEAR_LINES.map(msgspec.json.encode).map(lambda line: line + b"\n"), max_size=5
)


@given(cut(LINES.map(b"".join)))
def test_any_cutting_gives_the_same_messages(parts: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = parts
    assert received(pieces) == received([stream])


@given(cut(st.binary(max_size=300) | st.lists(st.binary(max_size=30), max_size=8).map(b"\n".join)))
def test_any_bytes_give_messages_or_a_protocol_error_however_they_are_cut(parts: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = parts
    assert received(pieces) == received([stream])


@given(MESSAGES)
def test_what_qemu_writes_is_what_we_read(message: Message) -> None:
    assert parse_message(wire(message).strip()) == message


@given(NEAR_LINES.map(msgspec.json.encode) | st.text(max_size=60).map(str.encode) | st.binary(max_size=60))
def test_a_line_is_a_message_or_a_protocol_error(line: bytes) -> None:
    try:
        message = parse_message(line)
    except ProtocolError:
        return
    assert isinstance(message, Greeting | Return | Error | Event)


@given(st.lists(st.tuples(st.text(max_size=20), OBJECTS), max_size=5))
def test_commands_are_lines_of_json_with_rising_ids(commands: list[tuple[str, dict[str, Any]]]) -> None:
    qmp = Qmp()
    for number, (command, arguments) in enumerate(commands, 1):
        sent, line = qmp.send(command, arguments)
        assert sent == number
        assert line.count(b"\n") == 1
        assert msgspec.json.decode(line) == {"execute": command, "arguments": arguments, "id": number}
