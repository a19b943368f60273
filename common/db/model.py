"""Pieces that every table is made of: timestamps, the two kinds of soft delete, JSON as text, names of constraints.

Nova's `deleted` is an integer that takes the row's own id, so that unique keys can hold it; cinder's is a boolean.
"""

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    true,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect

MYSQL_TABLE: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
"""Binary collation: names differ by case on MariaDB as they do on PostgreSQL and SQLite."""


def new_metadata() -> MetaData:
    """An empty collection of tables whose constraints get the same names on every database."""
    return MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uniq_%(table_name)s0%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        }
    )


def moment() -> DateTime:
    """A naive UTC time with microseconds; MariaDB's plain DATETIME cuts them off."""
    return DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def big_id() -> BigInteger:
    """A counter that does not run out. SQLite counts only in a column of type INTEGER (sqlite.org/autoinc.html)."""
    return BigInteger().with_variant(Integer(), "sqlite")


class JsonText(TypeDecorator[Any]):
    """JSON kept as text, as nova and cinder keep it; None is SQL's NULL. MariaDB: MEDIUMTEXT, 16 MiB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """The column's type in one database."""
        return mysql.MEDIUMTEXT() if dialect.name == "mysql" else self.impl_instance

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - the base class's signature
        """Python to column."""
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - the base class's signature
        """Column to Python."""
        return None if value is None else json.loads(value)


def timestamps() -> tuple[Column[Any], ...]:
    """created_at, updated_at."""
    return Column("created_at", moment()), Column("updated_at", moment())


def nova_soft_delete() -> tuple[Column[Any], ...]:
    """deleted_at, and deleted: 0 while the row lives, then its id."""
    return Column("deleted_at", moment()), Column("deleted", Integer(), nullable=False, default=0)


def cinder_soft_delete() -> tuple[Column[Any], ...]:
    """deleted_at, and deleted: a boolean."""
    return Column("deleted_at", moment()), Column("deleted", Boolean(), nullable=False, default=False)


def live(table: Table) -> ColumnElement[bool]:
    """True for rows that are not soft-deleted, of either kind; for every row of a table without `deleted`."""
    if "deleted" not in table.c:
        return true()
    deleted = table.c.deleted
    return deleted.is_(False) if isinstance(deleted.type, Boolean) else deleted == 0
