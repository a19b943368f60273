"""A message bus in a database: queues that any number of processes share, in tables of its own beside whatever is there.

A message is a row; whoever holds it writes his name into it, and settling it deletes it or takes the name away again. The number of a
row only grows, so a message given back finds its old place. A member renews its lease whenever it takes or sweeps; what is held by
nobody that has one goes back: at least once, as a broker that sees a connection die.

Leases are stamped with the time of day of each machine: those that share a bus need clocks that differ by less than LEASE_S.
Nobody is called: consumers ask again and again, slower and slower while nothing comes.
Every call is one transaction. SQLite takes one writer at a time, which the file's lock gives; the others skip rows that are locked.
"""

import os
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from itertools import count

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)  # fmt: skip
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError, IntegrityError

from common.transport.kombu_store import LEASE_S
from common.transport.port import QueueDepth

_NAME = String(255).with_variant(mysql.VARCHAR(255, collation="utf8mb4_bin"), "mysql", "mariadb")
_ID = BigInteger().with_variant(Integer, "sqlite")
_BODY = LargeBinary().with_variant(mysql.LONGBLOB, "mysql", "mariadb")
READS = "lite_reads"
"""The execution option of a connection that changes nothing: it begins no transaction that locks the file."""

METADATA = MetaData()
QUEUES = Table(
    "lite_bus_queue",
    METADATA,
    Column("name", _NAME, primary_key=True),
    Column("auto_delete", Boolean, nullable=False),
    Column("expires_ms", BigInteger),
    Column("used_s", Float(53), nullable=False),
)
BINDINGS = Table(
    "lite_bus_binding",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("exchange", _NAME, nullable=False, index=True),
    Column("key", _NAME, nullable=False),
    Column("queue", _NAME, nullable=False, index=True),
)
MESSAGES = Table(
    "lite_bus_message",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("queue", _NAME, nullable=False),
    Column("holder", _NAME, index=True),
    Column("redelivered", Boolean, nullable=False),
    Column("data", _BODY, nullable=False),
    Index("ix_lite_bus_message_waiting", "queue", "holder", "id"),
    sqlite_autoincrement=True,
)
MEMBERS = Table("lite_bus_member", METADATA, Column("name", _NAME, primary_key=True), Column("until_s", Float(53), nullable=False))
CONSUMERS = Table(
    "lite_bus_consumer",
    METADATA,
    Column("name", _NAME, primary_key=True),
    Column("queue", _NAME, nullable=False, index=True),
    Column("member", _NAME, nullable=False),
)


@dataclass(frozen=True, slots=True)
class SqlClaim:
    """A message that this member holds."""

    id: int
    data: bytes
    redelivered: bool


