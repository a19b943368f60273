"""Errors both ways, with the real oslo.messaging (oslo-wire 4; rows 14 to 17 of the table in test_matrix)."""

from typing import Protocol

import pytest

from common.base.context import Context
from common.rpc.client import UnusableReply
from common.rpc.contract import Contract, call
from common.rpc.dispatch import InvalidArguments
from common.rpc.options import RpcOptions
from common.wire.failure import NoSuchMethod, RemoteError, UnsupportedVersion
from tests.compat.exceptions import FlavorNotFound, InstanceNotFound
from tests.compat.sides import (
    CTX,
    HostNotFound,
    OsloAPI,
    OsloPeer,
    Raw,
    Us,
    client_of_ours,
    serving_ours,
)

pytestmark = [pytest.mark.real("rabbitmq"), pytest.mark.timeout(90, func_only=True)]

ALLOWING = RpcOptions(control_exchange="nova", allowed_remote_exmods=("builtins", "tests.compat.exceptions"))


def first_line(text: str) -> str:
    return text.partition("\n")[0]


# -- 14 and 15: the whitelist ---------------------------------------------------------------------------------------------


async def test_row_14_an_oslo_client_catches_our_fault_as_the_class_that_it_allows(oslo: OsloPeer, us: Us) -> None:
    found = await oslo.call("ours", "fail", how="host")
    assert found["raised"][:2] == [
        "tests.compat.exceptions_Remote.HostNotFound_Remote",
        "tests.compat.exceptions.HostNotFound",
    ]
    assert first_line(found["said"]) == "Instance i-1 could not be found."
    assert found["kwargs"] == {"instance_id": "i-1", "code": 404}


async def test_row_14_an_oslo_client_catches_what_a_method_of_ours_raises_by_its_contract(oslo: OsloPeer, us: Us) -> None:
    foreign = await oslo.call("ours", "fail", how="flavor")
    assert "tests.compat.exceptions.FlavorNotFound" in foreign["raised"]
    assert foreign["kwargs"] == {"instance_id": "v-1", "code": 404}
    value = await oslo.call("ours", "fail", how="value")
    assert value["raised"][0] == "builtins.ValueError"
    assert [first_line(str(each)) for each in value["args"]] == ["('bad', 42)", "42"]
    key = await oslo.call("ours", "fail", how="key")
    assert key["raised"][0] == "builtins.KeyError"
    assert first_line(key["args"][0]) == "'volume-1'"


async def test_row_14_oslo_rebuilds_from_ours_what_it_rebuilds_from_oslo(oslo: OsloPeer, us: Us) -> None:
    for how in ("key", "value"):
        ours, theirs = await oslo.call("ours", "fail", how=how), await oslo.call("oslo", "fail", how=how)
        assert ours["raised"] == theirs["raised"]
        assert first_line(ours["args"][0]) == first_line(theirs["args"][0])
        assert ours["args"][1:] == theirs["args"][1:]
    ours, theirs = await oslo.call("ours", "fail", how="flavor"), await oslo.call("oslo", "fail", how="flavor")
    assert ours["raised"] == theirs["raised"]
    assert (first_line(ours["said"]), ours["kwargs"]) == (first_line(theirs["said"]), theirs["kwargs"])


async def test_row_14_our_client_catches_an_oslo_server_s_errors_as_our_faults_and_as_the_classes_that_it_allows(
    oslo: OsloPeer, us: Us
) -> None:
    with pytest.raises(HostNotFound) as ours:
        await us.oslo.fail(CTX, how="host")
    assert (str(ours.value), ours.value.instance_id, ours.value.is_remote) == ("Instance i-1 could not be found.", "i-1", True)
    async with client_of_ours(oslo.url, ALLOWING) as rpc:
        allowing = OsloAPI.over(rpc)
        with pytest.raises(InstanceNotFound, match=r"Instance v-1 could not be found\.") as theirs:
            await allowing.fail(CTX, how="flavor")
        assert isinstance(theirs.value, FlavorNotFound)
        assert type(theirs.value).__name__ == "FlavorNotFound_Remote"
        assert theirs.value.kwargs == {"instance_id": "v-1", "code": 404}
        with pytest.raises(ValueError, match="bad") as value:
            await allowing.fail(CTX, how="value")
        assert value.value.args == ("bad", 42)
        with pytest.raises(KeyError) as key:
            await allowing.fail(CTX, how="key")
        assert key.value.args == ("volume-1",)


async def test_row_14_an_error_that_is_passed_on_is_still_the_first_one_s(oslo: OsloPeer) -> None:
    """oslo's server -> our client -> our server -> oslo's client."""
    async with serving_ours(oslo.url, topic="passing", options=ALLOWING) as us:
        allowing = OsloAPI.over(us.rpc)

        async def passed_on(ctx: Context, *, how: str) -> None:
            await allowing.fail(ctx, how=how)

        us.service.fail = passed_on  # type: ignore[method-assign]  # as a service that asks another one
        found = await oslo.call("passing", "fail", how="flavor")
    assert found["raised"][:2] == ["tests.compat.exceptions_Remote.FlavorNotFound_Remote", "tests.compat.exceptions.FlavorNotFound"]
    assert first_line(found["said"]) == "Instance v-1 could not be found."
    assert found["kwargs"] == {"instance_id": "v-1", "code": 404}


