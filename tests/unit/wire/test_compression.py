"""Compressed bodies, as kombu writes them and as nobody should."""

import bz2
import gzip
import zlib
from typing import Any

import pytest
from hypothesis import given, strategies as st
from kombu.compression import compress, decompress

from common.base.limits import MESSAGE_BYTES_MAX
from common.wire.compression import Compression, compressed, plain
from common.wire.envelope import NotAMessage

METHODS: list[Compression] = ["gzip", "bz2"]


@pytest.mark.parametrize("method", METHODS)
@given(body=st.binary(max_size=2000))
def test_kombu_and_ours_read_each_others_compression(method: Compression, body: bytes) -> None:
    # oslo.messaging's help says bz2 of kombu_compression, but kombu's word is bzip2.
    theirs, content_type = compress(body, {"gzip": "gzip", "bz2": "bzip2"}[method])
    assert plain(theirs, {"compression": content_type}) == body
    ours, header = compressed(body, method)
    assert header == {"compression": content_type}
    assert decompress(ours, content_type) == body


def test_a_gzip_file_is_taken_as_well() -> None:
    assert plain(gzip.compress(b"{}"), {"compression": "application/x-gzip"}) == b"{}"


def test_a_body_without_the_header_is_itself() -> None:
    assert plain(b"{}", {"other": 1}) == b"{}"


GZIP = {"compression": "application/x-gzip"}
BZ2 = {"compression": "application/x-bz2"}


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"{}", GZIP, "body of 2 bytes is not application/x-gzip: "),
        (b"{}", BZ2, "body of 2 bytes is not application/x-bz2: Invalid data stream"),
        (zlib.compress(b"{}" * 100)[:-4], GZIP, "ends before its application/x-gzip does"),
        (bz2.compress(b"{}" * 100)[:-4], BZ2, "ends before its application/x-bz2 does"),
        (b"", GZIP, "ends before"),
        (b"", BZ2, "ends before"),
        (b"{}", {"compression": "application/x-lzma"}, "compression 'application/x-lzma'; wanted one of application/x-gzip, "),
        (b"{}", {"compression": 7}, "compression of type int"),
        (b"{}", {"compression": b"application/x-gzip"}, "compression of type bytes"),
    ],
)
def test_what_cannot_be_unpacked_is_no_message(body: bytes, headers: dict[str, Any], said: str) -> None:
    with pytest.raises(NotAMessage, match=said):
        plain(body, headers)


@pytest.mark.parametrize("method", METHODS)
def test_the_largest_message_is_unpacked_and_one_byte_more_is_not(method: Compression) -> None:
    largest, header = compressed(bytes(MESSAGE_BYTES_MAX), method)
    assert len(plain(largest, header)) == MESSAGE_BYTES_MAX
    larger, header = compressed(bytes(MESSAGE_BYTES_MAX + 1), method)
    with pytest.raises(NotAMessage, match=f"holds more than {MESSAGE_BYTES_MAX} bytes"):
        plain(larger, header)


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_is_not_unpacked(method: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.wire.compression.MESSAGE_BYTES_MAX", 1000)
    bomb, header = compressed(bytes(50_000_000), method)
    with pytest.raises(NotAMessage, match="holds more than 1000 bytes"):
        plain(bomb, header)