class SqlStore:
    """Implements `kombu_store.Store`. For one thread.

    engine   with timeouts of its own
    """

    poll_s = (0.002, 0.1)

    def __init__(self, engine: Engine, *, lease_s: float = LEASE_S) -> None:
        self._engine = engine
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT", **{READS: True})
        self._lease_s = lease_s
        self._me = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._numbers = count()
        self._renewed_s = 0.0
        self._present: dict[str, str] = {}

    def create(self) -> None:
        """Make the tables; another process may do so at the same moment."""
        try:
            METADATA.create_all(self._engine)
        except DBAPIError:
            METADATA.create_all(self._engine)

    def declare(self, queue: str, *, auto_delete: bool, expires_ms: int | None) -> bool:
        if self.has(queue):
            return False
        try:
            with self._engine.begin() as made:
                made.execute(insert(QUEUES).values(name=queue, auto_delete=auto_delete, expires_ms=expires_ms, used_s=time.time()))
        except IntegrityError:
            return False  # somebody else was quicker
        return True

    def has(self, queue: str) -> bool:
        with self._reader.connect() as seen:
            return seen.execute(select(QUEUES.c.name).where(QUEUES.c.name == queue)).first() is not None

    def delete(self, queue: str) -> None:
        with self._engine.begin() as made:
            _delete(made, queue)

    def bind(self, exchange: str, key: str, queue: str) -> None:
        mine = (BINDINGS.c.exchange == exchange, BINDINGS.c.key == key, BINDINGS.c.queue == queue)
        with self._reader.connect() as seen:
            if seen.execute(select(BINDINGS.c.id).where(*mine)).first() is not None:
                return
        with self._engine.begin() as made:  # a second row of the same binding does no harm: a queue takes one copy
            made.execute(insert(BINDINGS).values(exchange=exchange, key=key, queue=queue))

    def table(self, exchange: str) -> list[tuple[str, str, str]]:
        with self._reader.connect() as seen:
            rows = seen.execute(
                select(BINDINGS.c.key, BINDINGS.c.queue).where(BINDINGS.c.exchange == exchange).order_by(BINDINGS.c.id)
            )
            return [(key, "", queue) for key, queue in rows]

    def put(self, queue: str, data: bytes) -> bool:
        with self._engine.begin() as made:
            # The row is locked, so that nobody deletes the queue meanwhile and leaves the message behind.
            wanted = select(QUEUES.c.name).where(QUEUES.c.name == queue).with_for_update(read=True, key_share=True)
            if made.execute(wanted).first() is None:
                return False
            made.execute(insert(MESSAGES).values(queue=queue, redelivered=False, data=data))
        return True

    def take(self, queue: str) -> SqlClaim | None:
        wanted = (
            select(MESSAGES.c.id).where(MESSAGES.c.queue == queue, MESSAGES.c.holder.is_(None)).order_by(MESSAGES.c.id).limit(1)
        )
        with self._reader.connect() as seen:
            if seen.execute(wanted).first() is None:
                return None
        with self._engine.begin() as made:
            if time.time() - self._renewed_s > self._lease_s / 3:
                self._renew(made)
            number = made.execute(wanted.with_for_update(skip_locked=True)).scalar()
            if number is None:
                return None
            made.execute(update(MESSAGES).where(MESSAGES.c.id == number).values(holder=self._me))
            row = made.execute(select(MESSAGES.c.data, MESSAGES.c.redelivered).where(MESSAGES.c.id == number)).one()
        return SqlClaim(number, row.data, row.redelivered)

    def release(self, claim: SqlClaim) -> bool:
        with self._engine.begin() as made:
            return made.execute(delete(MESSAGES).where(*self._mine(claim))).rowcount == 1

    def give_back(self, claim: SqlClaim) -> None:
        with self._engine.begin() as made:
            made.execute(update(MESSAGES).where(*self._mine(claim)).values(holder=None, redelivered=True))

    def give_back_others(self, claims: Collection[SqlClaim]) -> None:
        others = MESSAGES.c.id.not_in([claim.id for claim in claims])
        with self._engine.begin() as made:
            made.execute(update(MESSAGES).where(MESSAGES.c.holder == self._me, others).values(holder=None, redelivered=True))

    def join(self, queue: str) -> "SqlPresence":
        consumer = f"{self._me}.{next(self._numbers)}"
        with self._engine.begin() as made:
            self._renew(made)
            made.execute(insert(CONSUMERS).values(name=consumer, queue=queue, member=self._me))
        self._present[consumer] = queue
        return SqlPresence(self, consumer)

    def part(self, consumer: str) -> None:
        """The consumer of that name is none any more."""
        if self._present.pop(consumer, None) is not None:
            with self._engine.begin() as made:
                made.execute(delete(CONSUMERS).where(CONSUMERS.c.name == consumer))

    def consumers(self, queue: str) -> int:
        with self._reader.connect() as seen:
            return _consumers(seen, queue)

    def depth(self, queue: str) -> QueueDepth | None:
        counted = select(func.count(), func.count(MESSAGES.c.holder)).where(MESSAGES.c.queue == queue)
        with self._reader.connect() as seen:
            if seen.execute(select(QUEUES.c.name).where(QUEUES.c.name == queue)).first() is None:
                return None
            total, held = seen.execute(counted).one()
            return QueueDepth(total - held, held, _consumers(seen, queue))

    def drop_auto_delete(self, queue: str) -> None:
        with self._engine.begin() as made:
            _drop_auto_delete(made, queue)

    def sweep(self, queues: Collection[str]) -> None:
        with self._engine.begin() as made:
            self._renew(made)
            if queues:
                used = (QUEUES.c.name.in_(list(queues)), QUEUES.c.expires_ms.is_not(None))
                made.execute(update(QUEUES).where(*used).values(used_s=time.time()))
        with self._engine.begin() as made:
            _bury(made)

    def leave(self) -> None:
        with self._engine.begin() as made:
            made.execute(update(MESSAGES).where(MESSAGES.c.holder == self._me).values(holder=None, redelivered=True))
            made.execute(delete(CONSUMERS).where(CONSUMERS.c.member == self._me))
            made.execute(delete(MEMBERS).where(MEMBERS.c.name == self._me))

    def _mine(self, claim: SqlClaim) -> tuple[ColumnElement[bool], ...]:
        return (MESSAGES.c.id == claim.id, MESSAGES.c.holder == self._me)

    def _renew(self, made: Connection) -> None:
        """Before the statements that need it, in their transaction."""
        now_s = time.time()
        found = made.execute(update(MEMBERS).where(MEMBERS.c.name == self._me).values(until_s=now_s + self._lease_s))
        if found.rowcount == 0:
            made.execute(insert(MEMBERS).values(name=self._me, until_s=now_s + self._lease_s))
            for consumer, queue in self._present.items():  # somebody took this member for dead
                made.execute(insert(CONSUMERS).values(name=consumer, queue=queue, member=self._me))
        self._renewed_s = now_s


