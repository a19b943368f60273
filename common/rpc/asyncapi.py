"""An AsyncAPI 3.0.0 document of contracts, as their servers see them: requests are received, replies are sent.

A message's payload is what the bus carries, oslo.messaging's envelope (oslo-wire 3): an object whose `oslo.message` is JSON as text.
What stands in that text is said by `contentSchema`, a keyword of JSON Schema 2019-09 that readers of draft 7 pass over. Names that begin
with `x-` are AsyncAPI's way to say what it has no word for. Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from common.rpc.contract import Kind, Route
from common.rpc.options import RpcOptions
from common.rpc.schema import Schema
from common.rpc.snapshot import ContractShape, MethodShape, Snapshot
from common.rpc.topology import destination, new_reply_queue, server_queues
from common.transport.port import Queue
from common.wire.envelope import VERSION as ENVELOPE_VERSION

_AMQP = {"bindingVersion": "0.3.0"}
_SERVER = "{server}"
_REPLIES = "replies"
_SIGN_OF_LIFE = "oslo.sign_of_life"
_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"
_VERSION = {"type": "string", "pattern": r"^\d+\.\d+(\.\d+)?$"}
_NULL = {"type": "null"}
_ABOUT = """Remote procedure calls in the wire format of oslo.messaging. Exchanges are those that the contracts name; an operator \
may set others by `control_exchange`.

A request goes to any server of a topic (routing key `topic`), to one (`topic.server`), or, a cast only, to all of them (the fanout \
exchange). A call names the queue of its caller in `_reply_q`; the answer goes there through the default exchange and carries the \
call's `_msg_id`. A server takes every minor version up to its own, and refuses arguments that it does not know."""


@dataclass(frozen=True, slots=True)
class Server:
    """A bus. `variables`: name -> (default, meaning) of what stands in braces in the other fields."""

    host: str
    protocol: str
    pathname: str = ""
    description: str = ""
    variables: Mapping[str, tuple[str, str]] | None = None


def document(snapshot: Snapshot, servers: Mapping[str, Server], *, options: RpcOptions, title: str, version: str) -> dict[str, Any]:
    """The document, ready for a JSON writer. `options` give the control exchange of contracts without one, and the queues' kind."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas = {name: _schema(schema) for name, schema in snapshot.components.schemas.items()} | _common_schemas()
    for name, contract in snapshot.contracts.items():
        places = _places(contract, options)
        for place in places:
            channels.setdefault(place.key, place.channel)
        for method_name, method in contract.methods.items():
            full = f"{name}.{method_name}"
            messages.update(_messages(full, name, contract, method_name, method))
            schemas.update(_message_schemas(full, contract, method_name, method))
            for place in places:
                if method.kind is Kind.CAST or place.suffix != "fanout":
                    channels[place.key]["messages"][full] = {"$ref": _MESSAGES + full}
                    operations["-".join(filter(None, (full, place.suffix)))] = _operation(full, name, method, place)
        if any(method.kind is Kind.CALL for method in contract.methods.values()):
            messages[f"{name}-failure"] = _failure(name, contract, snapshot)
    messages[_SIGN_OF_LIFE] = _answer(_SIGN_OF_LIFE, "the server is still at it; sent while a call with `_timeout` runs")
    channels[_REPLIES] = _reply_channel([name for name in messages if name.endswith(("-reply", "-failure"))] + [_SIGN_OF_LIFE])
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version, "description": _ABOUT},
        "defaultContentType": "application/json",
        "servers": {name: _server(server) for name, server in servers.items()},
        "channels": {key: channel for key, channel in channels.items() if channel["messages"]},
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _server(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = {"host": server.host, "protocol": server.protocol}
    if server.protocol in {"amqp", "amqps"}:
        found["protocolVersion"] = "0-9-1"
    if server.pathname:
        found["pathname"] = server.pathname
    if server.description:
        found["description"] = server.description
    if server.variables:
        found["variables"] = {name: {"default": default, "description": text} for name, (default, text) in server.variables.items()}
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """Where requests of a contract can be sent. `suffix` ends the names of its operations, after a dash, which no method's name has."""

    key: str
    suffix: str
    channel: dict[str, Any]


def _places(contract: ContractShape, options: RpcOptions) -> tuple[_Place, ...]:
    route = Route(topic=contract.topic, version=contract.version, exchange=contract.exchange)
    queues = server_queues(options, exchange=contract.exchange, topic=contract.topic, server=_SERVER)
    exchange, _ = destination(options, route)
    base = f"{exchange.name}.{contract.topic}"
    described = (
        ("", route, "Any server of the topic; servers take turns."),
        ("server", replace(route, server=_SERVER), "One server, by its name."),
        ("fanout", replace(route, fanout=True), "Every server of the topic: casts only."),
    )
    return tuple(
        _place(base, suffix, route=where, options=options, queue=queue, description=text)
        for (suffix, where, text), queue in zip(described, queues, strict=True)
    )


