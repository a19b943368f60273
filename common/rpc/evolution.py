"""What changed between two snapshots of contracts, and whom it breaks. Pure.

A rolling upgrade has both: clients of yesterday that ask servers of today, and clients of today that ask servers of yesterday.
A server takes every minor version up to its own (`common.base.version.serves`), refuses arguments that it does not know and values
that are not of their type; a client refuses results that are not of theirs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from common.base.version import parse_version, serves
from common.rpc.contract import Kind
from common.rpc.fitting import Fit, Fitting, Misfit
from common.rpc.schema import Schema
from common.rpc.snapshot import ContractShape, MethodShape, Snapshot

_NOTHING = Schema(type="null")
"""The result of a method that has none: a client looks at no answer then, whatever it is."""


class Breaks(StrEnum):
    """Whom a change breaks."""

    OLD_CLIENT = "old client -> new server"
    NEW_CLIENT = "new client -> old server"
    BOTH = "old client -> new server and new client -> old server"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `places` are the contracts, methods, arguments and results that it touches."""

    breaks: Breaks
    what: str
    places: tuple[str, ...]

    def __str__(self) -> str:
        """One line, with the first place."""
        first, *more = self.places
        others = f" and {len(more)} other{'s' if len(more) > 1 else ''}" if more else ""
        return f"breaks {self.breaks}: {first}{others}: {self.what}"

    @property
    def in_full(self) -> str:
        """One line, with every place."""
        return f"breaks {self.breaks}: {', '.join(self.places)}: {self.what}"


def changes(old: Snapshot, new: Snapshot) -> list[Change]:
    """Every change, those that break somebody first. The same change of a type that many methods use is one."""
    together: dict[tuple[Breaks, str], list[str]] = {}
    for found in _Comparison(old, new).all():
        together.setdefault((found.breaks, found.what), []).extend(found.places)
    merged = [Change(breaks, what, tuple(dict.fromkeys(places))) for (breaks, what), places in together.items()]
    return sorted(merged, key=lambda change: (change.breaks is Breaks.NOBODY, change.places, change.what))


class _Comparison:
    def __init__(self, old: Snapshot, new: Snapshot) -> None:
        self._old = old
        self._new = new
        self._old_to_new = Fitting(old.components.schemas, new.components.schemas)
        self._new_to_old = Fitting(new.components.schemas, old.components.schemas)

    def all(self) -> Iterator[Change]:
        pairs = _pairs(self._old.contracts, self._new.contracts)
        for name, now in pairs.items():
            if now is None:
                yield Change(Breaks.OLD_CLIENT, "the contract is gone", (name,))
            else:
                yield from self._contract(name, self._old.contracts[name], self._new.contracts[now])
        for name in self._new.contracts.keys() - set(pairs.values()):
            yield Change(Breaks.NOBODY, "the contract is new", (name,))
        yield from self._errors()

    def _contract(self, name: str, old: ContractShape, new: ContractShape) -> Iterator[Change]:
        yield from _route_changes(name, old, new)
        yield from _version(name, old, new)
        for method in old.methods.keys() - new.methods.keys():
            yield Change(Breaks.OLD_CLIENT, "the method is gone", (f"{name}.{method}",))
        for method, shape in new.methods.items():
            if method in old.methods:
                yield from self._method(f"{name}.{method}", (old, old.methods[method]), (new, shape))
            else:
                yield from _added(f"{name}.{method}", old, new, shape)
        for error in set(old.errors) - set(new.errors):
            yield Change(Breaks.OLD_CLIENT, f"the error {error} is gone: whoever catches it no longer does", (name,))
        for error in set(new.errors) - set(old.errors):
            yield Change(Breaks.NOBODY, f"the error {error} is new: an old client gets RemoteError", (name,))

    def _method(
        self, name: str, before: tuple[ContractShape, MethodShape], after: tuple[ContractShape, MethodShape]
    ) -> Iterator[Change]:
        (old_contract, old), (new_contract, new) = before, after
        yield from _kind(name, old, new)
        yield from _asked_version(name, old_contract, old, new)
        is_raised = _is_raised(old_contract, new_contract)
        yield from _arguments(name, old, new, is_raised=is_raised)
        for argument in old.arguments.keys() & new.arguments.keys():
            yield from self._argument(name, argument, old, new, is_raised=is_raised)
        if old.kind is new.kind:
            yield from self._result(name, old, new)
        yield from _words(name, old, new)

    def _argument(self, name: str, argument: str, old: MethodShape, new: MethodShape, *, is_raised: bool) -> Iterator[Change]:
        place = f"{name}({argument})"
        was, now = old.arguments[argument], new.arguments[argument]
        for misfit in self._old_to_new.misfits(was, now, argument):
            match misfit.fit:
                case Fit.REFUSED:
                    yield Change(Breaks.OLD_CLIENT, f"the argument's type is narrower: {misfit}", (place,))
                case Fit.IGNORED:
                    yield Change(Breaks.OLD_CLIENT, f"{misfit.place}: the field is gone: what is sent is lost", (place,))
                case Fit.NEVER_SENT:
                    yield Change(Breaks.NOBODY, f"{misfit.place}: the field is new, with a default", (place,))
        for misfit in _refused(self._new_to_old.misfits(now, was, argument)):
            what = f"the argument's type is wider: {misfit}"
            if is_raised:
                yield Change(Breaks.NOBODY, what, (place,))
            else:
                yield Change(Breaks.NEW_CLIENT, f"{what}; raise the contract's version", (place,))

    def _result(self, name: str, old: MethodShape, new: MethodShape) -> Iterator[Change]:
        place = f"{name} -> result"
        for misfit in () if old.result == _NOTHING else self._new_to_old.misfits(new.result, old.result, "result"):
            match misfit.fit:
                case Fit.REFUSED:
                    yield Change(Breaks.OLD_CLIENT, f"the result's type is wider: {misfit}", (place,))
                case Fit.NEVER_SENT:
                    yield Change(Breaks.OLD_CLIENT, f"{misfit.place}: the field is gone: an old client reads its default", (place,))
                case Fit.IGNORED:
                    yield Change(Breaks.NOBODY, f"{misfit.place}: the field is new", (place,))
        for misfit in () if new.result == _NOTHING else _refused(self._old_to_new.misfits(old.result, new.result, "result")):
            yield Change(Breaks.NEW_CLIENT, f"the result's type is narrower: {misfit}", (place,))

    def _errors(self) -> Iterator[Change]:
        for name in self._old.errors.keys() & self._new.errors.keys():
            old, new = self._old.errors[name], self._new.errors[name]
            if (old.code, old.retryable) != (new.code, new.retryable):
                what = f"its code was {old.code} and is {new.code}, retryable was {old.retryable} and is {new.retryable}"
                yield Change(Breaks.NOBODY, what, (name,))


