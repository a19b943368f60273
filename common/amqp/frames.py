"""From a stream of bytes to frames (4.2.3), whatever the pieces it comes in."""

from collections.abc import Iterator

from common.amqp.errors import FRAME_ERROR, ProtocolError
from common.amqp.methods import FRAME
from common.amqp.spec import FRAME_END, FRAME_OVERHEAD

_HEAD = FRAME.size
_LONGEST_BEFORE_TUNE = 131_072


class FrameReader:
    """Takes bytes as they come. What it keeps is shorter than one frame, and each byte is copied a few times at most.

    A frame is looked at in place: `take` gives a buffer with whole frames and where they begin; the rest waits for the next bytes.
    """

    def __init__(self, frame_bytes: int = _LONGEST_BEFORE_TUNE) -> None:
        self.frame_bytes = frame_bytes
        """The largest that is taken, with its overhead."""
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._wanted = _HEAD
        """Bytes from the begin of what is kept that decide how it goes on."""

    def buffer(self, data: bytes) -> bytes | None:
        """What is kept, with `data` behind it; None as long as that is too little to be worth a look."""
        if not self._kept:
            if len(data) >= self._wanted:
                return data
            self._keep(data)
            return None
        size = self._kept_bytes + len(data)
        if size < self._wanted:
            self._keep(data)
            return None
        self._kept.append(data)
        whole = b"".join(self._kept)
        self._kept.clear()
        self._kept_bytes = 0
        return whole

    def end_of_frame(self, buffer: bytes, at: int) -> int:
        """Where the frame that begins at `at` ends; 0: its end is still to come. Raises ProtocolError."""
        if len(buffer) - at < _HEAD:
            return 0
        kind, _, size = FRAME.unpack_from(buffer, at)
        if size > self.frame_bytes - FRAME_OVERHEAD:
            if kind == ord("A"):
                raise ProtocolError(FRAME_ERROR, "the peer speaks another version of AMQP, or another protocol")
            raise ProtocolError(FRAME_ERROR, f"a frame of {size + FRAME_OVERHEAD} bytes; agreed were at most {self.frame_bytes}")
        end: int = at + FRAME_OVERHEAD + size
        if end > len(buffer):
            return 0
        if buffer[end - 1] != FRAME_END:
            raise ProtocolError(FRAME_ERROR, "a frame without its end octet")
        return end

    def keep(self, buffer: bytes, at: int) -> None:
        """Keep what stands behind the last whole frame."""
        self._wanted = _HEAD
        rest = buffer[at:]
        if not rest:
            return
        if len(rest) >= _HEAD:
            self._wanted = FRAME_OVERHEAD + FRAME.unpack_from(rest)[2]
        self._keep(rest)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the frame that has begun."""
        return self._kept_bytes

    def _keep(self, data: bytes) -> None:
        if data:
            self._kept.append(data)
            self._kept_bytes += len(data)


def split(data: bytes, frame_bytes: int = _LONGEST_BEFORE_TUNE) -> Iterator[tuple[int, int, bytes]]:
    """(type, channel, payload) of each frame in `data`, which holds whole frames only. Raises ProtocolError."""
    reader, at = FrameReader(frame_bytes), 0
    while at < len(data):
        end = reader.end_of_frame(data, at)
        if not end:
            raise ProtocolError(FRAME_ERROR, "a frame that ends too early")
        kind, channel, _ = FRAME.unpack_from(data, at)
        yield kind, channel, data[at + _HEAD : end - 1]
        at = end
