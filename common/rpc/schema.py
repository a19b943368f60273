"""JSON Schemas of arguments and results: as msgspec writes them, typed, so that what is read from a file is checked as well.

msgspec gives a `datetime` no format, since one without a zone is no RFC 3339 date-time; here it has `MOMENT`, because a text that must
be a time is another type than any text.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType, inspect

MOMENT = "iso-8601-date-time"
"""Format of a datetime, with or without a zone."""
_COMPONENTS = "#/components/schemas/"


class Schema(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """One schema: the keywords that msgspec knows (JSON Schema 2020-12). None: the keyword is not there."""

    ref: str | None = msgspec.field(default=None, name="$ref")
    type: str | None = None
    enum: tuple[str | int | float | bool | None, ...] | None = None
    any_of: tuple["Schema", ...] | None = None
    properties: "dict[str, Schema] | None" = None
    required: tuple[str, ...] | None = None
    additional_properties: "Schema | bool | None" = None
    property_names: "Schema | None" = None
    min_properties: int | None = None
    max_properties: int | None = None
    items: "Schema | bool | None" = None
    prefix_items: tuple["Schema", ...] | None = None
    min_items: int | None = None
    max_items: int | None = None
    unique_items: bool | None = None
    minimum: float | int | None = None
    exclusive_minimum: float | int | None = None
    maximum: float | int | None = None
    exclusive_maximum: float | int | None = None
    multiple_of: float | int | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    format: str | None = None
    content_encoding: str | None = None
    discriminator: dict[str, Any] | None = None
    title: str | None = None
    description: str | None = None
    default: Any | UnsetType = UNSET
    examples: list[Any] | None = None
    deprecated: bool | None = None

    @property
    def component(self) -> str | None:
        """The name of the component that it refers to; None when it is no reference."""
        return self.ref.removeprefix(_COMPONENTS) if self.ref is not None else None

    def parts(self) -> "Iterator[Schema]":
        """The schemas directly inside it."""
        yield from self.any_of or ()
        yield from (self.properties or {}).values()
        yield from self.prefix_items or ()
        for part in (self.additional_properties, self.property_names, self.items):
            if isinstance(part, Schema):
                yield part

    def bare(self) -> "Schema":
        """Without what is only for readers: titles, descriptions, examples, defaults."""
        return msgspec.structs.replace(
            self,
            any_of=_bare_all(self.any_of),
            properties=None if self.properties is None else {name: part.bare() for name, part in self.properties.items()},
            additional_properties=_bare(self.additional_properties),
            property_names=None if self.property_names is None else self.property_names.bare(),
            items=_bare(self.items),
            prefix_items=_bare_all(self.prefix_items),
            title=None,
            description=None,
            default=UNSET,
            examples=None,
            deprecated=None,
        )


def _bare(part: Schema | bool | None) -> Schema | bool | None:
    return part.bare() if isinstance(part, Schema) else part


def _bare_all(parts: tuple[Schema, ...] | None) -> tuple[Schema, ...] | None:
    return None if parts is None else tuple(part.bare() for part in parts)


def schemas_of(types: Sequence[Any]) -> tuple[list[Schema], dict[str, Schema]]:
    """A schema for each of `types`, in their order, and the components that these refer to, by name.

    Raises TypeError for a type that has no JSON form, and msgspec.ValidationError when msgspec uses a keyword that `Schema` lacks.
    """
    infos = inspect.multi_type_info(types)
    classes: dict[Any, inspect.Type] = {}
    for info in infos:
        _gather(info, classes)
    found, components = msgspec.json.schema_components([*types, *classes], ref_template=_COMPONENTS + "{name}")
    for info, schema in zip(infos, found, strict=False):
        _mark(info, schema)
    for info, schema in zip(classes.values(), found[len(infos) :], strict=True):
        inside = components[schema["$ref"].removeprefix(_COMPONENTS)]
        for field in _fields(info):
            _mark(field.type, inside["properties"][field.encode_name] if "properties" in inside else {})
    return [msgspec.convert(schema, Schema) for schema in found[: len(infos)]], msgspec.convert(components, dict[str, Schema])


def _fields(info: inspect.Type) -> Sequence[inspect.Field]:
    if isinstance(info, inspect.StructType | inspect.TypedDictType | inspect.DataclassType | inspect.NamedTupleType):
        return info.fields
    return ()


def _gather(info: inspect.Type, classes: dict[Any, inspect.Type]) -> None:
    """Every class with fields that is reachable from `info`."""
    match info:
        case inspect.StructType() | inspect.TypedDictType() | inspect.DataclassType() | inspect.NamedTupleType():
            if info.cls not in classes:
                classes[info.cls] = info
                for field in info.fields:
                    _gather(field.type, classes)
        case _:
            for inner in _inside(info):
                _gather(inner, classes)


def _inside(info: inspect.Type) -> Sequence[inspect.Type]:
    match info:
        case inspect.Metadata():
            return (info.type,)
        case inspect.UnionType():
            return info.types
        case inspect.CollectionType():
            return (info.item_type,)
        case inspect.TupleType():
            return info.item_types
        case inspect.DictType():
            return (info.key_type, info.value_type)
        case _:
            return ()


def _mark(info: inspect.Type, schema: dict[str, Any]) -> None:
    """Give the datetimes in `schema`, which msgspec wrote for `info`, their format."""
    match info:
        case inspect.DateTimeType():
            schema.setdefault("format", MOMENT)
        case inspect.Metadata():
            _mark(info.type, schema)
        case inspect.UnionType():
            # A union has one type at most that JSON writes as text, so the text is the datetime.
            texts = [part for part in schema.get("anyOf", ()) if part.get("type") == "string"]
            for inner in info.types:
                for part in texts if isinstance(inner, inspect.DateTimeType) else ():
                    _mark(inner, part)
        case inspect.CollectionType():
            _mark(info.item_type, schema.get("items", {}))
        case inspect.TupleType():
            for inner, part in zip(info.item_types, schema.get("prefixItems", ()), strict=False):
                _mark(inner, part)
        case inspect.DictType():
            _mark(info.value_type, schema.get("additionalProperties", {}))
