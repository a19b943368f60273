"""Frozen dataclasses that are cheap to make: one or more for each message.

A frozen dataclass sets its fields one by one through `object.__setattr__`, which for ten fields is 2 microseconds: as much as half a
dozen function calls. This one sets them plainly while the object is still of a class that lets it, and then makes it what it is.
"""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

T = TypeVar("T")


def cheap(cls: type[T]) -> type[T]:
    """Above `@dataclass(frozen=True, slots=True)`: the same class with the same signature, made in less than half of the time.

    Raises TypeError for a class that is something else, or has a `__post_init__`.
    """
    slots = getattr(cls, "__slots__", None)
    if slots is None or not hasattr(cls, "__dataclass_fields__") or hasattr(cls, "__post_init__"):
        raise TypeError(f"{cls.__name__} is no frozen dataclass with slots, or has a __post_init__")
    open_twin = type(cls.__name__, cls.__bases__, {"__slots__": slots})
    arguments, body = [], []
    names: dict[str, Any] = {"open_twin": open_twin, "set_class": object.__setattr__, "MISSING": MISSING}
    for each in fields(cls):  # type: ignore[arg-type]  # asked above
        name = each.name
        names[f"default_{name}"] = each.default
        if each.default_factory is not MISSING:
            names[f"make_{name}"] = each.default_factory
            arguments.append(f"{name}=MISSING")
            body.append(f" self.{name} = make_{name}() if {name} is MISSING else {name}")
        else:
            arguments.append(name if each.default is MISSING else f"{name}=default_{name}")
            body.append(f" self.{name} = {name}")
    text = (
        f"def __init__(self, {', '.join(arguments)}):\n kind = type(self)\n set_class(self, '__class__', open_twin)\n"
        + "\n".join(body)
        + "\n self.__class__ = kind\n"
    )
    exec(text, names)  # noqa: S102 - our own words and the names of fields, as dataclasses does it
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    cls.__init__ = made  # type: ignore[method-assign]
    return cls
