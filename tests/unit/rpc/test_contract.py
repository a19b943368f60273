"""What a contract class is made into, and what it refuses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from common.base.context import Context
from common.rpc.contract import Contract, Kind, Method, Route, call, cast, contract_of, methods_of
from common.rpc.dispatch import Dispatcher
from common.wire.failure import UnsupportedVersion
from common.wire.messages import Request


class GuestAPI(Contract, Protocol, topic="guests", version="2.3", namespace="ns", exchange="ex"):
    @call(timeout_s=7)
    async def ask(self, ctx: Context, *, word: str, often: int = 1) -> list[str]: ...

    @cast(since="2.1")
    async def tell(self, ctx: Context) -> None: ...

    def plain(self) -> str:
        return "nobody calls it by the bus"


class OldGuestAPI(Contract, Protocol, topic="guests", version="1.4", namespace="ns"):
    @call()
    async def ask(self, ctx: Context, *, word: str) -> str: ...


class Guest(GuestAPI):
    async def ask(self, ctx: Context, *, word: str, often: int = 1) -> list[str]:
        return [word] * often

    async def tell(self, ctx: Context) -> None: ...


class OldGuest(OldGuestAPI):
    async def ask(self, ctx: Context, *, word: str) -> str:
        return word


@dataclass
class Recorder:
    """Implements `Sender`: keeps what it is given."""

    sent: list[tuple[Kind, Route, str, dict[str, Any]]] = field(default_factory=list)

    async def call(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> Any:
        self.sent.append((Kind.CALL, route, method.version, dict(arguments)))

    async def cast(self, route: Route, method: Method, ctx: Context, arguments: Mapping[str, Any]) -> None:
        self.sent.append((Kind.CAST, route, method.version, dict(arguments)))


def test_the_methods_of_a_contract_are_those_that_are_marked() -> None:
    methods = methods_of(GuestAPI)
    assert methods["ask"] == Method(
        name="ask",
        kind=Kind.CALL,
        version="2.3",
        parameters={"word": str, "often": int},
        optional=frozenset({"often"}),
        result=list[str],
        timeout_s=7,
    )
    assert set(methods) == {"ask", "tell"}
    assert (methods["tell"].kind, methods["tell"].version) == (Kind.CAST, "2.1")


def test_arguments_behind_the_context_are_keyword_only() -> None:
    class Loose(Contract, Protocol, topic="loose", version="1.0"):
        @call()
        async def ask(self, ctx: Context, word: str) -> str: ...

    with pytest.raises(TypeError, match="ask: arguments behind the context must be keyword-only"):
        methods_of(Loose)


@pytest.mark.parametrize("since", ["1.1", "2.0"])
def test_a_method_cannot_be_newer_than_its_contract(since: str) -> None:
    class Early(Contract, Protocol, topic="early", version="1.0"):
        @call(since=since)
        async def ask(self, ctx: Context) -> str: ...

    with pytest.raises(TypeError, match=f"since={since} is not served by 1.0"):
        methods_of(Early)


async def test_a_client_sends_each_method_with_its_own_version_to_the_contract_s_route() -> None:
    sender = Recorder()
    guests = GuestAPI.over(sender)
    await guests.ask(Context(), word="x")
    await guests.tell(Context())
    route = Route(topic="guests", version="2.3", namespace="ns", exchange="ex")
    assert sender.sent == [(Kind.CALL, route, "2.3", {"word": "x"}), (Kind.CAST, route, "2.1", {})]


async def test_a_client_is_readdressed_without_changing_the_first() -> None:
    sender = Recorder()
    guests = GuestAPI.over(sender, exchange="other")
    for client in (guests.on("h1"), guests.everywhere(), guests.within(3).on("h2", topic="guests.x"), guests):
        await client.tell(Context())
    routes = [route for _, route, _, _ in sender.sent]
    assert [str(route) for route in routes] == ["guests.h1", "guests.*", "guests.x.h2", "guests"]
    assert [route.timeout_s for route in routes] == [None, None, 3, None]
    assert {route.exchange for route in routes} == {"other"}


def test_a_server_cannot_be_addressed() -> None:
    for readdress in (Guest().everywhere, lambda: Guest().on("h"), lambda: Guest().within(1)):
        with pytest.raises(TypeError, match="Guest is a server"):
            readdress()


def test_the_contract_of_a_server_is_found_and_of_others_not() -> None:
    assert contract_of(Guest()) is GuestAPI
    with pytest.raises(TypeError, match="object implements no contract"):
        contract_of(object())


async def test_two_majors_are_served_side_by_side() -> None:
    dispatcher = Dispatcher([Guest(), OldGuest()])

    async def ask(version: str) -> Any:
        return await dispatcher.bind(Request("ask", {"word": "x"}, namespace="ns", version=version)).run(Context())

    assert (await ask("2.0"), await ask("1.4")) == (["x"], "x")
    for version in ("2.4", "1.5", "3.0", "rubbish", "1"):
        with pytest.raises(UnsupportedVersion):
            await ask(version)


def test_another_namespace_is_served_by_nobody() -> None:
    for namespace in (None, "other"):
        with pytest.raises(UnsupportedVersion):
            Dispatcher([Guest()]).bind(Request("ask", {"word": "x"}, namespace=namespace, version="2.0"))


def test_a_request_without_a_version_asks_for_1_0() -> None:
    request = Request("ask", {"word": "x"}, namespace="ns")
    assert Dispatcher([OldGuest()]).bind(request).method.version == "1.4"
    with pytest.raises(UnsupportedVersion):
        Dispatcher([Guest()]).bind(request)
