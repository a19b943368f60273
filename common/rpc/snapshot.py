"""All contracts of one day as data: what the wire shows of them, to be kept in a file and compared with those of another day.

The kept form is JSON of its own and not the AsyncAPI document: it holds what decides whether two versions understand each other and
nothing else, so a comment or a newer AsyncAPI changes no byte of it, and a diff of it is a diff of the contracts. The AsyncAPI document
is drawn from the same object (`common.rpc.asyncapi`).
"""

import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import msgspec

from common.base.errors import Broken, Fault, Invalid
from common.base.version import parse_version
from common.rpc.contract import Ack, Contract, Kind, Method, methods_of
from common.rpc.schema import Schema, schemas_of

FORMAT = "lite-contracts/1"
SIZE_MAX = 16 * 2**20
"""Bytes of a kept document; that of two services has 40 KiB."""
_DEPTH_MAX = 64


class NotASnapshot(Invalid):
    """{name} is no document of `lite contract dump`: {reason}"""


class NotDescribable(Broken):
    """The contracts cannot be described: {reason}"""


class ErrorShape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """An error as a caller sees it. `message` is the template that its fields fill."""

    code: int
    retryable: bool = False
    message: str = ""


class MethodShape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A method. `version` is what its messages ask for; `arguments` by name, those of `required` have no default.

    `once`, `ack`, `monitor_s`: as in `Method`; `raises`: <module>.<class> of the exceptions that are not faults.
    """

    kind: Kind
    version: str
    arguments: dict[str, Schema]
    required: tuple[str, ...]
    result: Schema
    timeout_s: float | None = None
    monitor_s: float | None = None
    once: bool = False
    ack: Ack = Ack.LATE
    raises: tuple[str, ...] = ()
    doc: str = ""


class ContractShape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A contract. `exchange` None: the control exchange of the process; `errors`: identities of those that its module declares."""

    topic: str
    version: str
    methods: dict[str, MethodShape]
    exchange: str | None = None
    namespace: str | None = None
    legacy_namespaces: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    doc: str = ""


