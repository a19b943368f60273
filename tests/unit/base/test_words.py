"""Ids, versions and retries."""

import re

import pytest
from hypothesis import given, strategies as st

from common.base.ids import is_uuid, new_hex, new_request_id, new_uuid
from common.base.retry import ONCE, Retry
from common.base.version import parse_version, serves
from tests.support.oslo import version_is_compatible


def test_ids_have_openstack_s_forms_and_are_new_each_time() -> None:
    assert is_uuid(new_uuid())
    assert re.fullmatch("[0-9a-f]{32}", new_hex())
    assert is_uuid(new_request_id().removeprefix("req-"))
    assert new_uuid() != new_uuid()


@pytest.mark.parametrize("text", ["", "x", "{12345678-1234-1234-1234-123456789abc}", "12345678123412341234123456789abc"])
def test_what_is_not_a_uuid_with_dashes_is_refused(text: str) -> None:
    assert not is_uuid(text)


def test_a_uuid_may_be_in_capitals() -> None:
    assert is_uuid("12345678-1234-1234-1234-123456789ABC")


@pytest.mark.parametrize("text", ["", "1", "1.0.0.0", "a.b", "-1.0", " 1.0", "1_0.0", "\u0663.0", "1.", ".1"])
def test_what_is_not_a_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_version(text)


def test_a_version_without_revision_has_revision_0() -> None:
    assert parse_version("6.5") == (6, 5, 0) == parse_version("6.5.0")


numbers = st.integers(0, 3)
versions = st.tuples(numbers, numbers) | st.tuples(numbers, numbers, numbers)


@given(versions, versions)
def test_who_serves_whom_is_decided_as_oslo_decides_it(have: tuple[int, ...], want: tuple[int, ...]) -> None:
    implemented, requested = (".".join(map(str, version)) for version in (have, want))
    assert serves(implemented, requested) is bool(version_is_compatible(implemented, requested)), (implemented, requested)


def test_delays_grow_to_their_limit_and_never_overflow() -> None:
    retry = Retry(attempts=9, first_delay_s=1, factor=2, delay_s_max=5)
    assert [retry.delay_s(failures) for failures in (1, 2, 3, 4)] == [1, 2, 4, 5]
    assert retry.delay_s(100_000) == 5
    assert Retry(factor=2.0).delay_s(5000) == 5.0
    assert ONCE.attempts == 1
