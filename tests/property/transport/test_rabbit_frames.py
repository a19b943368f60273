"""The frames that we write by hand are those that pamqp reads and writes."""

from typing import Any

import pamqp.frame
import pytest
from hypothesis import given, strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common.transport.rabbit_frames import publish_frames

short = st.text(max_size=60)
headers = st.dictionaries(
    st.text(min_size=1, max_size=20), st.text(max_size=40) | st.integers(-(2**31), 2**31) | st.booleans(), max_size=4
)


def decoded(data: bytes) -> list[Any]:
    found = []
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        found.append((channel, frame))
        data = data[size:]
    return found


@given(
    channel=st.integers(1, 2047), exchange=short, key=short, mandatory=st.booleans(), body=st.binary(max_size=300), sent=headers,
    expiration_ms=st.none() | st.integers(0, 10**9), frame_max=st.integers(16, 200),
)  # fmt: skip
def test_pamqp_reads_what_we_wrote(  # noqa: PLR0917
    channel: int,
    exchange: str,
    key: str,
    mandatory: bool,
    body: bytes,
    sent: dict[str, Any],
    expiration_ms: int | None,
    frame_max: int,
) -> None:
    data = publish_frames(
        channel, exchange=exchange, key=key, mandatory=mandatory, body=body, content_type="application/json", content_encoding="utf-8",
        headers=sent, expiration_ms=expiration_ms, message_id="1f", frame_max=frame_max,
    )  # fmt: skip
    (_, method), (_, header), *bodies = found = decoded(data)
    assert {number for number, _ in found} == {channel}
    assert isinstance(method, commands.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == (exchange, key, mandatory, False)
    assert isinstance(header, ContentHeader)
    assert header.body_size == len(body)
    properties = header.properties
    assert (properties.content_type, properties.content_encoding, properties.delivery_mode) == ("application/json", "utf-8", 2)
    assert (properties.headers or {}) == sent
    assert (properties.priority, properties.message_id) == (0, "1f")
    assert properties.expiration == (None if expiration_ms is None else str(expiration_ms))
    assert all(isinstance(frame, ContentBody) and len(frame.value) <= frame_max - 8 for _, frame in bodies)
    assert b"".join(frame.value for _, frame in bodies) == body


def test_a_name_that_amqp_cannot_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="256 bytes; AMQP takes 255"):
        publish_frames(
            1, exchange="", key="x" * 256, mandatory=False, body=b"", content_type="a", content_encoding="b", headers={},
            expiration_ms=None, message_id="1", frame_max=100,
        )  # fmt: skip
