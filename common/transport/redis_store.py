"""A message bus in redis: queues that any number of processes on any number of machines share.

Keys, all with one prefix; `<id>` is a number that only grows, so a message given back finds its old place:

    queue:<queue>        hash   how it was declared; redis itself ends it when its `x-expires` is over
    messages:<queue>     hash   id -> message; "id:r" is there if it was delivered before
    waiting:<queue>      zset   ids of those that nobody holds
    held:<member>        hash   id -> queue: what a member holds unsettled
    members              zset   member -> millisecond, by redis' clock, until which it counts as living
    consumers:<queue>    zset   consumer -> the same
    bindings:<exchange>  set    JSON [key, queue]
    bound:<queue>        set    JSON [exchange, that], to find them when the queue goes
    auto_delete          set    queues that end with their last consumer, once they had one
    expiring             set    queues with an `x-expires`
    sequence             the last id
    wake:<queue>         a channel of PUBLISH: look at the queue

Each change is one script, so it is done wholly or not at all, and two never get the same message. A member renews its lease whenever
it takes a message or sweeps; if it does not for LEASE_S, others give back what it held: at least once, as a broker that sees a
connection die. Scripts build the names of their keys, so it is no bus for a redis cluster.
What redis forgets (it was started without `appendonly`), the bus has lost; whoever consumes makes the queue again and is told so.
"""

import json
import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from itertools import count
from typing import Any

from common.transport.kombu_store import LEASE_S
from common.transport.port import QueueDepth

_BURIED_AT_ONCE = 100

_SHARED = """
local p, me = ARGV[1], ARGV[2]
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function renew(lease_ms) redis.call('ZADD', p..'members', now() + lease_ms, me) end
local function keep(queue)
  local left = redis.call('PTTL', p..'queue:'..queue)
  if left > 0 then
    redis.call('PEXPIRE', p..'messages:'..queue, left)
    redis.call('PEXPIRE', p..'waiting:'..queue, left)
  end
end
local function wake(queue) redis.call('PUBLISH', p..'wake:'..queue, '') end
local function give_back(member, id)
  local queue = redis.call('HGET', p..'held:'..member, id)
  if not queue then return end
  redis.call('HDEL', p..'held:'..member, id)
  if redis.call('HEXISTS', p..'messages:'..queue, id) == 1 then
    redis.call('HSET', p..'messages:'..queue, id..':r', '1')
    redis.call('ZADD', p..'waiting:'..queue, id, id)
    keep(queue)
    wake(queue)
  end
end
local function bury(member)
  for _, id in ipairs(redis.call('HKEYS', p..'held:'..member)) do give_back(member, id) end
  redis.call('ZREM', p..'members', member)
end
local function delete(queue)
  for _, entry in ipairs(redis.call('SMEMBERS', p..'bound:'..queue)) do
    local pair = cjson.decode(entry)
    redis.call('SREM', p..'bindings:'..pair[1], pair[2])
  end
  redis.call('DEL', p..'queue:'..queue, p..'messages:'..queue, p..'waiting:'..queue, p..'bound:'..queue)
  redis.call('SREM', p..'auto_delete', queue)
  redis.call('SREM', p..'expiring', queue)
  wake(queue)
end
local function living(queue)
  redis.call('ZREMRANGEBYSCORE', p..'consumers:'..queue, '-inf', now())
  return redis.call('ZCARD', p..'consumers:'..queue)
end
local function drop_auto_delete(queue)
  if redis.call('SISMEMBER', p..'auto_delete', queue) == 1 and living(queue) == 0 then delete(queue) end
end
"""

