"""Versioned objects: the envelopes in which nova and cinder send their rows (oslo.versionedobjects 3.12, `VersionedObject.obj_to_primitive`).

    NOVA = ObjectNamespace("nova_object", "nova")

    @NOVA.versioned_object("1.21", list_version="1.18")
    class BlockDeviceMapping(msgspec.Struct, frozen=True, kw_only=True): ...

crosses the bus as

    {"nova_object.name": "BlockDeviceMapping", "nova_object.namespace": "nova", "nova_object.version": "1.21",
     "nova_object.data": {...}}

wherever a contract declares it: alone, in a list, inside another struct. `common.wire.plan` finds those places; here is the form. A
field that has another name there is `msgspec.field(name=...)`; every name below is the one on the wire.

Receiving: the same name, namespace and major version, whatever the minor. An object's minor versions only ever add to it, so an older
one leaves fields at the struct's defaults, and of a newer one what we know is taken: the fields that nova would ask its conductor to
strip are the ones that a struct does not look at. A plain object without an envelope is taken too.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

_FORM = "__versioned_object__"
_SHOWN_MAX = 60


class WrongValue(ValueError):
    """A value does not have the declared type."""


class Misfit(Exception):  # becomes a WrongValue, with its place, before anyone sees it
    """An envelope does not hold the declared object. `place` grows on the way out: `.volume_attachment[0]`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.place = ""


@dataclass(frozen=True, slots=True)
class ObjectForm:
    """Name, namespace, version and prefix of one kind of object, and where its fields differ from the struct's.

    list_version   version of the object `<name>List`, as which a list of these is sent; None: a list of envelopes
    extensions     fields that the other side does not know and skips (`_obj_from_primitive` goes by its own fields): sent when set
    inner          fields that are an object there and one of its attributes here
    """

    name: str
    namespace: str
    version: str
    prefix: str
    list_version: str | None = None
    extensions: frozenset[str] = frozenset()
    inner: Mapping[str, "InnerObject"] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.namespace}'s {self.name} {self.version}"

    def of_lists(self) -> "ObjectForm | None":
        """The form of a list of these; None when they have none."""
        if self.list_version is None:
            return None
        return ObjectForm(f"{self.name}List", self.namespace, self.list_version, self.prefix)

    def wrap(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The envelope around an object's primitives. Without `changes`: nothing is for the receiver to save."""
        prefix = self.prefix
        return {
            f"{prefix}.name": self.name,
            f"{prefix}.namespace": self.namespace,
            f"{prefix}.version": self.version,
            f"{prefix}.data": data,
        }

    def unwrap(self, value: Mapping[Any, Any]) -> dict[Any, Any] | None:
        """A copy of the data in an envelope of this form; None when `value` is no envelope. Raises Misfit for another object."""
        prefix = self.prefix
        if f"{prefix}.name" not in value and not _is_envelope(value):
            return None
        found = [value.get(f"{prefix}.{key}") for key in ("name", "namespace", "version")]
        if found[:2] != [self.name, self.namespace] or _major(found[2]) != _major(self.version):
            raise Misfit(f"Expected {self}, got {_described(value)}")
        data, changes = value.get(f"{prefix}.data"), value.get(f"{prefix}.changes", [])
        if not isinstance(data, dict):
            raise Misfit(f"Expected `object` in `{prefix}.data` of {self.name}, got {_shown(data)}")
        if not isinstance(changes, list) or not all(isinstance(name, str) for name in changes):
            raise Misfit(f"Expected names in `{prefix}.changes` of {self.name}, got {_shown(changes)}")
        return dict(data)


@dataclass(frozen=True, slots=True)
class InnerObject:
    """A field that is an object on the wire and a plain value in the struct.

    attribute   the attribute of that object which is the struct's value
    copied      the struct's other fields that the object carries as well, under the same names
    """

    form: ObjectForm
    attribute: str
    copied: tuple[str, ...] = ()

    def pack(self, value: Any, whole: Mapping[str, Any]) -> dict[str, Any] | None:
        """The object for a struct's `value`; None for None."""
        if value is None:
            return None
        return self.form.wrap({self.attribute: value, **{name: whole[name] for name in self.copied if name in whole}})

    def unpack(self, value: Any) -> Any:
        """The struct's value; a value without an object around it is itself. Raises Misfit."""
        if not isinstance(value, dict):
            return value
        data = self.form.unwrap(value)
        return value if data is None else data.get(self.attribute)


@dataclass(frozen=True, slots=True)
class ObjectNamespace:
    """One project's objects: OBJ_SERIAL_NAMESPACE, the prefix of the keys, and OBJ_PROJECT_NAMESPACE."""

    prefix: str
    namespace: str

    def versioned_object(
        self, version: str, *, list_version: str | None = None, extensions: Iterable[str] = (),
        inner: Mapping[str, InnerObject] | None = None,
    ) -> Callable[[type[S]], type[S]]:  # fmt: skip
        """Declares a struct to be this project's object of the struct's name. Raises TypeError for a name that is no field."""
        form = ObjectForm("", self.namespace, version, self.prefix, list_version, frozenset(extensions), dict(inner or {}))

        def declared(cls: type[S]) -> type[S]:
            unknown = (form.extensions | form.inner.keys()) - set(cls.__struct_encode_fields__)
            if unknown:
                raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
            if cls.__struct_config__.array_like:
                raise TypeError(f"{cls.__name__} is array_like: the data of a versioned object has names")
            setattr(cls, _FORM, replace(form, name=cls.__name__))
            return cls

        return declared

    def inner(self, name: str, version: str, *, attribute: str, copied: Iterable[str] = ()) -> InnerObject:
        """A field that is this project's object `name` there and its `attribute` here."""
        return InnerObject(ObjectForm(name, self.namespace, version, self.prefix), attribute, tuple(copied))


def form_of(cls: type) -> ObjectForm | None:
    """What a class is declared to be; a subclass is not what its base is."""
    found: ObjectForm | None = vars(cls).get(_FORM)
    return found


def _is_envelope(value: Mapping[Any, Any]) -> bool:
    """Of any project: an object of cinder's where one of nova's belongs shall be named, not searched for nova's fields."""
    return any(isinstance(key, str) and key.endswith(("object.name", "object.data")) for key in value)


def _described(value: Mapping[Any, Any]) -> str:
    parts = {key.rpartition(".")[2]: found for key, found in value.items() if isinstance(key, str)}
    return f"{_shown(parts.get('namespace'))}'s {_shown(parts.get('name'))} {_shown(parts.get('version'))}"


def _shown(value: Any) -> str:
    return value[:_SHOWN_MAX] if isinstance(value, str) else "null" if value is None else f"`{type(value).__name__}`"


def _major(version: Any) -> int | None:
    """Of M.m or, as distributions ship, M.m.z; None for what is no version."""
    numbers = version.split(".") if isinstance(version, str) and len(version) < _SHOWN_MAX else []
    if len(numbers) not in {2, 3} or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    return int(numbers[0])
