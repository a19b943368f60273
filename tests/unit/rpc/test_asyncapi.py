"""The AsyncAPI document: valid by the official schema, and true of what the bus carries."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from jsonschema import Draft7Validator

from common.app.service import services
from common.base.context import Context
from common.base.errors import NotFound
from common.host.clock import SystemClock
from common.rpc.asyncapi import Server, document
from common.rpc.contract import Contract, call, cast
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.rpc.snapshot import take
from common.rpc.topology import destination, server_queues
from common.transport.memory import MemoryBus, MemoryTransport
from common.transport.port import Message
from common.wire.messages import Reply, encode_reply

OFFICIAL = Path(__file__).parent / "data" / "asyncapi-3.0.0-without-id.json.gz"
CLOCK = SystemClock()
SERVERS = {"rabbit": Server("{host}:5672", "amqp", "/v", "The bus.", {"host": ("localhost", "A broker")})}


def drawn(contracts: dict[str, Any] | None = None, options: RpcOptions | None = None) -> dict[str, Any]:
    found = contracts or {name: service.contracts for name, service in services().items()}
    made = document(take(found), SERVERS, options=options or RpcOptions(), title="t", version="1")
    written: dict[str, Any] = json.loads(json.dumps(made))
    return written


@pytest.fixture(scope="module")
def installed() -> dict[str, Any]:
    return drawn()


@pytest.fixture(scope="module")
def official() -> Draft7Validator:
    text = gzip.decompress(OFFICIAL.read_bytes())
    assert hashlib.sha256(text).hexdigest() == "abe96881dbfaad495ccbb6bd8d3fb43ca18a13b9d7564849ccb66f39d5e5b20f"
    return Draft7Validator(json.loads(text))


def complaints(official: Draft7Validator, found: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in official.iter_errors(found)]


def test_the_document_of_the_installed_services_is_valid_asyncapi_3_0_0(
    installed: dict[str, Any], official: Draft7Validator
) -> None:
    assert installed["asyncapi"] == "3.0.0"
    assert complaints(official, installed) == []


def test_the_official_schema_refuses_what_is_no_asyncapi(installed: dict[str, Any], official: Draft7Validator) -> None:
    for place, value in (
        (("servers", "rabbit", "host"), None),
        (("channels", "nova.compute", "bindings", "amqp", "exchange", "type"), "mailbox"),
        (("operations", "nova.ComputeAPI.get", "action"), "shout"),
        (("components", "messages", "nova.ComputeAPI.get", "colour"), "red"),
        (("components", "schemas", "Volume", "type"), "thing"),
    ):
        spoilt = json.loads(json.dumps(installed))
        inside = spoilt
        for name in place[:-1]:
            inside = inside[name]
        inside[place[-1]] = value
        assert complaints(official, spoilt), place


def references(found: Any) -> Iterator[str]:
    if isinstance(found, dict):
        for name, value in found.items():
            if name == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)
    elif isinstance(found, list):
        for value in found:
            yield from references(value)


def at(found: dict[str, Any], reference: str) -> Any:
    inside: Any = found
    for name in reference.removeprefix("#/").split("/"):
        inside = inside[name]
    return inside


def test_every_reference_leads_to_something_and_every_message_is_on_a_channel(installed: dict[str, Any]) -> None:
    pointed = set(references(installed))
    for reference in pointed:
        assert at(installed, reference), reference
    assert {name.rpartition("/")[2] for name in pointed if name.startswith("#/components/messages/")} == set(
        installed["components"]["messages"]
    )
    for operation in installed["operations"].values():
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])


def test_every_method_of_every_contract_has_its_operations(installed: dict[str, Any]) -> None:
    wanted = set()
    for name, contract in take({name: service.contracts for name, service in services().items()}).contracts.items():
        for method, shape in contract.methods.items():
            wanted |= {f"{name}.{method}", f"{name}.{method}-server"} | (
                {f"{name}.{method}-fanout"} if shape.kind == "cast" else set()
            )
    assert set(installed["operations"]) == wanted


def test_a_call_has_a_reply_with_its_result_or_an_error_and_a_cast_has_none(installed: dict[str, Any]) -> None:
    operations = installed["operations"]
    reply = operations["nova.ComputeAPI.get"]["reply"]
    assert [one["$ref"].rpartition("/")[2] for one in reply["messages"]] == [
        "nova.ComputeAPI.get-reply", "nova.ComputeAPI-failure", "oslo.sign_of_life",
    ]  # fmt: skip
    assert "reply" not in operations["nova.ComputeManagerAPI.attach_volume"]
    failure = installed["components"]["messages"]["nova.ComputeAPI-failure"]
    assert failure["x-errors"]["nova.exception.InstanceNotFound"] == {
        "code": 404,
        "message": "Instance {instance_id} could not be found.",
    }
    assert failure["x-errors"]["nova.exception.HypervisorUnavailable"]["retryable"] is True


def test_versions_namespaces_and_docstrings_stand_in_it(installed: dict[str, Any]) -> None:
    messages, schemas = installed["components"]["messages"], installed["components"]["schemas"]
    assert messages["cinder.VolumeManagerAPI.attach_volume"]["x-since"] == "3.3"
    assert messages["nova.GuestProbe.about"]["x-contract"] == {
        "name": "nova.GuestProbe",
        "topic": "compute",
        "namespace": "probe",
        "version": "1.0",
    }
    assert schemas["nova.GuestProbe.about"]["properties"]["namespace"] == {"enum": ["probe"]}
    assert "Raises VolumeNotFound" in installed["operations"]["cinder.VolumeAPI.get"]["description"]


def test_exchanges_and_queues_are_those_that_servers_declare() -> None:
    options = RpcOptions(control_exchange="ce", durable=True)
    found = drawn({"s": [ThingAPI]}, options)
    route = ThingAPI.__rpc_route__
    queues = server_queues(options, exchange=None, topic=route.topic, server="{server}")
    for key, queue in zip(("ce.things", "ce.things.server", "ce.things.fanout"), queues, strict=True):
        channel = found["channels"][key]
        exchange = queue.bindings[0].exchange
        assert channel["bindings"]["amqp"]["exchange"] == {
            "name": exchange.name, "type": exchange.kind, "durable": exchange.durable, "autoDelete": exchange.auto_delete,
        }  # fmt: skip
        assert channel["x-queue"]["durable"] == queue.durable
    assert found["channels"]["ce.things"]["address"] == destination(options, route)[1] == queues[0].name
    assert found["channels"]["ce.things.server"]["address"] == "things.{server}"
    assert found["channels"]["ce.things.fanout"]["address"] == "things_fanout"
    assert found["channels"]["replies"]["bindings"]["amqp"]["is"] == "queue"


class Thing(msgspec.Struct, frozen=True):
    name: str
    size: int = 1


class ThingAPI(Contract, Protocol, topic="things", version="1.3", namespace="ns"):
    @call(since="1.2", timeout_s=7)
    async def grow(self, ctx: Context, *, thing: Thing, by: tuple[int, str] = (1, "m")) -> Thing: ...

    @call()
    async def reply(self, ctx: Context) -> None: ...

    @cast()
    async def failure(self, ctx: Context, *, word: str) -> None: ...


class Things(ThingAPI):
    async def grow(self, ctx: Context, *, thing: Thing, by: tuple[int, str] = (1, "m")) -> Thing:
        if by[0] < 0:
            raise NotFound(kind="Thing", name=thing.name)
        return Thing(thing.name, thing.size + by[0])

    async def reply(self, ctx: Context) -> None: ...

    async def failure(self, ctx: Context, *, word: str) -> None: ...


class Listening(MemoryTransport):
    """Keeps what is published through it."""

    def __init__(self, bus: MemoryBus, sent: list[Message]) -> None:
        super().__init__(bus, name="listening")
        self._sent = sent

    async def publish(self, message: Message, *, timeout_s: float) -> None:
        self._sent.append(message)
        await super().publish(message, timeout_s=timeout_s)


async def carried() -> list[Message]:
    """What the bus carries for one use of each method, the second `grow` an error; requests and replies as they come."""
    bus, sent = MemoryBus(CLOCK), list[Message]()
    options = RpcOptions()
    async with (
        serving(Listening(bus, sent), Serving([Things()], "host1"), clock=CLOCK, options=options, grace_s=5),
        client(Listening(bus, sent), clock=CLOCK, options=options) as rpc,
    ):
        things, ctx = ThingAPI.over(rpc), Context()
        await things.grow(ctx, thing=Thing("a"), by=(2, "cm"))
        with pytest.raises(NotFound):
            await things.on("host1").grow(ctx, thing=Thing("a"), by=(-1, "cm"))
        await things.reply(ctx)
        await things.everywhere().failure(ctx, word="w")
    return sent


def fitting(found: dict[str, Any], body: bytes) -> list[str]:
    """The messages of the document that a body is valid as: the envelope first, then the JSON in its text."""
    names = []
    for name, message in found["components"]["messages"].items():
        payload = message["payload"]
        inner = payload["properties"]["oslo.message"]["contentSchema"]
        outer = json.loads(body)
        if _is_valid(found, payload, outer) and _is_valid(found, inner, json.loads(outer["oslo.message"])):
            names.append(name)
    return names


def _is_valid(found: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    return Draft7Validator({"allOf": [schema], "components": found["components"]}).is_valid(value)


async def test_what_the_bus_carries_is_what_the_document_says_and_each_message_is_one_of_its() -> None:
    found = drawn({"s": [ThingAPI]})
    sent = await carried()
    assert [fitting(found, message.body) for message in sent] == [
        ["s.ThingAPI.grow"],
        ["s.ThingAPI.grow-reply"],
        ["s.ThingAPI.grow"],
        ["s.ThingAPI-failure"],
        ["s.ThingAPI.reply"],
        ["s.ThingAPI.reply-reply"],
        ["s.ThingAPI.failure"],
    ]
    for message in sent:
        exchange = None if message.exchange is None else message.exchange.name
        addresses = {
            (channel["bindings"]["amqp"].get("exchange", {}).get("name"), channel["address"])
            for channel in found["channels"].values()
        }
        if exchange is None:
            assert (None, None) in addresses  # the caller's own queue
        else:
            key = message.key.replace(".host1", ".{server}") or exchange
            assert (exchange, key) in addresses


def test_a_sign_of_life_is_a_message_of_its_own() -> None:
    assert fitting(drawn({"s": [ThingAPI]}), encode_reply(Reply("m", ending=False))) == ["oslo.sign_of_life"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method", "shrink"),
        ("namespace", None),
        ("args", {"thing": {"name": 5}}),
        ("args", {"thing": {"name": "a"}, "by": [1]}),
        ("args", {"thing": {"name": "a"}, "by": [1, "m", 2]}),
        ("args", {"thing": {"name": "a"}, "by": ["m", 1]}),
        ("args", {"thing": {"name": "a"}, "colour": 1}),
        ("args", {}),
        ("version", "newest"),
        ("_reply_q", None),
        ("_reply_q", "nova-api"),
    ],
)
async def test_what_no_server_takes_is_not_valid_by_the_document(key: str, value: Any) -> None:
    found = drawn({"s": [ThingAPI]})
    first = (await carried())[0]
    outer = json.loads(first.body)
    inner = json.loads(outer["oslo.message"]) | {key: value}
    assert fitting(found, json.dumps({**outer, "oslo.message": json.dumps(inner)}).encode()) == []
    assert fitting(found, json.dumps({**outer, "oslo.version": "3.0"}).encode()) == []