_DECLARE = """
local queue, auto_delete, expires_ms = ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('EXISTS', p..'queue:'..queue) == 1 then return 0 end
redis.call('HSET', p..'queue:'..queue, 'auto_delete', auto_delete, 'expires_ms', expires_ms)
if expires_ms > 0 then
  redis.call('PEXPIRE', p..'queue:'..queue, expires_ms)
  redis.call('SADD', p..'expiring', queue)
end
return 1
"""
_DELETE = "delete(ARGV[3])"
_BIND = """
redis.call('SADD', p..'bindings:'..ARGV[4], ARGV[5])
redis.call('SADD', p..'bound:'..ARGV[3], cjson.encode({ARGV[4], ARGV[5]}))
"""
_PUT = """
local queue = ARGV[3]
if redis.call('EXISTS', p..'queue:'..queue) == 0 then return 0 end
local id = redis.call('INCR', p..'sequence')
redis.call('HSET', p..'messages:'..queue, id, ARGV[4])
redis.call('ZADD', p..'waiting:'..queue, id, id)
keep(queue)
wake(queue)
return 1
"""
_TAKE = """
local queue = ARGV[3]
renew(tonumber(ARGV[4]))
local found = redis.call('ZPOPMIN', p..'waiting:'..queue)
if #found == 0 then return false end
local id = found[1]
redis.call('HSET', p..'held:'..me, id, queue)
return {id, redis.call('HGET', p..'messages:'..queue, id), redis.call('HEXISTS', p..'messages:'..queue, id..':r')}
"""
_RELEASE = """
local id = ARGV[3]
local queue = redis.call('HGET', p..'held:'..me, id)
if not queue then return 0 end
redis.call('HDEL', p..'held:'..me, id)
redis.call('HDEL', p..'messages:'..queue, id, id..':r')
return 1
"""
_DEPTH = """
local queue = ARGV[3]
if redis.call('EXISTS', p..'queue:'..queue) == 0 then return false end
local all = 0
for _, field in ipairs(redis.call('HKEYS', p..'messages:'..queue)) do
  if string.sub(field, -2) ~= ':r' then all = all + 1 end
end
local waiting = redis.call('ZCARD', p..'waiting:'..queue)
return {waiting, all - waiting, living(queue)}
"""
_GIVE_BACK = "give_back(me, ARGV[3])"
_GIVE_BACK_OTHERS = """
local kept = cjson.decode(ARGV[3])
for _, id in ipairs(redis.call('HKEYS', p..'held:'..me)) do
  if not kept[id] then give_back(me, id) end
end
"""
_JOIN = """
local queue = ARGV[3]
redis.call('ZADD', p..'consumers:'..queue, now() + tonumber(ARGV[5]), ARGV[4])
if redis.call('HGET', p..'queue:'..queue, 'auto_delete') == '1' then redis.call('SADD', p..'auto_delete', queue) end
"""
_PART = "redis.call('ZREM', p..'consumers:'..ARGV[3], ARGV[4])"
_CONSUMERS = "return living(ARGV[3])"
_DROP_AUTO_DELETE = "drop_auto_delete(ARGV[3])"
_LEAVE = "bury(me)"
_SWEEP = """
local lease_ms, consumers = tonumber(ARGV[3]), cjson.decode(ARGV[4])
renew(lease_ms)
for consumer, queue in pairs(consumers) do
  redis.call('ZADD', p..'consumers:'..queue, now() + lease_ms, consumer)
  local expires_ms = tonumber(redis.call('HGET', p..'queue:'..queue, 'expires_ms') or '0')
  if expires_ms > 0 then
    redis.call('PEXPIRE', p..'queue:'..queue, expires_ms)
    keep(queue)
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', p..'members', '-inf', now(), 'LIMIT', 0, tonumber(ARGV[5]))) do bury(member) end
for _, queue in ipairs(redis.call('SMEMBERS', p..'auto_delete')) do drop_auto_delete(queue) end
for _, queue in ipairs(redis.call('SMEMBERS', p..'expiring')) do
  if redis.call('EXISTS', p..'queue:'..queue) == 0 then delete(queue) end
end
"""


@dataclass(frozen=True, slots=True)
class RedisClaim:
    """A message that this member holds."""

    id: int
    data: bytes
    redelivered: bool


