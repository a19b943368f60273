"""`lite rpc`: from words to a route and arguments."""

from pathlib import Path
from typing import Any

import pytest
import typer

from common.app.rpc_command import _arguments, _route
from common.app.whole import Whole, read_whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    state: Path = tmp_path_factory.mktemp("state")
    return read_whole(None, overrides={"DEFAULT": {"state_path": str(state)}})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("a=text", "text"),
        ("a=5", 5),
        ("a=1.5", 1.5),
        ("a=true", True),
        ("a=null", None),
        ('a={"size": 1}', {"size": 1}),
        ("a=[1, 2]", [1, 2]),
        ('a="5"', "5"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("a={broken", "{broken"),
        ("a=6a1f", "6a1f"),
    ],
)
def test_a_value_that_is_json_is_sent_as_such_and_any_other_as_text(word: str, value: Any) -> None:
    assert _arguments([word]) == {"a": value}


def test_no_words_are_no_arguments_and_of_two_the_last_counts() -> None:
    assert _arguments(None) == {}
    assert _arguments(["a=1", "b=2", "a=3"]) == {"a": 3, "b": 2}


@pytest.mark.parametrize("word", ["novalue", "=5", "a-b=5", "1a=5", " a=5"])
def test_a_word_that_is_no_argument_is_refused_with_what_is_wanted(word: str) -> None:
    with pytest.raises(typer.BadParameter, match="wanted: KEY=VALUE"):
        _arguments([word])


def test_a_known_topic_has_its_owner_s_exchange_and_the_method_s_version(whole: Whole) -> None:
    for topic in ("cinder-volume", "cinder-volume.host@gold", "cinder-volume.host@gold.host"):
        route = _route(whole, topic, "initialize_connection", None, None, None, None)
        assert (route.topic, route.exchange, route.server) == (
            topic,
            "openstack" if route.exchange == "openstack" else "cinder",
            None,
        )
        assert route.version.startswith("3.")
    assert _route(whole, "compute.cmp1", "attach_volume", None, None, None, 2.5).timeout_s == 2.5


def test_an_unknown_topic_has_oslo_s_defaults(whole: Whole) -> None:
    route = _route(whole, "computer", "x", None, None, None, None, is_fanout=True)
    assert (route.version, route.exchange, route.namespace, route.timeout_s, route.fanout) == ("1.0", "openstack", None, None, True)


def test_what_the_user_says_wins(whole: Whole) -> None:
    route = _route(whole, "compute", "attach_volume", "9.9", "ns", "other", None)
    assert (route.version, route.namespace, route.exchange) == ("9.9", "ns", "other")


def test_the_exchange_of_a_topic_is_its_owner_s(whole: Whole) -> None:
    owned = {contract.__rpc_route__ for service in whole.installed for contract in service.contracts}
    for route in owned:
        assert whole.exchange_of(route.topic) == (route.exchange or "openstack")
        assert whole.exchange_of(f"{route.topic}.host1") == (route.exchange or "openstack")
    assert whole.exchange_of("cinder") == "openstack"
    assert whole.exchange_of("cinder-volumes") == "openstack"
