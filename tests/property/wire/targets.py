"""What hostile bytes may reach, each as a function of bytes: whatever they are, it returns, or raises one of a few errors.

The targets swallow the errors that are promised; any other is a bug of ours. `tests.property.wire.fuzz` and `test_fuzz` drive them.
"""

import builtins
import json
from collections.abc import Callable, Iterator
from typing import Any

from cinder_lite import contract as cinder
from common.base.context import Context
from common.base.trace import Trace
from common.rpc.contract import Contract, contract_of, methods_of
from common.rpc.dead_letters import attempts_of, requeues_of
from common.rpc.dispatch import Dispatcher, InvalidArguments
from common.wire.envelope import NotAMessage, pack, unpack
from common.wire.failure import NoSuchMethod, UnsupportedVersion, decode_failure
from common.wire.messages import Reply, Request, cancelled_call, decode_reply, decode_request, encode_reply, encode_request
from common.wire.values import WrongValue, from_primitive
from nova_lite import contract as nova
from tests.property.amqp.fuzzed import AMQP_TARGETS

CONTRACTS: tuple[type[Contract], ...] = (
    cinder.VolumeAPI,
    cinder.VolumeManagerAPI,
    cinder.SchedulerAPI,
    nova.ComputeAPI,
    nova.ComputeManagerAPI,
)


def whole(contract: type[Contract]) -> object:
    """An endpoint with every method of the contract; none of them is ever run."""

    async def never(self: object, ctx: Context, **arguments: Any) -> None:
        raise AssertionError("the fuzzer binds, it does not run")

    made: object = type(f"Whole{contract.__name__}", (contract,), dict.fromkeys(methods_of(contract), never))()
    assert contract_of(made) is contract
    return made


DISPATCHERS = {contract: Dispatcher([whole(contract)]) for contract in CONTRACTS}
TYPES: tuple[Any, ...] = tuple(
    dict.fromkeys(
        wanted
        for contract in CONTRACTS
        for method in methods_of(contract).values()
        for wanted in (*method.parameters.values(), method.result)
    )
)
"""Of every argument and result of the two services."""


def envelope(data: bytes) -> None:
    try:
        found = unpack(data)
    except NotAMessage:
        return
    assert isinstance(found, dict)
    _ = json.dumps(found, ensure_ascii=False).encode()  # what was taken can be sent on


def request(data: bytes) -> None:
    try:
        found = decode_request(data)
    except NotAMessage:
        return
    cancelled_call(found)
    Context.from_dict(found.context, deadline=found.deadline_s, message_id=found.unique_id).to_dict()
    for dispatcher in DISPATCHERS.values():
        try:
            dispatcher.bind(found)
        except (UnsupportedVersion, NoSuchMethod, InvalidArguments) as exc:
            assert len(str(exc)) < 20_000  # noqa: PT017 - the logs of a server are not the peer's to fill


def reply(data: bytes) -> None:
    try:
        found = decode_reply(data)
    except NotAMessage:
        return
    if found.failure is not None:
        failure(found.failure.encode())


def failure(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")  # halves of surrogate pairs included
    for allowed in (None, {"builtins": builtins}):
        error = decode_failure(text, allowed)
        assert isinstance(error, Exception)
        assert not isinstance(error, OSError) or allowed
        str(error).encode()


def value(data: bytes) -> None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    for wanted in TYPES:
        try:
            from_primitive(found, wanted)
        except WrongValue as exc:
            assert len(str(exc)) < 20_000  # noqa: PT017 - as above


def trace(data: bytes) -> None:
    parent, _, state = data.decode("latin-1").partition("\n")
    found = Trace.parse(parent, state)
    assert found is None or found.traceparent == parent


def headers(data: bytes) -> None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(found, dict):
        assert attempts_of(found) >= 0
        assert requeues_of(found) >= 0


WIRE_TARGETS: dict[str, Callable[[bytes], None]] = {
    "envelope": envelope,
    "request": request,
    "reply": reply,
    "failure": failure,
    "value": value,
    "trace": trace,
    "headers": headers,
}
TARGETS = WIRE_TARGETS | AMQP_TARGETS


def seeds() -> Iterator[bytes]:
    """Messages as peers send them, to begin with."""
    for contract in CONTRACTS:
        for name, method in methods_of(contract).items():
            arguments: dict[str, Any] = dict.fromkeys(method.parameters, "x")
            sent = Request(
                name, arguments, "u", contract.__rpc_route__.namespace, method.version, "m", "reply_q", 2, 5, {"request_id": "r"}
            )
            yield encode_request(sent)
    yield encode_reply(Reply("m", {"a": [1, None, 2.5]}, unique_id="u"))
    fault = {"class": "Conflict", "module": "common.base.errors", "message": "m", "tb": [], "args": ["m"], "kwargs": {"kind": "x"}}
    for words in (
        fault,
        {**fault, "class": "KeyError", "module": "builtins"},
        {**fault, "class": "Gone_Remote", "module": "a_Remote"},
    ):
        yield encode_reply(Reply("m", failure=json.dumps(words)))
        yield json.dumps(words).encode()
    yield pack({"method": "m", "args": {}})
    yield b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nrojo=1"
    yield b'{"oslo.version": "2.0", "oslo.message": "{\\"method\\": \\"m\\", \\"args\\": {\\"x\\": NaN}}"}'
    yield b'{"x-lite-attempts": 3, "x-delivery-count": 2}'
