"""Compressed bodies: AMQP header `compression`, as kombu's option `compression` writes it (kombu/compression.py).

What kombu calls `application/x-gzip` is a zlib stream (RFC 1950) without gzip's header; a gzip file (RFC 1952) is taken as well.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from common.base.limits import MESSAGE_BYTES_MAX
from common.wire.envelope import NotAMessage

Compression = Literal["gzip", "bz2"]
"""What kombu_compression may say."""

HEADER = "compression"
_CONTENT_TYPES: Mapping[Compression, str] = {"gzip": "application/x-gzip", "bz2": "application/x-bz2"}
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32
"""zlib's manual, inflateInit2: 32 more finds out by itself which of the two headers is there."""


def compressed(body: bytes, method: Compression) -> tuple[bytes, dict[str, str]]:
    """The body in the compressed form, and the header that says so."""
    return _COMPRESS[method](body), {HEADER: _CONTENT_TYPES[method]}


def plain(body: bytes, headers: Mapping[str, Any]) -> bytes:
    """The body as it was before its sender compressed it; the same bytes where no header says that he did.

    Raises NotAMessage for a compression that is not known, a stream that is damaged or cut off, and one whose content is larger
    than MESSAGE_BYTES_MAX, of which no more than that is ever unpacked.
    """
    method = headers.get(HEADER)
    if method is None:
        return body
    unpack = _UNPACK.get(method) if isinstance(method, str) else None
    if unpack is None:
        shown = repr(method[:40]) if isinstance(method, str) else f"of type {type(method).__name__}"
        raise NotAMessage(f"compression {shown}; wanted one of {', '.join(_UNPACK)}", kind="compression")
    try:
        content, is_whole = unpack(body)
    except (zlib.error, OSError, ValueError) as exc:
        raise NotAMessage(f"body of {len(body)} bytes is not {method}: {exc}", kind="compression") from None
    if len(content) > MESSAGE_BYTES_MAX:
        raise NotAMessage(f"body of {len(body)} bytes holds more than {MESSAGE_BYTES_MAX} bytes in {method}", kind="size")
    if not is_whole:
        raise NotAMessage(f"body of {len(body)} bytes ends before its {method} does", kind="compression")
    return content


def _inflated(body: bytes) -> tuple[bytes, bool]:
    """The content up to one byte more than the limit, and whether the stream came to its end."""
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    return stream.decompress(body, MESSAGE_BYTES_MAX + 1), stream.eof


def _bunzipped(body: bytes) -> tuple[bytes, bool]:
    import bz2  # noqa: PLC0415  # nearly nobody has such a body

    stream = bz2.BZ2Decompressor()
    return stream.decompress(body, MESSAGE_BYTES_MAX + 1), stream.eof


def _bzipped(body: bytes) -> bytes:
    import bz2  # noqa: PLC0415

    return bz2.compress(body)


_COMPRESS: Mapping[Compression, Callable[[bytes], bytes]] = {"gzip": zlib.compress, "bz2": _bzipped}
_UNPACK: Mapping[str, Callable[[bytes], tuple[bytes, bool]]] = {
    _CONTENT_TYPES["gzip"]: _inflated,
    _CONTENT_TYPES["bz2"]: _bunzipped,
}
