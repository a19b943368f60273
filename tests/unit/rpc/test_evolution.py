"""What a change of a contract breaks: as `changes` says it, and as clients and servers of both days have it on a bus."""

from enum import StrEnum
from typing import Any, Protocol

import msgspec
import pytest

from common.base.context import Context
from common.base.errors import Conflict, Fault, NotFound
from common.host.clock import SystemClock
from common.rpc import snapshot
from common.rpc.contract import Ack, Contract, call, cast, methods_of
from common.rpc.evolution import Breaks, changes
from common.rpc.options import RpcOptions
from common.rpc.session import Serving, client, serving
from common.transport.memory import MemoryBus, MemoryTransport

CLOCK = SystemClock()
OLD, NEW, BOTH, NOBODY = Breaks.OLD_CLIENT, Breaks.NEW_CLIENT, Breaks.BOTH, Breaks.NOBODY


class Thing(msgspec.Struct, kw_only=True):
    name: str
    size: int = 1


class HeavyThing(msgspec.Struct, kw_only=True):
    name: str
    size: int = 1
    weight: int = 0


class NewThing(msgspec.Struct, kw_only=True):
    name: str
    weight: int
    size: int = 1


class Color(StrEnum):
    RED = "red"


class MoreColors(StrEnum):
    RED = "red"
    GREEN = "green"