def _pairs(old: Mapping[str, ContractShape], new: Mapping[str, ContractShape]) -> dict[str, str | None]:
    """For each old contract the new one that takes its place: of its name and route, of its route, or else of its name."""
    pairs: dict[str, str | None] = {name: name for name in old if name in new and _route(new[name]) == _route(old[name])}
    routes = {_route(contract): name for name, contract in new.items() if name not in pairs}
    for name in old.keys() - pairs.keys():
        pairs[name] = routes.get(_route(old[name]))
    taken = set(pairs.values())
    return {name: now or (name if name in new and name not in taken else None) for name, now in pairs.items()}


def _route(contract: ContractShape) -> tuple[str | None, str, str | None, int]:
    return contract.exchange, contract.topic, contract.namespace, parse_version(contract.version)[0]


def _is_raised(old: ContractShape, new: ContractShape) -> bool:
    return parse_version(new.version) > parse_version(old.version)


def _route_changes(name: str, old: ContractShape, new: ContractShape) -> Iterator[Change]:
    for field in ("exchange", "topic", "namespace"):
        was, now = getattr(old, field), getattr(new, field)
        if was != now:
            is_still_taken = field == "namespace" and was in new.legacy_namespaces
            breaks = Breaks.NEW_CLIENT if is_still_taken else Breaks.BOTH
            yield Change(breaks, f"its {field} was {was or 'none'} and is {now or 'none'}: requests do not arrive", (name,))
    for namespace in set(old.legacy_namespaces) - {new.namespace, *new.legacy_namespaces}:
        yield Change(Breaks.OLD_CLIENT, f"the legacy namespace {namespace} is gone: requests of older clients are refused", (name,))


def _version(name: str, old: ContractShape, new: ContractShape) -> Iterator[Change]:
    was, now = parse_version(old.version), parse_version(new.version)
    if was[0] != now[0]:
        what = f"its major version was {old.version} and is {new.version}; serve both for a while, each a contract of its own"
        yield Change(Breaks.BOTH, what, (name,))
    elif now < was:
        yield Change(
            Breaks.OLD_CLIENT, f"its version was {old.version} and is {new.version}: requests of more are refused", (name,)
        )
    elif now > was:
        yield Change(Breaks.NOBODY, f"its version was {old.version} and is {new.version}", (name,))