@dataclass(frozen=True, slots=True)
class SqlPresence:
    """One consumer. Nobody calls it."""

    store: SqlStore
    consumer: str
    pipe: int = -1

    def drain(self) -> None:
        """There are no calls."""

    def close(self) -> None:
        self.store.part(self.consumer)


def _bury(made: Connection) -> None:
    """What dead members held and what nobody uses any more."""
    now_s = time.time()
    # Locked: one that comes back to life at this moment waits, and then joins anew with all of its consumers.
    dead = select(MEMBERS.c.name).where(MEMBERS.c.until_s < now_s).with_for_update(skip_locked=True)
    names = list(made.execute(dead).scalars())
    if names:
        left = list(made.execute(select(CONSUMERS.c.queue).where(CONSUMERS.c.member.in_(names))).scalars())
        made.execute(update(MESSAGES).where(MESSAGES.c.holder.in_(names)).values(holder=None, redelivered=True))
        made.execute(delete(CONSUMERS).where(CONSUMERS.c.member.in_(names)))
        made.execute(delete(MEMBERS).where(MEMBERS.c.name.in_(names)))
        for queue in left:
            _drop_auto_delete(made, queue)
    over = or_(QUEUES.c.expires_ms.is_(None), QUEUES.c.used_s + QUEUES.c.expires_ms / 1000.0 > now_s).is_(False)
    for queue in list(made.execute(select(QUEUES.c.name).where(over)).scalars()):
        if _consumers(made, queue) == 0:
            _delete(made, queue)


def _consumers(seen: Connection, queue: str) -> int:
    living = select(MEMBERS.c.name).where(MEMBERS.c.until_s >= time.time())
    wanted = select(func.count()).select_from(CONSUMERS).where(CONSUMERS.c.queue == queue, CONSUMERS.c.member.in_(living))
    return int(seen.execute(wanted).scalar_one())


def _drop_auto_delete(made: Connection, queue: str) -> None:
    declared = made.execute(select(QUEUES.c.auto_delete).where(QUEUES.c.name == queue)).scalar()
    if declared and _consumers(made, queue) == 0:
        _delete(made, queue)


def _delete(made: Connection, queue: str) -> None:
    made.execute(delete(QUEUES).where(QUEUES.c.name == queue))
    made.execute(delete(BINDINGS).where(BINDINGS.c.queue == queue))
    made.execute(delete(MESSAGES).where(MESSAGES.c.queue == queue))
