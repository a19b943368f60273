"""What is logged, where, and that no secret is in it."""

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import structlog

from common.app.logs import bind_request, configure_logs
from common.app.masking import mask, mask_text
from common.base.context import Context
from common.base.ids import RequestId

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def configured(*, debug: bool = False, log_format: str = "json") -> io.StringIO:
    out = io.StringIO()
    configure_logs(service="nova-compute", host="cmp1", debug=debug, log_format=log_format, stream=lambda: out)
    return out


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_every_event_says_which_process_logged_it_and_for_which_request() -> None:
    out = configured()
    bind_request(Context(request_id=RequestId("req-1")))
    structlog.get_logger().info("attached", volume_id="v1")
    (line,) = lines(out)
    assert (line["service"], line["host"], line["pid"]) == ("nova-compute", "cmp1", os.getpid())
    assert (line["event"], line["level"], line["request_id"], line["volume_id"]) == ("attached", "info", "req-1", "v1")
    assert str(line["timestamp"]).endswith("Z")


def test_records_of_other_libraries_come_in_the_same_form() -> None:
    out = configured()
    bind_request(Context(request_id=RequestId("req-1")))
    logging.getLogger("aio_pika.robust").warning("connection to %s lost", "h1")
    (line,) = lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("connection to h1 lost", "warning", "aio_pika.robust")
    assert (line["service"], line["request_id"]) == ("nova-compute", "req-1")
    assert not [key for key in line if key.startswith("_")]


@pytest.mark.parametrize(
    ("debug", "events"),
    [(False, ["own info", "other warning"]), (True, ["own debug", "own info", "other info", "other warning"])],
)
def test_debug_opens_one_more_level_of_each(debug: bool, events: list[str]) -> None:
    logging.getLogger("sqlalchemy.engine").setLevel(logging.DEBUG)
    out = configured(debug=debug)
    structlog.get_logger().debug("own debug")
    structlog.get_logger().info("own info")
    for name in ("sqlalchemy.engine", "alembic", "asyncio", "kombu", "aiormq"):
        logging.getLogger(name).debug("other debug")
    logging.getLogger("sqlalchemy.engine").info("other info")
    logging.getLogger("kombu").warning("other warning")
    assert [line["event"] for line in lines(out)] == events


@pytest.mark.parametrize("debug", [False, True])
def test_a_broker_that_is_lost_and_found_again_is_two_lines(debug: bool) -> None:
    out = configured(debug=debug)
    logging.getLogger("aiormq.connection").warning("Cancelling cause reader exited abnormally", exc_info=OSError("reset"))
    logging.getLogger("common.transport.kept_link").warning("lost the connection to h1; it is made again")
    logging.getLogger("aiormq.connection").error("error when creating transport: refused")
    logging.getLogger("common.transport.kept_link").info("connected again to h1")
    ours = ["lost the connection to h1; it is made again", "connected again to h1"]
    events = [line["event"] for line in lines(out)]
    assert [event for event in events if event in ours] == ours
    assert len(events) == (4 if debug else 2)


def test_a_second_configuration_replaces_the_first() -> None:
    first, second = configured(), configured()
    structlog.get_logger().info("x")
    logging.getLogger("kombu").warning("y")
    assert (first.getvalue(), [line["event"] for line in lines(second)]) == ("", ["x", "y"])


def test_a_warning_of_python_is_logged() -> None:
    out = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configured_again = configured()
        warnings.warn("old way", DeprecationWarning, stacklevel=1)
    assert out.getvalue() == ""
    assert "old way" in configured_again.getvalue()


@dataclass
class Volume:
    provider_auth: str
    name: str = "volume-1"


