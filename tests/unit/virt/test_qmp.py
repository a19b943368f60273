import pytest

from nova_lite.virt.qmp import MESSAGE_BYTES_MAX, Error, Event, Greeting, Message, ProtocolError, Qmp, Return

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}\r\n'
)


def messages(data: bytes) -> list[Message]:
    qmp = Qmp()
    qmp.receive_data(data)
    found = []
    while (message := qmp.next_message()) is not None:
        found.append(message)
    return found


def test_a_command_is_one_line_with_an_id_of_its_own() -> None:
    qmp = Qmp()
    assert qmp.send("device_del", {"id": "disk"}) == (1, b'{"execute":"device_del","arguments":{"id":"disk"},"id":1}\r\n')
    assert qmp.send("quit") == (2, b'{"execute":"quit","arguments":{},"id":2}\r\n')


def test_the_greeting_of_a_real_qemu_is_read() -> None:
    assert messages(GREETING) == [Greeting("7.2.22", ("oob",))]


def test_answers_and_events_are_told_apart() -> None:
    data = (
        b'{"return": {}, "id": 1}\r\n'
        b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "DEVICE_DELETED", "data": {"device": "d", "path": "/p"}}\r\n'
        b'{"id": 2, "error": {"class": "GenericError", "desc": "Node n is in use"}}\r\n'
        b'{"event": "STOP"}\n'
        b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'
    )
    assert messages(data) == [
        Return(1, {}),
        Event("DEVICE_DELETED", {"device": "d", "path": "/p"}),
        Error(2, "GenericError", "Node n is in use"),
        Event("STOP", {}),
        Error(None, "GenericError", "JSON parse error"),
    ]


def test_half_a_message_waits_for_the_rest() -> None:
    qmp = Qmp()
    qmp.receive_data(GREETING[:40])
    assert qmp.next_message() is None
    qmp.receive_data(GREETING[40:])
    assert isinstance(qmp.next_message(), Greeting)


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"[]",
        b"{}",
        b"null",
        b'{"return": {}, "id": "one"}',
        b'{"error": "text"}',
        b'{"event": 1}',
        b'{"event": "STOP", "data": []}',
        b"\xff",
        b"[" * 100_000,
        b'{"return": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_not_qmp_is_a_protocol_error_and_stays_one(line: bytes) -> None:
    qmp = Qmp()
    qmp.receive_data(line + b"\n" + GREETING)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            qmp.next_message()


def test_a_protocol_error_does_not_quote_the_line() -> None:
    qmp = Qmp()
    qmp.receive_data(b'{"password": "sesame"}\n')
    with pytest.raises(ProtocolError) as failure:
        qmp.next_message()
    assert "sesame" not in str(failure.value)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_an_end_is_not_kept_for_ever(end: bytes) -> None:
    qmp = Qmp()
    for _ in range(5):
        qmp.receive_data(b" " * (MESSAGE_BYTES_MAX // 4))
    qmp.receive_data(end)
    with pytest.raises(ProtocolError, match="longer"):
        qmp.next_message()


def test_messages_before_a_bad_line_are_still_told() -> None:
    qmp = Qmp()
    qmp.receive_data(GREETING + b"bad\n")
    assert isinstance(qmp.next_message(), Greeting)
    with pytest.raises(ProtocolError):
        qmp.next_message()
