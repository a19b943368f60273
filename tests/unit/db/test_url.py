"""Which driver an operator's URL means."""

import pytest

from common.base.errors import Misconfigured
from common.db.url import parse


@pytest.mark.parametrize(
    ("connection", "dialect", "driver", "shown"),
    [
        ("sqlite:////var/lib/lite/lite.sqlite", "sqlite", "sqlite+aiosqlite", "sqlite:////var/lib/lite/lite.sqlite"),
        ("postgresql://u:secret@h/db", "postgresql", "postgresql+asyncpg", "postgresql://u:***@h/db"),
        ("postgres://u:secret@h:5/db", "postgresql", "postgresql+asyncpg", "postgres://u:***@h:5/db"),
        ("postgresql+psycopg2://u:secret@h/db?sslmode=disable", "postgresql", "postgresql+asyncpg", "postgresql://u:***@h/db"),
        ("mysql+pymysql://u:secret@h/db?charset=utf8", "mysql", "mysql+aiomysql", "mysql://u:***@h/db"),
        ("mysql://u:secret@h/db", "mysql", "mysql+aiomysql", "mysql://u:***@h/db"),
        ("mariadb://u:secret@h/db", "mysql", "mysql+aiomysql", "mariadb://u:***@h/db"),
    ],
)
def test_the_urls_that_operators_write_get_the_async_driver_of_the_same_database(
    connection: str, dialect: str, driver: str, shown: str
) -> None:
    address = parse(connection)
    assert (address.dialect, address.url.drivername, address.shown) == (dialect, driver, shown)


@pytest.mark.parametrize(
    ("connection", "word"),
    [
        ("oracle://u:secret@h/db", "oracle"),
        ("secret", "not a URL"),
        ("postgresql://u:secret@h:port/db", "not a URL"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:////f?mode=ro", "mode"),
        ("mysql://u:secret@h/db?frobnicate=secret", "frobnicate"),
        ("postgresql://u:secret@h/db?options=secret", "options"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_its_password(connection: str, word: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse(connection)
    assert word in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_password_shows_in_the_repr_of_an_address() -> None:
    assert "secret" not in repr(parse("mysql://u:secret@h/db"))


def test_the_options_of_libpq_reach_the_driver_under_its_own_names() -> None:
    address = parse("postgresql://u@/db?host=/run/pg&sslmode=require&application_name=x")
    assert address.connect_args["ssl"] == "require"
    assert address.connect_args["server_settings"]["application_name"] == "x"
    assert dict(address.url.query) == {"host": "/run/pg"}