def _place(base: str, suffix: str, *, route: Route, options: RpcOptions, queue: Queue, description: str) -> _Place:
    exchange, key = destination(options, route)
    name = f"{exchange.name}_{{hex}}" if route.fanout else queue.name
    channel: dict[str, Any] = {
        "address": exchange.name if route.fanout else key,
        "title": str(route),
        "description": description + (" A fanout exchange looks at no routing key; ours is empty." if route.fanout else ""),
        "messages": {},
        "bindings": {"amqp": {
            "is": "routingKey",
            "exchange": {
                "name": exchange.name, "type": exchange.kind, "durable": exchange.durable, "autoDelete": exchange.auto_delete,
            },
            **_AMQP,
        }},
        "x-queue": _queue(queue, name),
    }  # fmt: skip
    if route.server:
        channel["parameters"] = {"server": {"description": "The server's host, for a cinder backend host@backend."}}
    return _Place(".".join(filter(None, (base, suffix))), suffix, channel)


def _queue(queue: Queue, name: str) -> dict[str, Any]:
    found = {"name": name, "durable": queue.durable, "exclusive": queue.exclusive, "autoDelete": queue.auto_delete}
    return {**found, "arguments": dict(queue.arguments)} if queue.arguments else found


def _reply_channel(names: list[str]) -> dict[str, Any]:
    queue = _queue(new_reply_queue(), "reply_{hex}")
    arguments = queue.pop("arguments")
    return {
        "address": None,
        "title": "replies",
        "description": "A caller's own queue, in the default exchange. Its name is in the request: `_reply_q`.",
        "messages": {name: {"$ref": _MESSAGES + name} for name in names},
        "bindings": {"amqp": {"is": "queue", "queue": queue, **_AMQP}},
        "x-queue-arguments": arguments,
    }


def _operation(full: str, name: str, method: MethodShape, place: _Place) -> dict[str, Any]:
    amqp: dict[str, Any] = {"deliveryMode": 2, "mandatory": True, "ack": True, **_AMQP}
    if method.kind is Kind.CALL and method.timeout_s is not None:
        amqp["expiration"] = int(method.timeout_s * 1000)
    channel = f"#/channels/{place.key}"
    found: dict[str, Any] = {
        "action": "receive",
        "channel": {"$ref": channel},
        "title": full,
        "tags": [{"name": name}, {"name": method.kind}],
        "messages": [{"$ref": f"{channel}/messages/{full}"}],
        "bindings": {"amqp": amqp},
        "x-since": method.version,
        "x-once": method.once,
        "x-ack": method.ack,
    }
    if method.raises:
        found["x-raises"] = list(method.raises)
    if method.doc:
        found["description"] = method.doc
    if method.kind is Kind.CALL:
        found["reply"] = {
            "address": {
                "location": "$message.payload#/oslo.message",
                "description": "The member `_reply_q` of the JSON in this text.",
            },
            "channel": {"$ref": f"#/channels/{_REPLIES}"},
            "messages": [
                {"$ref": f"#/channels/{_REPLIES}/messages/{part}"} for part in (f"{full}-reply", f"{name}-failure", _SIGN_OF_LIFE)
            ],
        }
    return found


def _messages(
    full: str, name: str, contract: ContractShape, method_name: str, method: MethodShape
) -> Iterator[tuple[str, dict[str, Any]]]:
    request = {
        "name": full,
        "title": f"{method.kind} {method_name}",
        "payload": _payload(full),
        "bindings": {"amqp": {"contentEncoding": "utf-8", **_AMQP}},
        "x-contract": {"name": name, "topic": contract.topic, "namespace": contract.namespace, "version": contract.version},
        "x-since": method.version,
    }
    if method.kind is Kind.CALL:
        request["correlationId"] = _correlation()
        yield f"{full}-reply", _answer(f"{full}-reply", f"result of {method_name}")
    yield full, request


def _failure(name: str, contract: ContractShape, snapshot: Snapshot) -> dict[str, Any]:
    errors = {error: msgspec.to_builtins(snapshot.errors[error]) for error in contract.errors}
    return {**_answer("oslo.failure", f"error of {name}"), "name": f"{name}-failure", "x-errors": errors}


def _answer(schema: str, title: str) -> dict[str, Any]:
    return {
        "name": schema,
        "title": title,
        "payload": _payload(schema),
        "correlationId": _correlation(),
        "bindings": {"amqp": {"contentEncoding": "utf-8", **_AMQP}},
    }


def _correlation() -> dict[str, Any]:
    return {"location": "$message.payload#/oslo.message", "description": "The member `_msg_id` of the JSON in this text."}