async def test_row_15_what_the_caller_does_not_allow_is_a_remote_error_with_its_name(oslo: OsloPeer, us: Us) -> None:
    theirs = await oslo.call("ours", "fail", how="not allowed")
    assert (theirs["remote"], theirs["value"]) == ("NotAllowedThere", "The peer allows no module nova.exception.")
    bug = await oslo.call("ours", "fail", how="bug")
    assert bug["remote"] == "InternalError"
    assert "a bug" not in bug["value"]
    with pytest.raises(RemoteError) as ours:
        await us.oslo.fail(CTX, how="value")
    assert (ours.value.exc_type, ours.value.value) == ("ValueError", "('bad', 42)")
    with pytest.raises(RemoteError) as flavor:
        await us.oslo.fail(CTX, how="flavor")
    assert (flavor.value.exc_type, flavor.value.value) == ("FlavorNotFound", "Instance v-1 could not be found.")
    assert "Traceback" not in str(flavor.value)


# -- 16 and 17: expected exceptions, access -------------------------------------------------------------------------------


async def test_row_16_an_expected_exception_of_oslo_s_arrives_as_itself(oslo: OsloPeer) -> None:
    async with client_of_ours(oslo.url, ALLOWING) as rpc:
        with pytest.raises(ValueError, match="expected") as found:
            await OsloAPI.over(rpc).expected(CTX)
    assert found.value.args == ("expected", 42)


async def test_row_17_what_a_policy_forbids_or_no_contract_names_is_no_such_method(oslo: OsloPeer, us: Us) -> None:
    class Forbidden(Contract, Protocol, topic="guarded", version="6.0", exchange="nova"):
        @call()
        async def which(self, ctx: Context) -> str: ...

        @call()
        async def exposed(self, ctx: Context) -> str: ...

        @call()
        async def _private(self, ctx: Context) -> str: ...

    await oslo.ask("serve", topic="guarded", server="host1", policy="explicit")
    guarded = Forbidden.over(us.rpc)
    assert await guarded.exposed(CTX) == "exposed"
    for method in (guarded.which, guarded._private):
        with pytest.raises(NoSuchMethod):
            await method(CTX)
    for name in ("_private", "__init__", "__class__", "gate", "on", "over", "monitored"):
        found = await oslo.call("ours", name)
        assert (found["remote"], found["value"]) == ("NoSuchMethod", f"Endpoint does not support RPC method {name}")


# -- oslo-wire 4.3: the library's own errors ------------------------------------------------------------------------------


async def test_4_3_an_unknown_method_or_version_has_the_identity_and_the_words_of_oslo_s(oslo: OsloPeer, us: Us) -> None:
    for words in ({"method": "nope"}, {"method": "which", "version": "9.0"}, {"method": "which", "namespace": "x"}):
        target = {key: words[key] for key in ("version", "namespace") if key in words}
        ours = await oslo.call("ours", words["method"], target=target)
        theirs = await oslo.call("oslo", words["method"], target=target)
        assert (ours["remote"], ours["value"]) == (theirs["remote"], theirs["value"])
    with pytest.raises(NoSuchMethod, match="Endpoint does not support RPC method nope"):
        await us.oslo.nope(CTX)

    class Newer(Contract, Protocol, topic="oslo", version="9.0", exchange="nova"):
        @call()
        async def which(self, ctx: Context) -> str: ...

    with pytest.raises(UnsupportedVersion, match=r"Endpoint does not support RPC version 9\.0\. Attempted method: which"):
        await Newer.over(us.rpc).which(CTX)


async def test_4_3_wrong_arguments_are_a_type_error_at_the_oslo_caller_and_a_fault_at_ours(oslo: OsloPeer, us: Us) -> None:
    class Wrong(Contract, Protocol, topic="ours", version="6.0"):
        @call()
        async def echo(self, ctx: Context, *, y: int = 0) -> None: ...

    theirs = await oslo.call("ours", "echo", y=1)
    assert theirs["raised"][0] == (await oslo.call("oslo", "echo", y=1))["raised"][0] == "builtins.TypeError"
    assert first_line(theirs["said"]) == "echo: it has no argument y; x is missing (its arguments: x)"
    with pytest.raises(InvalidArguments, match="it has no argument y; x is missing") as ours:
        await Wrong.over(us.rpc).echo(CTX, y=1)
    assert (ours.value.method, ours.value.is_remote) == ("echo", True)

    class WrongThere(Contract, Protocol, topic="oslo", version="6.0", exchange="nova"):
        @call()
        async def echo(self, ctx: Context, *, y: int = 0) -> None: ...

    with pytest.raises(RemoteError, match="unexpected keyword argument 'y'") as there:
        await WrongThere.over(us.rpc).echo(CTX, y=1)
    assert there.value.exc_type == "TypeError"


async def test_4_3_a_monitored_call_of_an_unknown_method_ends_at_once_and_gets_no_beats(oslo: OsloPeer, us: Us, raw: Raw) -> None:
    found = await oslo.call("ours", "nope", call_monitor_timeout=2)
    assert found["remote"] == "NoSuchMethod"
    assert found["took_s"] < 5


async def test_an_unserialisable_result_of_ours_is_an_error_at_the_oslo_caller_at_once(oslo: OsloPeer, us: Us) -> None:
    found = await oslo.call("ours", "unserialisable")
    assert found["remote"] == "UnserialisableResult"
    assert "object" in found["value"]
    assert found["took_s"] < 5


async def test_a_result_of_oslo_s_that_is_not_of_the_contract_s_type_is_named(oslo: OsloPeer, us: Us) -> None:
    class Wrong(Contract, Protocol, topic="oslo", version="6.0", exchange="nova"):
        @call()
        async def which(self, ctx: Context) -> int: ...

    with pytest.raises(UnusableReply, match="which on oslo"):
        await Wrong.over(us.rpc).which(CTX)