class Components(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Types that schemas refer to, at the place where AsyncAPI has them too: #/components/schemas/<name>."""

    schemas: dict[str, Schema]


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Contracts by <service>.<class>, errors by <module>.<class>."""

    format: str = FORMAT
    contracts: dict[str, ContractShape]
    errors: dict[str, ErrorShape]
    components: Components


def take(services: Mapping[str, Sequence[type[Contract]]]) -> Snapshot:
    """The contracts of these services, with every docstring. Raises NotDescribable."""
    contracts = {f"{name}.{contract.__name__}": contract for name, owned in sorted(services.items()) for contract in owned}
    try:
        methods = {name: list(methods_of(contract).values()) for name, contract in contracts.items()}
        wanted = [kind for found in methods.values() for method in found for kind in (*method.parameters.values(), _result(method))]
        schemas, components = schemas_of(wanted)
    except (TypeError, msgspec.ValidationError) as exc:
        raise NotDescribable(reason=str(exc)) from exc
    given = iter(schemas)
    errors = {name: declared_errors(contract) for name, contract in contracts.items()}
    return Snapshot(
        contracts={name: _contract(contracts[name], methods[name], errors[name], given) for name in contracts},
        errors={_identity(fault): _error(fault) for found in errors.values() for fault in found},
        components=Components(components),
    )


def declared_errors(contract: type[Contract]) -> list[type[Fault]]:
    """The errors that belong to a contract: those in its module's namespace, and in a module `errors` that it re-exports."""
    module = sys.modules[contract.__module__]
    names = dict(vars(module))
    if isinstance(errors := names.get("errors"), ModuleType):
        names.update({name: value for name, value in vars(errors).items() if getattr(value, "__module__", "") == errors.__name__})
    found = {value for name, value in names.items() if not name.startswith("_") and _is_fault(value)}
    return sorted(found, key=_identity)


def _is_fault(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Fault)


def _identity(fault: type[Fault]) -> str:
    return ".".join(fault.identity())


def _error(fault: type[Fault]) -> ErrorShape:
    return ErrorShape(code=fault.code, retryable=fault.retryable, message=_doc(fault).split("\n\n", maxsplit=1)[0])


def _result(method: Method) -> Any:
    return type(None) if method.result is None else method.result


def _contract(
    contract: type[Contract], methods: Sequence[Method], errors: Sequence[type[Fault]], given: Iterator[Schema]
) -> ContractShape:
    route = contract.__rpc_route__
    return ContractShape(
        topic=route.topic,
        version=route.version,
        exchange=route.exchange,
        namespace=route.namespace,
        legacy_namespaces=route.legacy_namespaces,
        methods={method.name: _method(contract, method, given) for method in methods},
        errors=tuple(_identity(fault) for fault in errors),
        doc=_doc(contract),
    )


def _method(contract: type[Contract], method: Method, given: Iterator[Schema]) -> MethodShape:
    arguments = {name: next(given) for name in method.parameters}
    return MethodShape(
        kind=method.kind,
        version=method.version,
        arguments=arguments,
        required=tuple(name for name in method.parameters if name not in method.optional),
        result=next(given),
        timeout_s=method.timeout_s,
        monitor_s=method.monitor_s,
        once=method.once,
        ack=method.ack,
        raises=tuple(f"{error.__module__}.{error.__name__}" for error in method.raises),
        doc=_doc(getattr(contract, method.name)),
    )


def _doc(thing: object) -> str:
    return inspect.cleandoc(getattr(thing, "__doc__", None) or "")


def dump(snapshot: Snapshot) -> str:
    """The document to keep: keys in order, no words that are only for readers."""
    bare = msgspec.structs.replace(
        snapshot,
        contracts={name: _bare_contract(contract) for name, contract in snapshot.contracts.items()},
        errors={name: msgspec.structs.replace(error, message="") for name, error in snapshot.errors.items()},
        components=Components({name: schema.bare() for name, schema in snapshot.components.schemas.items()}),
    )
    return json.dumps(msgspec.to_builtins(bare), indent=1, sort_keys=True) + "\n"


def _bare_contract(contract: ContractShape) -> ContractShape:
    return msgspec.structs.replace(
        contract, doc="", methods={name: _bare_method(method) for name, method in contract.methods.items()}
    )


def _bare_method(method: MethodShape) -> MethodShape:
    arguments = {name: schema.bare() for name, schema in method.arguments.items()}
    return msgspec.structs.replace(method, doc="", arguments=arguments, result=method.result.bare())


def read(data: bytes, *, name: str) -> Snapshot:
    """The snapshot in a kept document. Raises NotASnapshot, which calls it `name`."""
    if len(data) > SIZE_MAX:
        raise NotASnapshot(name=name, reason=f"it is larger than {SIZE_MAX} bytes")
    try:
        found = msgspec.json.decode(data)
        _check_format(found)
        snapshot = msgspec.convert(found, Snapshot)
        _check(snapshot)
    except (ValueError, RecursionError) as exc:
        raise NotASnapshot(name=name, reason=str(exc)) from exc
    return snapshot


def _check_format(found: Any) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"it holds a JSON {type(found).__name__}; wanted: an object")  # noqa: TRY004  # of the text, not of a caller
    if "asyncapi" in found:
        raise ValueError("it is an AsyncAPI document, which is for readers; keep what `lite contract dump` prints")
    if found.get("format") != FORMAT:
        raise ValueError(f"its format is {str(found.get('format', 'not given'))[:40]}; wanted: {FORMAT}")


def _check(snapshot: Snapshot) -> None:
    """Raises ValueError for what the types do not say."""
    for place, schema in _schemas(snapshot):
        _check_schema(schema, snapshot.components.schemas, place)
    for name, contract in snapshot.contracts.items():
        for version in (contract.version, *(method.version for method in contract.methods.values())):
            try:
                parse_version(version)
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from None
        for method_name, method in contract.methods.items():
            if unknown := set(method.required) - method.arguments.keys():
                raise ValueError(f"{name}.{method_name}: {', '.join(sorted(unknown))} is required and no argument")
        if strangers := set(contract.errors) - snapshot.errors.keys():
            raise ValueError(f"{name}: nothing is said of its error {min(strangers)}")


def _schemas(snapshot: Snapshot) -> Iterator[tuple[str, Schema]]:
    yield from snapshot.components.schemas.items()
    for name, contract in snapshot.contracts.items():
        for method_name, method in contract.methods.items():
            for schema in (*method.arguments.values(), method.result):
                yield f"{name}.{method_name}", schema


def _check_schema(schema: Schema, components: Mapping[str, Schema], place: str, depth: int = 0) -> None:
    if depth > _DEPTH_MAX:
        raise ValueError(f"{place}: a type is nested deeper than {_DEPTH_MAX} levels")
    if schema.component is not None and schema.component not in components:
        raise ValueError(f"{place}: it refers to {schema.component[:80]}, which is not among the components")
    if schema.component is not None and components[schema.component].ref is not None:
        raise ValueError(f"{place}: {schema.component[:80]} refers only to another component")
    for part in schema.parts():
        _check_schema(part, components, place, depth + 1)
