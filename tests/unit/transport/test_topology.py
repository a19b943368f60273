import pytest
from hypothesis import given, strategies as st

from common.transport.topology import Route, destinations, matches

WORDS = st.lists(st.sampled_from(["a", "b", "ab", "", "host@file", "*", "#"]), max_size=6)
PATTERNS = WORDS.map(".".join)
KEYS = WORDS.map(".".join)


def slow_match(pattern: list[str], key: list[str]) -> bool:
    """AMQP's sentence word by word, in exponential time."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(slow_match(pattern[1:], key[taken:]) for taken in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and slow_match(pattern[1:], key[1:])


@given(PATTERNS, KEYS)
def test_a_topic_key_matches_as_the_slow_reference_says(pattern: str, key: str) -> None:
    words = [text.split(".") if text else [] for text in (pattern, key)]
    assert matches(pattern, key) == slow_match(*words)


@given(KEYS)
def test_hash_alone_takes_every_key(key: str) -> None:
    assert matches("#", key)


@given(st.lists(st.sampled_from(["compute", "cmp1", "cinder-volume", "host@file"]), min_size=1, max_size=4).map(".".join), KEYS)
def test_a_pattern_without_wildcards_takes_itself_and_nothing_else(pattern: str, key: str) -> None:
    assert matches(pattern, key) == (pattern == key)


def test_many_hashes_cost_no_exponential_time() -> None:
    assert not matches(".".join(["#", "a"] * 60), ".".join(["a"] * 59 + ["b"]))


@pytest.mark.parametrize(("kind", "wanted"), [("fanout", ("one", "two", "three")), ("direct", ("one",)), ("topic", ("one", "two"))])
def test_each_kind_of_exchange_routes_to_each_queue_once(kind: str, wanted: tuple[str, ...]) -> None:
    routes = [Route("a.b", "one"), Route("a.*", "two"), Route("#.b", "one"), Route("b", "three")]
    assert destinations(kind, "a.b", routes) == wanted


def test_an_unknown_kind_of_exchange_is_an_error_that_names_the_known() -> None:
    with pytest.raises(ValueError, match="topic, fanout or direct"):
        destinations("headers", "a", [])