class RedisStore:
    """Implements `kombu_store.Store`. For one thread.

    client   redis-py's, with timeouts of its own and without retries
    """

    poll_s = (0.25, 0.25)
    """Consumers are called by PUBLISH; this finds what a broken connection did not hear."""

    def __init__(self, client: Any, *, prefix: str = "lite-bus:", lease_s: float = LEASE_S) -> None:
        self._client = client
        self._prefix = prefix
        self._lease_ms = int(lease_s * 1000)
        self._me = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._numbers = count()
        self._scripts: dict[str, Any] = {}
        self._calls: Any = client.pubsub(ignore_subscribe_messages=True)
        self._present: dict[str, str] = {}

    def declare(self, queue: str, *, auto_delete: bool, expires_ms: int | None) -> bool:
        return bool(self._do(_DECLARE, queue, int(auto_delete), expires_ms or 0))

    def has(self, queue: str) -> bool:
        return bool(self._client.exists(f"{self._prefix}queue:{queue}"))

    def delete(self, queue: str) -> None:
        self._do(_DELETE, queue)

    def bind(self, exchange: str, key: str, queue: str) -> None:
        self._do(_BIND, queue, exchange, json.dumps([key, queue]))

    def table(self, exchange: str) -> list[tuple[str, str, str]]:
        rows = [json.loads(row) for row in self._client.smembers(f"{self._prefix}bindings:{exchange}")]
        return [(key, "", queue) for key, queue in sorted(rows)]

    def put(self, queue: str, data: bytes) -> bool:
        return bool(self._do(_PUT, queue, data))

    def take(self, queue: str) -> RedisClaim | None:
        found = self._do(_TAKE, queue, self._lease_ms)
        return None if found is None else RedisClaim(int(found[0]), found[1] or b"", bool(found[2]))

    def release(self, claim: RedisClaim) -> bool:
        return bool(self._do(_RELEASE, claim.id))

    def give_back(self, claim: RedisClaim) -> None:
        self._do(_GIVE_BACK, claim.id)

    def give_back_others(self, claims: Collection[RedisClaim]) -> None:
        self._do(_GIVE_BACK_OTHERS, json.dumps({str(claim.id): True for claim in claims}))

    def join(self, queue: str) -> "RedisPresence":
        consumer = f"{self._me}.{next(self._numbers)}"
        self._calls.subscribe(f"{self._prefix}wake:{queue}")
        self._do(_JOIN, queue, consumer, self._lease_ms)
        self._present[consumer] = queue
        return RedisPresence(self, consumer)

    def part(self, consumer: str) -> None:
        """The consumer of that name is none any more."""
        queue = self._present.pop(consumer, None)
        if queue is None:
            return
        if queue not in self._present.values():
            self._calls.unsubscribe(f"{self._prefix}wake:{queue}")
        self._do(_PART, queue, consumer)

    def consumers(self, queue: str) -> int:
        return int(self._do(_CONSUMERS, queue))

    def depth(self, queue: str) -> QueueDepth | None:
        found = self._do(_DEPTH, queue)
        return None if found is None else QueueDepth(int(found[0]), int(found[1]), int(found[2]))

    def drop_auto_delete(self, queue: str) -> None:
        self._do(_DROP_AUTO_DELETE, queue)

    def sweep(self, queues: Collection[str]) -> None:  # noqa: ARG002 - those of the consumers that joined
        self._do(_SWEEP, self._lease_ms, json.dumps(self._present), _BURIED_AT_ONCE)

    def leave(self) -> None:
        try:
            self._do(_LEAVE)
        finally:
            self._calls.close()

    @property
    def pipe(self) -> int:
        """The socket by which redis calls; -1 while there is none."""
        connection = self._calls.connection
        sock = None if connection is None else connection._sock
        return -1 if sock is None else int(sock.fileno())

    def drain(self) -> None:
        """Forget the calls that wait."""
        while self._calls.subscribed and self._calls.get_message(timeout=0) is not None:
            pass

    def _do(self, script: str, *arguments: Any) -> Any:
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = self._client.register_script(_SHARED + script)
        return known(args=[self._prefix, self._me, *arguments])


@dataclass(frozen=True, slots=True)
class RedisPresence:
    """One consumer; all of a member are called by one connection."""

    store: RedisStore
    consumer: str

    @property
    def pipe(self) -> int:
        return self.store.pipe

    def drain(self) -> None:
        self.store.drain()

    def close(self) -> None:
        self.store.part(self.consumer)
