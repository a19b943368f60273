"""Contracts as a file: what is in it, what is refused, and that today's contracts still understand those that were kept."""

import copy
import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from common.app.service import services
from common.base.context import Context
from common.base.errors import Fault
from common.rpc.contract import Contract, call
from common.rpc.evolution import Breaks, changes
from common.rpc.snapshot import SIZE_MAX, NotASnapshot, NotDescribable, Snapshot, dump, read, take

KEPT = Path(__file__).parent / "data" / "contracts.json"
RENEW = f"""
Clients and servers of the kept contracts and of today's do not understand each other. Mend the contracts (README, "Changing a
contract"); or, if the break is meant and every peer is changed at once, keep today's contracts on purpose:

    lite contract dump > {KEPT.relative_to(Path(__file__).parents[3])}
"""


def installed() -> Snapshot:
    return take({name: service.contracts for name, service in services().items()})


def test_today_s_contracts_and_the_kept_ones_understand_each_other() -> None:
    kept = read(KEPT.read_bytes(), name=str(KEPT))
    broken = [str(change) for change in changes(kept, installed()) if change.breaks is not Breaks.NOBODY]
    assert not broken, "\n".join([*broken, RENEW])


def test_a_kept_document_gives_the_same_contracts_and_the_same_bytes_again() -> None:
    text = dump(installed())
    again = read(text.encode(), name="kept")
    assert dump(again) == text
    assert changes(again, installed()) == []
    assert changes(installed(), again) == []


def test_the_document_holds_no_words_for_readers_so_that_a_comment_changes_no_byte() -> None:
    found = json.loads(dump(installed()))
    schemas = found["components"]["schemas"].values()
    assert all({"title", "description", "default"}.isdisjoint(schema) for schema in schemas)
    assert all("doc" not in contract for contract in found["contracts"].values())


def test_what_a_method_is_stands_in_the_document() -> None:
    found = installed()
    compute = found.contracts["nova.ComputeManagerAPI"]
    reserve = compute.methods["reserve_block_device_name"]
    assert (compute.topic, compute.exchange, compute.version, compute.namespace) == ("compute", "nova", "6.5", None)
    assert (reserve.kind, reserve.version, reserve.required) == ("call", "6.0", ("instance", "device", "volume_id"))
    assert "nova.exception.InstanceNotFound" in compute.errors
    assert found.errors["nova.exception.InstanceNotFound"].code == 404
    assert found.contracts["nova.GuestProbe"].namespace == "probe"


DEEP = '{"anyOf": [' * 70 + "{}" + "]}" * 70


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "truncated"),
        (b"[]", "JSON list"),
        (b"{", "truncated"),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, "recursion"),
        (b"{}", "format is not given"),
        (b'{"format": "lite-contracts/9"}', "format is lite-contracts/9; wanted: lite-contracts/1"),
        (b'{"asyncapi": "3.0.0"}', "AsyncAPI document"),
        (b'{"format": "lite-contracts/1"}', "missing required field"),
        (b"x" * (SIZE_MAX + 1), "larger than"),
    ],
    ids=["empty", "list", "cut", "bytes", "nested", "object", "newer", "asyncapi", "hollow", "large"],
)
def test_what_is_no_kept_document_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(NotASnapshot, match=r"old\.json is no document of `lite contract dump`") as caught:
        read(data, name="old.json")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("contracts", "nova.ComputeAPI", "version"), "one", "'one' is not a version"),
        (("contracts", "nova.ComputeAPI", "methods", "get", "kind"), "shout", "Invalid enum value 'shout'"),
        (("contracts", "nova.ComputeAPI", "methods", "get", "required"), ["nothing"], "nothing is required and no argument"),
        (("contracts", "nova.ComputeAPI", "errors"), ["x.Y"], "nothing is said of its error x.Y"),
        (
            ("contracts", "nova.ComputeAPI", "methods", "get", "result"),
            {"$ref": "#/components/schemas/Nobody"},
            "Nobody, which is not",
        ),
        (("components", "schemas", "Volume"), {"$ref": "#/components/schemas/Volume"}, "refers only to another"),
        (("components", "schemas", "Volume"), {"oneOf": []}, "unknown field `oneOf`"),
        (("components", "schemas", "Volume"), {"type": 5}, "Expected `str | null`, got `int`"),
        (("components", "schemas", "Volume"), json.loads(DEEP), "deeper than 64"),
    ],
)
def test_a_kept_document_that_contradicts_itself_is_refused_with_the_place(place: tuple[str, ...], value: Any, words: str) -> None:
    found = json.loads(dump(installed()))
    inside = found
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    with pytest.raises(NotASnapshot) as caught:
        read(json.dumps(found).encode(), name="old.json")
    assert words in str(caught.value)


def _spoilt(found: Any, rng: random.Random) -> None:
    """Change one place somewhere inside."""
    while True:
        keys = list(found) if isinstance(found, dict) else list(range(len(found)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(found[key], dict | list) or rng.random() < 0.15:
            found[key] = rng.choice(
                [None, 5, "x", [], {}, {"$ref": "#/components/schemas/Volume"}, {"enum": [1, None]}, True, -1.5]
            )
            return
        found = found[key]


def test_a_spoilt_document_is_refused_or_compared_and_nothing_else() -> None:
    good, today, refused = json.loads(dump(installed())), installed(), 0
    for seed in range(400):
        spoilt = copy.deepcopy(good)
        _spoilt(spoilt, random.Random(seed))
        try:
            kept = read(json.dumps(spoilt).encode(), name="old.json")
        except Fault:
            refused += 1
        else:
            changes(kept, today)
            changes(today, kept)
    assert 50 < refused < 400


class Odd:
    """Of no JSON form."""


class OddAPI(Contract, Protocol, topic="odd", version="1.0"):
    @call()
    async def see(self, ctx: Context, *, thing: Odd) -> None: ...


def test_a_contract_with_a_type_that_json_does_not_know_is_named_as_not_describable() -> None:
    contracts: list[Any] = [OddAPI]
    with pytest.raises(NotDescribable, match="Odd"):
        take({"s": contracts})


class Contradictory(Contract, Protocol, topic="odd", version="2.0"):
    @call(since="1.0")
    async def see(self, ctx: Context) -> None: ...


def test_a_contract_that_contradicts_itself_is_named_too() -> None:
    contracts: list[Any] = [Contradictory]
    with pytest.raises(NotDescribable, match=r"Contradictory.see: since=1\.0"):
        take({"s": contracts})


class Moment(msgspec.Struct):
    at: datetime
    until: datetime | None = None


class MomentAPI(Contract, Protocol, topic="moments", version="1.0"):
    @call()
    async def between(self, ctx: Context, *, moments: list[Moment], spans: dict[str, datetime]) -> tuple[datetime, int]: ...


def test_a_datetime_is_told_from_any_text_wherever_it_stands() -> None:
    contracts: list[Any] = [MomentAPI]
    found = json.loads(dump(take({"s": contracts})))
    method = found["contracts"]["s.MomentAPI"]["methods"]["between"]
    time = {"type": "string", "format": "iso-8601-date-time"}
    assert method["arguments"]["spans"]["additionalProperties"] == time
    assert method["result"]["prefixItems"] == [time, {"type": "integer"}]
    properties = found["components"]["schemas"]["Moment"]["properties"]
    assert properties == {"at": time, "until": {"anyOf": [time, {"type": "null"}]}}
