"""QMP, the protocol of QEMU's monitor, without I/O: bytes in and messages out, commands in and bytes out.

A message is one JSON object on one line. QEMU greets, then answers commands in their order and tells events in between.
Source: QEMU, "QEMU Machine Protocol Specification" (docs/interop/qmp-spec).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from common.base.errors import Broken

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""Longest line that is taken. The longest answer we ask for, all block nodes of a full machine, is below 100 kB."""


class ProtocolError(Broken):
    """What came from the machine's monitor is not QMP: {reason}"""


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first message. `version` is QEMU's, "7.2.22"."""

    version: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Return:
    """A command's success. `id` is what `send` gave for it; None when the peer sent none."""

    id: int | None
    value: Any


@dataclass(frozen=True, slots=True)
class Error:
    """A command's failure. `kind` is the class of the error, "GenericError" mostly; `text` is for people."""

    id: int | None
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened in the machine, asked for or not."""

    name: str
    data: Mapping[str, Any]


Message = Greeting | Return | Error | Event


class Qmp:
    """One conversation. After a ProtocolError it is over, and every further `next_message` raises it again."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._last_id = 0
        self._failure: ProtocolError | None = None

    def send(self, command: str, arguments: Mapping[str, Any] | None = None) -> tuple[int, bytes]:
        """(id, bytes to be written) of a command; its Return or Error bears that id."""
        self._last_id += 1
        request = {"execute": command, "arguments": dict(arguments or {}), "id": self._last_id}
        return self._last_id, msgspec.json.encode(request) + b"\r\n"

    def receive_data(self, data: bytes) -> None:
        """Take what was read; in pieces of any size."""
        self._buffer += data

    def next_message(self) -> Message | None:
        """The next whole message; None when more bytes are needed. Raises ProtocolError."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._take()
        except ProtocolError as failure:
            self._failure = failure
            self._buffer.clear()
            raise

    def _take(self) -> Message | None:
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if max(end, len(self._buffer) if end < 0 else 0) > MESSAGE_BYTES_MAX:
                raise ProtocolError(reason=f"a line is longer than {MESSAGE_BYTES_MAX} bytes")
            if end < 0:
                self._searched = len(self._buffer)
                return None
            line = bytes(self._buffer[:end]).strip()
            del self._buffer[: end + 1]
            self._searched = 0
            if line:
                return parse_message(line)


def parse_message(line: bytes) -> Message:
    """The message of one line. Raises ProtocolError, whose text holds nothing of the line: it may be a secret."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ProtocolError(reason=f"a line of {len(line)} bytes is not a JSON object") from exc
    match fields:
        case {"QMP": {"version": {"qemu": dict(version)}, "capabilities": list(capabilities)}}:
            return Greeting(_version(version), tuple(str(name) for name in capabilities))
        case {"return": value}:
            return Return(_id(fields), value)
        case {"error": {"class": str(kind), "desc": str(text)}}:
            return Error(_id(fields), kind, text)
        case {"event": str(name)} if isinstance(fields.get("data", {}), dict):
            return Event(name, fields.get("data", {}))
        case _:
            raise ProtocolError(reason="an object is neither greeting, return, error nor event")


def _version(parts: Mapping[str, Any]) -> str:
    return ".".join(str(parts.get(part, 0)) for part in ("major", "minor", "micro"))


def _id(fields: Mapping[str, Any]) -> int | None:
    number = fields.get("id")
    if number is not None and not isinstance(number, int):
        raise ProtocolError(reason="the id of an answer is not a number")
    return number