def _payload(schema: str) -> dict[str, Any]:
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"$ref": _SCHEMAS + schema}}
    return {"allOf": [{"$ref": f"{_SCHEMAS}oslo.envelope"}], "properties": {"oslo.message": text}}


def _message_schemas(
    full: str, contract: ContractShape, method_name: str, method: MethodShape
) -> Iterator[tuple[str, dict[str, Any]]]:
    arguments = {
        "type": "object",
        "properties": {name: _schema(schema) for name, schema in method.arguments.items()},
        "required": list(method.required),
        "additionalProperties": False,
    }
    yield (
        full,
        {
            "allOf": [{"$ref": f"{_SCHEMAS}oslo.{method.kind}"}],
            "type": "object",
            "required": ["method", "args"] + (["namespace"] if contract.namespace else []),
            "properties": {
                "method": {"type": "string", "const": method_name},
                "namespace": {"enum": [contract.namespace, *contract.legacy_namespaces]},
                "version": {**_VERSION, "description": f"{method.version} as we send it; a server takes up to {contract.version}"},
                "args": arguments,
            },
        },
    )
    if method.kind is Kind.CALL:
        yield (
            f"{full}-reply",
            {
                "allOf": [{"$ref": f"{_SCHEMAS}oslo.reply"}],
                "type": "object",
                "required": ["result", "failure"],
                "properties": {"failure": _NULL, "result": _schema(method.result)},
            },
        )


def _common_schemas() -> dict[str, Any]:
    """What all messages share. Keys and their absence: `common.wire.messages`, `common.wire.failure`."""
    text, anything = {"type": "string", "minLength": 1}, dict[str, Any]()
    seconds = {"type": ["number", "null"]}
    request = {
        "method": text,
        "args": {"type": "object"},
        "namespace": {"type": ["string", "null"]},
        "version": {**_VERSION, "default": "1.0"},
        "_unique_id": {**text, "description": "New for every message; a repeated one is a duplicate."},
    }
    call = {
        "_msg_id": {**text, "description": "What the reply must carry."},
        "_reply_q": {**text, "pattern": "^reply_", "description": "The queue of the reply."},
        "_timeout": {**seconds, "description": "oslo.messaging's call_monitor_timeout, in seconds."},
        "_deadline": {**seconds, "description": "Our extension: seconds that the caller still waits."},
    }
    context = {"^_context_": {"description": "The request context, a member for each key of oslo.context's to_dict."}}
    failure = {name: {"type": "string"} for name in ("class", "module", "message")}
    return {
        "oslo.envelope": _object({
            "oslo.version": {"type": "string", "const": ENVELOPE_VERSION},
            "oslo.message": {"type": "string", "contentMediaType": "application/json"},
        }, "oslo.version", "oslo.message"),
        "oslo.cast": {**_object(request, "method"), "patternProperties": context},
        "oslo.call": {**_object(request | call, "method", "_msg_id", "_reply_q"), "patternProperties": context},
        "oslo.reply": _object({
            "result": anything,
            "failure": {"type": ["string", "null"]},
            "ending": {"type": "boolean", "const": True},
            "_msg_id": text,
            "_unique_id": text,
        }, "result", "failure", "ending", "_msg_id"),
        _SIGN_OF_LIFE: _object({
            "result": _NULL, "failure": _NULL, "ending": {"type": "boolean", "const": False}, "_msg_id": text,
        }, "ending", "_msg_id"),
        "oslo.failure": {
            "allOf": [{"$ref": f"{_SCHEMAS}oslo.reply"}],
            "type": "object",
            "properties": {
                "result": _NULL,
                "failure": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": _object({
                        **failure,
                        "tb": {"type": "array", "items": {"type": "string"}},
                        "args": {"type": "array"},
                        "kwargs": {"type": "object"},
                    }, *failure),
                },
            },
        },
    }  # fmt: skip


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _schema(schema: Schema) -> dict[str, Any]:
    """A schema in AsyncAPI's words, which are those of JSON Schema draft 7: `prefixItems` was `items` there."""
    found: dict[str, Any] = msgspec.to_builtins(schema)
    return _drafted(found)


def _drafted(found: dict[str, Any]) -> dict[str, Any]:
    found.pop("discriminator", None)  # msgspec's is OpenAPI's object, AsyncAPI's is a name; `anyOf` says the same
    for name in ("anyOf", "prefixItems"):
        if name in found:
            found[name] = [_drafted(part) for part in found[name]]
    for name in ("items", "additionalProperties", "propertyNames"):
        if isinstance(found.get(name), dict):
            found[name] = _drafted(found[name])
    if "properties" in found:
        found["properties"] = {name: _drafted(part) for name, part in found["properties"].items()}
    if "prefixItems" in found:
        found["additionalItems"] = found.pop("items", True)
        found["items"] = found.pop("prefixItems")
    return found
