"""Share counts of several processes in Redis; imported only if configured.

If Redis does not answer, each process continues with the counts in its own memory. Rejecting everything would make
Redis a single point of failure, and a tenant's use is still bounded: by the quota times the number of processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

__all__ = ["ANSWER_SECONDS", "SharedCounts", "close_redis", "open_redis"]

_LOG = logging.getLogger(__name__)

_PREFIX = "contextunity:quota:"
_SOCKET_SECONDS = 0.25
ANSWER_SECONDS = 0.5
"""Timeout of Redis in seconds; then a call continues without it."""
_AGAIN_SECONDS = 2.0
"""Seconds before the next attempt after Redis did not answer; until then no call waits for it."""
_LEASE_SECONDS = 30.0
"""Seconds after which the slots of a killed process are free again."""
_RENEW_SECONDS = 10.0
_CONNECTIONS = 32

# Use the clock of Redis: those of the processes differ.
_NOW = "local t = redis.call('TIME') local now = t[1] + t[2] / 1000000 "
_RATE = (
    _NOW
    + """
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local known = redis.call('HMGET', KEYS[1], 'left', 'at')
local left, at = tonumber(known[1]) or burst, tonumber(known[2]) or now
left = math.min(burst, left + math.max(0, now - at) * rate)
local wait = 0
if left < 1 then wait = (1 - left) / rate else left = left - 1 end
redis.call('HSET', KEYS[1], 'left', string.format('%.9f', left), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], string.format('%d', math.min(math.ceil(burst / rate) + 1, 31536000)))
return string.format('%.6f', wait)
"""
)
_TAKE = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now))
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[2]), ARGV[3])
redis.call('EXPIRE', KEYS[1], string.format('%d', ARGV[2] + 1))
return 1
"""
)
# Also renew missing ones, as after a restart of Redis.
_RENEW = (
    _NOW
    + """
for place = 2, #ARGV do redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[1]), ARGV[place]) end
redis.call('EXPIRE', KEYS[1], string.format('%d', ARGV[1] + 1))
return 1
"""
)
_GIVE = "return redis.call('ZREM', KEYS[1], ARGV[1])"
_SPEND = """
local bytes = redis.call('HINCRBYFLOAT', KEYS[1], 'bytes', ARGV[1])
local seconds = redis.call('HINCRBYFLOAT', KEYS[1], 'seconds', ARGV[2])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return {bytes, seconds, redis.call('PTTL', KEYS[1])}
"""


def open_redis(url: str, *, retries: int = 0) -> Redis:
    """Return a client that gives up soon: a call waits for its answers.

    Args:
        url: redis://, rediss:// or unix://.
        retries: attempts after the first, as after a restart of Redis, which leaves connections that are gone.
    """
    pool = cast("Any", BlockingConnectionPool).from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_SOCKET_SECONDS,
        socket_timeout=_SOCKET_SECONDS,
        socket_connect_timeout=_SOCKET_SECONDS,
        # The library would retry for seconds while a call waits.
        retry=Retry(NoBackoff(), retries),
    )
    return Redis.from_pool(pool)


async def close_redis(redis: Redis) -> None:
    """Close its connections, without waiting long for a Redis that does not answer."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            await redis.aclose()
            await redis.connection_pool.disconnect()


class SharedCounts:
    """Counts that the processes of a deployment share. Use it as a context manager.

    Every method returns None if Redis does not answer; then the process counts alone.

    Args:
        url: redis://, rediss:// or unix://.
    """

    def __init__(self, url: str) -> None:
        self._redis = open_redis(url)
        self._rate, self._take, self._renew, self._give, self._spend = (
            self._redis.register_script(text) for text in (_RATE, _TAKE, _RENEW, _GIVE, _SPEND)
        )
        self._process = uuid.uuid4().hex
        self._number = 0
        self._held = dict[str, set[str]]()
        self._giving = set[asyncio.Task[Any]]()
        self._renewing: asyncio.Task[None] | None = None
        self._away = False
        self._again_at = float("-inf")

    async def __aenter__(self) -> Self:
        self._renewing = asyncio.create_task(self._keep_renewing(), name="quota-leases")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await asyncio.gather(*self._giving, return_exceptions=True)
        await close_redis(self._redis)

    async def take_rate(self, tenant: str, rate: float, burst: int) -> float | None:
        """Take one start of a tenant; return the seconds until one is available, 0 if taken."""
        answer = await self._ask(self._rate, f"starts:{tenant}", rate, burst)
        return None if answer is None else float(answer)

    async def take_one(self, quota: str, tenant: str, limit: int) -> tuple[str, str] | bool | None:
        """Take one slot of a tenant; return the lease to give back, False if none is free."""
        self._number += 1
        key, lease = f"{quota}:{tenant}", f"{self._process}:{self._number}"
        answer = await self._ask(self._take, key, limit, _LEASE_SECONDS, lease)
        if answer is None:
            return None
        if not int(answer):
            return False
        self._held.setdefault(key, set()).add(lease)
        return key, lease

    def give_back(self, held: tuple[str, str] | bool) -> None:
        """Give back a lease from `take_one`, without waiting for Redis."""
        if isinstance(held, bool):
            return
        key, lease = held
        leases = self._held.get(key, set())
        leases.discard(lease)
        if not leases:
            self._held.pop(key, None)
        giving = asyncio.ensure_future(self._ask(self._give, key, lease))
        self._giving.add(giving)
        giving.add_done_callback(self._giving.discard)

    async def spend(self, tenant: str, count: int, seconds: float, window: float) -> tuple[float, float, float] | None:
        """Add to what a tenant has fetched in a window. A window begins with the first fetch after the last window.

        Returns:
            The bytes and seconds of all processes, and the seconds until the window ends.
        """
        answer = await self._ask(self._spend, f"egress:{tenant}", count, f"{seconds:.6f}", int(window * 1000))
        if answer is None:
            return None
        fetched, spent, left = cast("Sequence[bytes | int]", answer)
        return float(fetched), float(spent), max(0.0, int(left) / 1000)

    async def _ask(self, script: Any, key: str, *arguments: object) -> Any:
        """Run a script and return its result; None on timeout or error."""
        loop = asyncio.get_running_loop()
        if self._away:
            if loop.time() < self._again_at:
                return None
            # One call tries; the others continue without waiting for its result.
            self._again_at = loop.time() + _AGAIN_SECONDS
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await script(keys=[_PREFIX + key], args=arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._again_at = loop.time() + _AGAIN_SECONDS
            if not self._away:
                self._away = True
                why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                _LOG.warning("Redis does not answer, so each process counts quotas alone: %s", why)
            return None
        if self._away:
            self._away = False
            _LOG.warning("Redis answers again, so all processes count quotas together")
        return answer

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            for key, leases in list(self._held.items()):
                await self._ask(self._renew, key, _LEASE_SECONDS, *leases)
