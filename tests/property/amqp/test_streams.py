"""The same bytes in any pieces mean the same; and pieces cost no more than their bytes."""

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from common.amqp.events import Event
from common.amqp.frames import FrameReader, split
from common.amqp.limits import Limits
from tests.property.amqp.broker import content, deliver, frame, method, opened, with_channel

PLACE = {"consumer_tag": "c", "redelivered": True, "exchange": "x", "routing_key": "k"}


def one_frame(number: int) -> bytes:
    return frame(3, 7, b"x" * number)


def conversation(bodies: list[bytes], piece: int) -> bytes:
    """Deliveries on two channels, their frames in turns where the bodies are cut, and what comes in between."""
    parts = [method(0, "connection.blocked", reason="r")]
    for number, body in enumerate(bodies, start=1):
        other = method(2, "basic.deliver", delivery_tag=number, **PLACE)
        parts += [method(1, "basic.deliver", delivery_tag=number, **PLACE), other]
        ours, theirs = split(content(1, body, piece=piece)), split(content(2, body[::-1], piece=piece))
        for first, second in zip(ours, theirs, strict=True):
            parts += [frame(*first), frame(8, 0, b""), frame(*second)]
        parts.append(deliver(1, number + 10_000, body[:5], headers={"n": number}) if number == len(bodies) else b"")
    parts.append(method(1, "channel.close", reply_code=404, reply_text="gone"))
    return b"".join(parts)


def events_of(pieces: list[bytes]) -> list[Event]:
    connection = opened(limits=Limits(body_bytes=300))
    with_channel(connection)
    with_channel(connection)
    return [event for piece in pieces for event in connection.receive_data(piece, 0.0)]


@settings(max_examples=60)
@given(
    bodies=st.lists(st.binary(max_size=400), min_size=1, max_size=4),
    piece=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 4000), max_size=20),
)
def test_any_pieces_of_a_stream_give_the_same_events(bodies: list[bytes], piece: int, cuts: list[int]) -> None:
    data = conversation(bodies, piece)
    places = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    wanted = events_of([data])
    assert events_of(pieces) == wanted
    assert len(wanted) == 2 * len(bodies) + 3


def test_single_bytes_give_the_same_events() -> None:
    data = conversation([b"abc", b"", b"x" * 350], 100)
    assert events_of([data[at : at + 1] for at in range(len(data))]) == events_of([data])


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_frame_in_single_bytes_is_joined_a_few_times_however_long_it_is(size: int) -> None:
    reader, data, looked = FrameReader(), one_frame(size), 0
    for at in range(len(data)):
        buffer = reader.buffer(data[at : at + 1])
        if buffer is not None:
            looked += 1
            if not reader.end_of_frame(buffer, 0):
                reader.keep(buffer, 0)
    assert looked == 2, "once for the head of the frame, once for all of it"


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=10), piece=st.integers(1, 700))
def test_what_is_kept_is_shorter_than_one_frame(sizes: list[int], piece: int) -> None:
    data = b"".join(map(one_frame, sizes))
    reader, found = FrameReader(), 0
    for start in range(0, len(data), piece):
        buffer = reader.buffer(data[start : start + piece])
        if buffer is None:
            continue
        at = 0
        while end := reader.end_of_frame(buffer, at):
            at, found = end, found + 1
        reader.keep(buffer, at)
        assert reader.kept_bytes < max(sizes) + 8
    assert (found, reader.kept_bytes) == (len(sizes), 0)