class Base(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class MethodGone(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...


class ArgumentGone(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ArgumentRenamed(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, title: str, by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ArgumentRequired(Contract, Protocol, topic="things", version="1.2"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, color: str, by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class DefaultGone(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ArgumentAdded(Contract, Protocol, topic="things", version="1.2"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1, color: str = "") -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ArgumentAddedInSilence(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1, color: str = "") -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class DefaultGiven(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str = "n", by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class DefaultGivenOpenly(Contract, Protocol, topic="things", version="1.2"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str = "n", by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ArgumentNarrower(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: Color, by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ArgumentWider(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str | None, by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ArgumentWiderOpenly(Contract, Protocol, topic="things", version="1.2"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str | None, by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ResultWider(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing | None: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ResultOther(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> dict[str, str]: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ResultField(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> HeavyThing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class ResultFieldRequired(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> NewThing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Cast(Contract, Protocol, topic="things", version="1.1"):
    @cast(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> None: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Call(Contract, Protocol, topic="things", version="1.1"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...

    @call(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> str: ...


class Lowered(Contract, Protocol, topic="things", version="1.0"):
    @call(since="1.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...

    @cast(since="1.0")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Major(Contract, Protocol, topic="things", version="2.0"):
    @call(since="2.0")
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...

    @cast(since="2.0")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class Raised(Contract, Protocol, topic="things", version="1.2"):
    """Its version is raised, and the version that the requests of `grow` ask for is raised with it in silence."""

    @call()
    async def grow(self, ctx: Context, *, name: str, by: int = 1) -> Thing: ...

    @cast(since="1.1")
    async def note(self, ctx: Context, *, word: str) -> None: ...


class MethodAdded(Base, Protocol, topic="things", version="1.2"):
    @call(since="1.2")
    async def shrink(self, ctx: Context, *, name: str) -> Thing: ...


class MethodAddedInSilence(Base, Protocol, topic="things", version="1.1"):
    @call()
    async def shrink(self, ctx: Context, *, name: str) -> Thing: ...


class MethodAddedUnmarked(Base, Protocol, topic="things", version="1.2"):
    @call(since="1.0")
    async def shrink(self, ctx: Context, *, name: str) -> Thing: ...


class OtherTopic(Base, Protocol, topic="objects", version="1.1"): ...


class OtherExchange(Base, Protocol, topic="things", version="1.1", exchange="ex"): ...


class OtherNamespace(Base, Protocol, topic="things", version="1.1", namespace="ns"): ...


def took(*contracts: Any) -> snapshot.Snapshot:
    """mypy takes no protocol for a `type[Contract]`; a service's wiring names them in the same way."""
    return snapshot.take({"s": contracts})


def taken(contract: Any) -> snapshot.Snapshot:
    """As of the same service and class name, and once through the file."""
    found = took(contract)
    (shape,) = found.contracts.values()
    return snapshot.read(snapshot.dump(msgspec.structs.replace(found, contracts={"s.Base": shape})).encode(), name="kept")


def compared(old: Any, new: Any) -> list[tuple[Breaks, str, tuple[str, ...]]]:
    return [(change.breaks, change.what, change.places) for change in changes(taken(old), taken(new))]


GROW, NOTE = "s.Base.grow", "s.Base.note"

BREAKING: list[tuple[Any, list[tuple[Breaks, str, str]]]] = [
    (MethodGone, [(OLD, NOTE, "the method is gone")]),
    (ArgumentGone, [(OLD, f"{GROW}(by)", "the argument is gone or has another name")]),
    (
        ArgumentRenamed,
        [
            (OLD, f"{GROW}(name)", "gone or has another name"),
            (NEW, f"{GROW}(name)", "no longer sent, and old servers want it"),
            (BOTH, f"{GROW}(title)", "new and has no default"),
        ],
    ),
    (ArgumentRequired, [(BOTH, f"{GROW}(color)", "new and has no default")]),
    (DefaultGone, [(OLD, f"{GROW}(by)", "had a default and has none")]),
    (DefaultGiven, [(NEW, f"{GROW}(name)", "has a default now, and old servers want it; raise")]),
    (ArgumentAddedInSilence, [(NEW, f"{GROW}(color)", "raise the contract's version")]),
    (ArgumentNarrower, [(OLD, f"{GROW}(name)", "narrower: name: string may come, and 'red' is wanted")]),
    (ArgumentWider, [(NEW, f"{GROW}(name)", "wider: name: null may come, and string is wanted; raise")]),
    (ResultWider, [(OLD, f"{GROW} -> result", "wider: result: null may come, and Thing is wanted")]),
    (
        ResultOther,
        [
            (OLD, f"{GROW} -> result", "wider: result.name: it is not always sent"),
            (OLD, f"{GROW} -> result", "wider: result.size: string may come, and integer is wanted"),
            (NEW, f"{GROW} -> result", "narrower: result.size: integer may come"),
        ],
    ),
    (ResultFieldRequired, [(NEW, f"{GROW} -> result", "NewThing.weight: it is not always sent")]),
    (Cast, [(OLD, GROW, "it was a call and is a cast")]),
    (Call, [(NEW, NOTE, "it was a cast and is a call")]),
    (Lowered, [(OLD, "s.Base", "version was 1.1 and is 1.0")]),
    (Major, [(BOTH, "s.Base", "major version was 1.1 and is 2.0")]),
    (Raised, [(NEW, GROW, "asked for 1.0 and ask for 1.2, which a server of 1.1 refuses although it has the method")]),
    (MethodAddedInSilence, [(NEW, "s.Base.shrink", "raise the contract's version")]),
    (MethodAddedUnmarked, [(NEW, "s.Base.shrink", "mark it with since=")]),
    (OtherTopic, [(BOTH, "s.Base", "topic was things and is objects")]),
    (OtherExchange, [(BOTH, "s.Base", "exchange was none and is ex")]),
    (OtherNamespace, [(BOTH, "s.Base", "namespace was none and is ns")]),
]
"""What becomes of Base, and every finding that this gives, in any order."""

COMPATIBLE: list[tuple[Any, list[str]]] = [
    (Base, []),
    (MethodAdded, ["version was 1.1 and is 1.2", "the method is new with 1.2"]),
    (ArgumentAdded, ["version was 1.1 and is 1.2", "the argument is new"]),
    (DefaultGivenOpenly, ["version was 1.1 and is 1.2", "has a default now"]),
    (ArgumentWiderOpenly, ["version was 1.1 and is 1.2", "the argument's type is wider"]),
    (ResultField, ["Thing.weight: the field is new"]),
]


@pytest.mark.parametrize(("new", "wanted"), BREAKING, ids=lambda value: getattr(value, "__name__", ""))
def test_a_breaking_change_is_found_with_whom_it_breaks(new: Any, wanted: list[tuple[Breaks, str, str]]) -> None:
    left = [(breaks, what, place) for breaks, what, (place,) in compared(Base, new) if breaks is not NOBODY]
    for breaks, place, word in wanted:
        (found,) = [one for one in left if one[0] is breaks and one[2] == place and word in one[1]]
        left.remove(found)
    assert left == []


@pytest.mark.parametrize(("new", "words"), COMPATIBLE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_compatible_change_breaks_nobody_and_is_listed(new: Any, words: list[str]) -> None:
    found = compared(Base, new)
    assert [breaks for breaks, _, _ in found] == [NOBODY] * len(words)
    assert all(any(word in what for _, what, _ in found) for word in words), found


# What follows is the bus's own word on the same pairs.


def answer(result: Any) -> Any:
    for kind, value in (
        (Thing, Thing(name="a")),
        (HeavyThing, HeavyThing(name="a")),
        (NewThing, NewThing(name="a", size=1, weight=1)),
        (dict, {"name": "a", "size": "big"}),
    ):
        if kind in {result, getattr(result, "__origin__", None)}:
            return value
    return None


def server_of(contract: Any) -> object:
    """A server of the contract, that answers what its type allows."""

    def method(result: Any) -> Any:
        async def run(self: object, ctx: Context, **arguments: Any) -> Any:
            return answer(result)

        return run

    bodies = {name: method(found.result) for name, found in methods_of(contract).items()}
    return type("Server", (contract,), bodies)()


ALL: dict[str, Any] = {"name": "blue", "title": "t", "by": 2, "color": "c", "word": "w"}


async def talk(asking: Any, served: Any, words: dict[str, Any] = ALL) -> dict[str, str]:
    """A client of `asking` sends each of its methods, with every argument that it knows, to a server of `served`."""
    bus = MemoryBus(CLOCK)
    near, far = MemoryTransport(bus, name="near"), MemoryTransport(bus, name="far")
    failed = {}
    options = RpcOptions(response_timeout_s=5)
    async with (
        serving(far, Serving([server_of(served)], "host1"), clock=CLOCK, options=options, grace_s=1),
        client(near, clock=CLOCK, options=options) as rpc,
    ):
        for name, method in methods_of(asking).items():
            # A cast's refusal is told to nobody: it is asked for as a call, which takes the same way through the server.
            route = asking.__rpc_route__
            try:
                await rpc.call(route, method, Context(), {word: words[word] for word in method.parameters})
            except Fault as fault:
                failed[name] = type(fault).__name__
    return failed


@pytest.mark.parametrize(
    "new",
    [
        MethodGone, ArgumentGone, ArgumentRenamed, ArgumentRequired, ArgumentAddedInSilence, ArgumentNarrower, ResultOther, ResultFieldRequired, Lowered,
        Major, Raised, MethodAddedInSilence, MethodAddedUnmarked, OtherTopic, OtherNamespace,
    ],
)  # fmt: skip
async def test_the_bus_bears_out_whom_a_breaking_change_breaks(new: Any) -> None:
    found = [breaks for breaks, _, _ in compared(Base, new)]
    assert bool(await talk(Base, new)) == any(breaks in {OLD, BOTH} for breaks in found)
    assert bool(await talk(new, Base)) == any(breaks in {NEW, BOTH} for breaks in found)


@pytest.mark.parametrize("new", [Base, ResultField])
async def test_the_bus_bears_out_that_a_compatible_change_breaks_nobody(new: Any) -> None:
    assert await talk(Base, new) == {}
    assert await talk(new, Base) == {}


async def test_a_method_or_argument_that_came_with_a_raised_version_is_refused_by_old_servers_only_when_it_is_used() -> None:
    assert await talk(MethodAdded, Base) == {"shrink": "UnsupportedVersion"}
    assert await talk(ArgumentAdded, Base) == {"grow": "InvalidArguments"}
    for new in (MethodAdded, ArgumentAdded):
        assert await talk(Base, new) == {}


# Fields of objects, and results that come and go.


class TakesThing(Contract, Protocol, topic="t", version="1.0"):
    @call()
    async def put(self, ctx: Context, *, thing: Thing) -> None: ...


class TakesHeavyThing(Contract, Protocol, topic="t", version="1.0"):
    @call()
    async def put(self, ctx: Context, *, thing: HeavyThing) -> None: ...


class GivesThing(Contract, Protocol, topic="t", version="1.0"):
    @call()
    async def put(self, ctx: Context, *, thing: Thing) -> Thing: ...


def one_line(old: Any, new: Any) -> tuple[Breaks, str]:
    ((breaks, what, _),) = compared(old, new)
    return breaks, what


def test_a_field_that_is_gone_breaks_old_clients_though_nobody_refuses_anything() -> None:
    assert one_line(TakesHeavyThing, TakesThing) == (OLD, "Thing.weight: the field is gone: what is sent is lost")
    breaks, what = one_line(ResultField, Base)
    assert (breaks, what) == (OLD, "HeavyThing.weight: the field is gone: an old client reads its default")
    assert one_line(TakesThing, TakesHeavyThing) == (NOBODY, "HeavyThing.weight: the field is new, with a default")


async def test_a_result_breaks_only_those_who_look_at_it() -> None:
    assert one_line(TakesThing, GivesThing)[0] is NEW
    assert one_line(GivesThing, TakesThing)[0] is OLD
    word = {"thing": Thing(name="a")}
    for asking, served, broken in ((TakesThing, GivesThing, False), (GivesThing, TakesThing, True)):
        assert bool(await talk(asking, served, word)) is broken


class Plain(Contract, Protocol, topic="p", version="1.0"):
    @call()
    async def put(self, ctx: Context) -> None: ...


class Promising(Contract, Protocol, topic="p", version="1.0"):
    @call(once=True, ack=Ack.EARLY, raises=(ZeroDivisionError,), timeout_s=3, monitor_s=1)
    async def put(self, ctx: Context) -> None: ...


class Moved(Contract, Protocol, topic="p", version="1.0", namespace="new", legacy_namespaces=("old",)):
    @call()
    async def put(self, ctx: Context) -> None: ...


class Unmoved(Contract, Protocol, topic="p", version="1.0", namespace="old"):
    @call()
    async def put(self, ctx: Context) -> None: ...


class Settled(Contract, Protocol, topic="p", version="1.0", namespace="new"):
    @call()
    async def put(self, ctx: Context) -> None: ...


def test_what_a_method_promises_beside_its_types_is_compared_too() -> None:
    came = {what: breaks for breaks, what, _ in compared(Plain, Promising)}
    went = {what: breaks for breaks, what, _ in compared(Promising, Plain)}
    assert list(came.values()) == [NEW, NOBODY, NOBODY, NOBODY, NOBODY]
    assert list(went.values()) == [OLD, OLD, NOBODY, NOBODY, NOBODY]
    assert came["its ack was late and is early"] is NOBODY
    assert went["the exception builtins.ZeroDivisionError is gone: whoever catches it no longer does"] is OLD


def test_a_namespace_that_is_still_taken_breaks_no_old_client() -> None:
    assert one_line(Unmoved, Moved)[0] is NEW
    assert one_line(Moved, Settled) == (OLD, "the legacy namespace old is gone: requests of older clients are refused")
    assert one_line(Unmoved, Settled)[0] is BOTH


# Types that many methods share, contracts that come and go, errors.


class Colored(msgspec.Struct, kw_only=True):
    color: Color


class Recolored(msgspec.Struct, kw_only=True):
    color: MoreColors


class Many(Contract, Protocol, topic="many", version="1.0"):
    @call()
    async def one(self, ctx: Context) -> Colored: ...

    @call()
    async def two(self, ctx: Context) -> list[Colored]: ...


class ManyNow(Contract, Protocol, topic="many", version="1.0"):
    @call()
    async def one(self, ctx: Context) -> Recolored: ...

    @call()
    async def two(self, ctx: Context) -> list[Recolored]: ...


def test_a_change_of_a_type_that_many_methods_use_is_one_line() -> None:
    (change,) = changes(taken(Many), taken(ManyNow))
    assert (change.breaks, change.places) == (OLD, ("s.Base.one -> result", "s.Base.two -> result"))
    assert str(change) == (
        "breaks old client -> new server: s.Base.one -> result and 1 other: the result's type is wider: "
        "Color: 'green' may come, and 'red' is wanted"
    )
    assert "s.Base.one -> result, s.Base.two -> result: " in change.in_full


def test_a_contract_that_is_gone_breaks_old_clients_and_a_new_one_nobody() -> None:
    old, new = took(Base, Many), took(Base)
    assert [(one.breaks, one.places) for one in changes(old, new)] == [(OLD, ("s.Many",))]
    assert [(one.breaks, one.places) for one in changes(new, old)] == [(NOBODY, ("s.Many",))]


def test_a_second_major_beside_the_first_breaks_nobody_and_a_class_s_name_is_not_on_the_wire() -> None:
    old, both = took(Base), took(Base, Major)
    assert [one.breaks for one in changes(old, both)] == [NOBODY]
    assert changes(took(Base), msgspec.structs.replace(old, contracts={"t.Other": old.contracts["s.Base"]})) == []


class Neighbour(Contract, Protocol, topic="things", version="1.1"):
    """Served together with Base, by another endpoint."""

    @call()
    async def shine(self, ctx: Context) -> None: ...


def test_contracts_that_share_a_route_are_each_compared_with_themselves() -> None:
    assert changes(took(Base, Neighbour), took(Base, Neighbour)) == []
    assert changes(took(Base, Neighbour), took(Neighbour, Base)) == []
    assert [one.what for one in changes(took(Base, Neighbour), took(Base))] == ["the contract is gone"]


def test_an_error_that_is_gone_breaks_who_catches_it_and_another_code_nobody() -> None:
    found = took(Base)
    (shape,) = found.contracts.values()
    gone = msgspec.structs.replace(found, contracts={"s.Base": msgspec.structs.replace(shape, errors=())}, errors={})
    assert "common.base.errors.NotFound" in shape.errors
    assert {one.breaks for one in changes(found, gone)} == {OLD}
    assert {one.breaks for one in changes(gone, found)} == {NOBODY}
    other = {**found.errors, "common.base.errors.NotFound": snapshot.ErrorShape(code=410)}
    (changed,) = changes(found, msgspec.structs.replace(found, errors=other))
    assert changed.breaks is NOBODY
    assert "code was 404 and is 410" in changed.what


def test_errors_are_those_of_the_contract_s_module() -> None:
    contract: Any = Base
    assert snapshot.declared_errors(contract) == [Conflict, Fault, NotFound]