def _added(name: str, old: ContractShape, new: ContractShape, method: MethodShape) -> Iterator[Change]:
    if serves(old.version, method.version):
        cause = f"an old server of {old.version} takes version {method.version} and lacks it"
        cure = "mark it with since= of the new version" if _is_raised(old, new) else "raise the contract's version"
        yield Change(Breaks.NEW_CLIENT, f"the method is new, but {cause}; {cure}", (name,))
    else:
        yield Change(Breaks.NOBODY, f"the method is new with {method.version}", (name,))


def _kind(name: str, old: MethodShape, new: MethodShape) -> Iterator[Change]:
    if old.kind is Kind.CALL and new.kind is Kind.CAST:
        yield Change(Breaks.OLD_CLIENT, "it was a call and is a cast: who waits for its result gets none", (name,))
    elif old.kind is Kind.CAST and new.kind is Kind.CALL:
        what = "it was a cast and is a call: an old server has no result for it, and nobody may fan it out any more"
        yield Change(Breaks.NEW_CLIENT, what, (name,))


def _words(name: str, old: MethodShape, new: MethodShape) -> Iterator[Change]:
    """What is promised beside types and versions."""
    if old.once and not new.once:
        what = "it was executed exactly once and is not: an old client repeats requests that a new server may execute again"
        yield Change(Breaks.OLD_CLIENT, what, (name,))
    elif new.once and not old.once:
        what = "it is executed exactly once now: a new client repeats requests that an old server may execute again"
        yield Change(Breaks.NEW_CLIENT, what, (name,))
    for error in set(old.raises) - set(new.raises):
        yield Change(Breaks.OLD_CLIENT, f"the exception {error} is gone: whoever catches it no longer does", (name,))
    for error in set(new.raises) - set(old.raises):
        yield Change(Breaks.NOBODY, f"the exception {error} is new: an old client gets RemoteError", (name,))
    for word in ("ack", "timeout_s", "monitor_s"):
        was, now = getattr(old, word), getattr(new, word)
        if was != now:
            yield Change(Breaks.NOBODY, f"its {word} was {was} and is {now}", (name,))


def _asked_version(name: str, contract: ContractShape, old: MethodShape, new: MethodShape) -> Iterator[Change]:
    if old.version == new.version or parse_version(contract.version)[0] != parse_version(new.version)[0]:
        return
    what = f"its requests asked for {old.version} and ask for {new.version}"
    if serves(contract.version, new.version):
        yield Change(Breaks.NOBODY, what, (name,))
    else:
        what += f", which a server of {contract.version} refuses although it has the method; mark it with since={old.version!r}"
        yield Change(Breaks.NEW_CLIENT, what, (name,))


def _arguments(name: str, old: MethodShape, new: MethodShape, *, is_raised: bool) -> Iterator[Change]:
    """Arguments that came, went, or are needed since."""
    for argument in old.arguments.keys() - new.arguments.keys():
        yield Change(Breaks.OLD_CLIENT, "the argument is gone or has another name", (f"{name}({argument})",))
        if argument in old.required:
            yield Change(Breaks.NEW_CLIENT, "the argument is no longer sent, and old servers want it", (f"{name}({argument})",))
    for argument in new.arguments.keys() - old.arguments.keys():
        place = f"{name}({argument})"
        if argument in new.required:
            yield Change(Breaks.BOTH, "the argument is new and has no default", (place,))
        elif is_raised:
            yield Change(Breaks.NOBODY, "the argument is new: old servers refuse requests that carry it", (place,))
        else:
            what = "the argument is new, and old servers of the same version refuse it; raise the contract's version"
            yield Change(Breaks.NEW_CLIENT, what, (place,))
    for argument in old.arguments.keys() & new.arguments.keys():
        was, now = argument in old.required, argument in new.required
        if now and not was:
            yield Change(Breaks.OLD_CLIENT, "the argument had a default and has none", (f"{name}({argument})",))
        elif was and not now:
            yield from _needed_no_more(f"{name}({argument})", is_raised=is_raised)


def _needed_no_more(place: str, *, is_raised: bool) -> Iterator[Change]:
    what = "the argument has a default now, and old servers want it"
    if is_raised:
        yield Change(Breaks.NOBODY, what, (place,))
    else:
        yield Change(Breaks.NEW_CLIENT, f"{what}; raise the contract's version", (place,))


def _refused(misfits: tuple[Misfit, ...]) -> list[Misfit]:
    return [misfit for misfit in misfits if misfit.fit is Fit.REFUSED]