PLANTED = [
    pytest.param({"auth_password": SECRET}, id="a key"),
    pytest.param({"connection_info": {"data": {"auth_password": SECRET, "target_lun": 1}}}, id="a nested key"),
    pytest.param({"bdms": [{"data": {"discovery_auth_password": SECRET}}]}, id="a key in a list"),
    pytest.param({"headers": {"Auth_Token": SECRET}}, id="a key in other letters"),
    pytest.param({"transport_url": f"rabbit://nova:{SECRET}@h/"}, id="the bus"),
    pytest.param({"connection": f"mysql://nova:{SECRET}@h/nova"}, id="the database"),
    pytest.param({"url": f"rabbit://nova:{SECRET}@h:5672/"}, id="a url"),
    pytest.param({"url": f"redis://:{SECRET}@h:6379/0"}, id="a url without a user"),
    pytest.param({"url": f"rabbit://a:{SECRET}/@{SECRET}@h"}, id="a url with @ and / in the password"),
    pytest.param({"url": f"rabbit://a:x@h1:5672,b:{SECRET}@h2:5672/v"}, id="a url with two hosts"),
    pytest.param({"reason": f"could not open amqp+ssl://u:{SECRET}@h, giving up"}, id="a url within a sentence"),
    pytest.param({"auth": f"CHAP user {SECRET}"}, id="provider_auth's form"),
    pytest.param({"row": Volume(provider_auth=f"CHAP user {SECRET}")}, id="an object's repr"),
    pytest.param({"text": json.dumps({"auth_password": SECRET, "x": 1})}, id="JSON text"),
    pytest.param({"text": json.dumps(json.dumps({"auth_password": SECRET}))}, id="JSON within JSON"),
    pytest.param({"text": str({"auth_password": SECRET})}, id="a dict's text"),
    pytest.param({"text": json.dumps(json.dumps({"password": f'a"b{SECRET}', "x": "y"}))}, id="a quote in the password"),
    pytest.param({"text": f'{{"password": "{SECRET}'}, id="JSON that was cut off"),
    pytest.param({"argv": ["tgtadm", f"--password={SECRET}"]}, id="an argument"),
    pytest.param({"body": f'{{"password": "{SECRET}"}}'.encode()}, id="bytes"),
    pytest.param({"error": ValueError(f"password={SECRET}")}, id="an exception"),
    pytest.param({"deep": [[[[[[[[[[{"password": SECRET}]]]]]]]]]]}, id="deeper than anybody looks"),
]


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_planted_secret_is_logged(planted: dict[str, object], log_format: str) -> None:
    out = configured(log_format=log_format)
    structlog.get_logger().warning("planted", **planted)
    structlog.get_logger().warning(f"planted {planted}")
    logging.getLogger("kombu").warning("planted %s", planted)
    assert out.getvalue().count("planted") >= 3
    assert SECRET not in out.getvalue()


def refuse(reason: str) -> None:
    raise ConnectionError(reason)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_logged_with_a_traceback(log_format: str) -> None:
    out = configured(log_format=log_format)
    try:
        refuse("@".join([f"amqp://u:{SECRET}", "h refused"]))
    except ConnectionError:
        structlog.get_logger().exception("own")
        logging.getLogger("kombu").exception("other")
    assert out.getvalue().count("Traceback (most recent call last)") == 2
    assert out.getvalue().count("amqp://u:***@h refused") == 2
    assert SECRET not in out.getvalue()


@pytest.mark.parametrize(
    "harmless",
    [
        "cinder-volume.cmp1@lvm",
        "iqn.2010-10.org.openstack:volume-1",
        "sqlite:////var/lib/lite.sqlite",
        "rabbit://h:5672/vhost",
        "lost connection: refused",
        "[database] connection: unknown option; it belongs to [DEFAULT]",
        "10.0.0.4:3260,1 iqn.x:volume-1 1",
    ],
)
def test_what_is_no_secret_stays_as_it_is(harmless: str) -> None:
    assert mask_text(harmless) == harmless


def test_masking_keeps_the_shape_and_says_when_there_was_no_secret() -> None:
    event = {"data": {"auth_password": None, "lun": 1, "ok": True, "size": 1.5, "hosts": ("a", "b")}, "password": ""}
    assert mask(event) == {
        "data": {"auth_password": None, "lun": 1, "ok": True, "size": 1.5, "hosts": ["a", "b"]},
        "password": "***",
    }
    assert event["password"] == ""


def test_masking_a_long_text_takes_time_in_proportion() -> None:
    assert mask_text("a" * 200_000) == "a" * 200_000
    assert mask_text("password" * 20_000 + "_") == "password" * 20_000 + "_"


def test_the_console_shows_a_line_without_colours_when_nobody_looks() -> None:
    out = configured(log_format="console")
    structlog.get_logger().info("attached", volume_id="v1")
    assert "\x1b" not in out.getvalue()
    assert "attached" in out.getvalue()
    assert "volume_id=v1" in out.getvalue()
