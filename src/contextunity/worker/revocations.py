"""Revoked tokens: a file of their ids, and the deployed system's list in Redis.

Each fails closed: while a list that is configured cannot be read, no token counts as valid. A token that was revoked
because it leaked must not work again because Redis is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import SettingsError, missing_extra
from .file_changes import FileChanges
from .grpc_errors import Reason, ServiceError
from .identity_settings import IdentitySettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Revocations", "RevokedInFile", "RevokedInRedis", "open_revocations"]

_LOG = logging.getLogger(__name__)

_PREFIX = "contextunity:revoked:"
_REMEMBERED_SECONDS = 5.0
"""Seconds for which an answer of Redis counts; so long may a revoked token still work."""
_MOST_REMEMBERED = 10_000
_ANSWER_SECONDS = 1.0
"""Timeout of Redis, in seconds."""
_AGAIN_SECONDS = 1.0
"""Seconds after a failure in which Redis is not asked, so that calls do not wait for it one after the other."""


class _UnknownError(Exception):
    """It is not known whether a token is revoked. The text says why, for the log."""


class RevokedInFile:
    """Ids from a file: one a line, with comments after a `#` that begins the line or follows a space.

    Args:
        path: the file.

    Raises:
        SettingsError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changes = FileChanges(path)
        self._ids: frozenset[str] | None = None
        try:
            self._ids = self._read()
        except _UnknownError as error:
            raise SettingsError([f"revoked_tokens_file = {str(path)!r}: {error}"]) from None

    def contains(self, *ids: str) -> bool:
        """Whether one of the ids is in the file.

        Raises:
            _UnknownError: the file cannot be read.
        """
        # A file that could not be read may be readable by now without a change, by other permissions.
        if self._changes.due() and (self._changes.found() or self._ids is None):
            self._reload()
        if self._ids is None:
            raise _UnknownError("the file of revoked tokens cannot be read")
        return not self._ids.isdisjoint(ids)

    def _reload(self) -> None:
        before = self._ids
        try:
            self._ids = self._read()
        except _UnknownError as error:
            self._ids = None
            if before is not None:
                _LOG.error("all tokens are rejected: revoked_tokens_file = %r: %s", str(self._path), error)
        else:
            _LOG.info("%d revoked tokens in %s", len(self._ids), self._path)

    def _read(self) -> frozenset[str]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise _UnknownError("is not UTF-8") from None
        except OSError as error:
            raise _UnknownError(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
        ids = (f" {line}".partition(" #")[0].strip() for line in text.replace("\t", " ").splitlines())
        return frozenset(filter(None, ids))


class RevokedInRedis:
    """Ids from the deployed system's list in Redis, remembered for some seconds.

    Args:
        redis: the client.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._remembered = dict[tuple[str, ...], tuple[float, bool]]()
        self._asking = dict[tuple[str, ...], asyncio.Task[bool]]()
        self._away = False
        self._again_at = float("-inf")

    async def contains(self, *ids: str) -> bool:
        """Whether one of the ids is in the list. Calls with the same ids ask once.

        Raises:
            _UnknownError: Redis does not answer.
        """
        now = time.monotonic()
        until, is_revoked = self._remembered.get(ids, (now, False))
        if now < until:
            return is_revoked
        asking = self._asking.get(ids)
        if asking is None:
            if now < self._again_at:
                raise _UnknownError("Redis did not answer a moment ago")
            asking = self._asking[ids] = asyncio.create_task(self._ask(ids), name="revocations")
            asking.add_done_callback(lambda asked: self._forget(ids, asked))
        # A caller that leaves does not take the answer from the others.
        return await asyncio.shield(asking)

    async def _ask(self, ids: tuple[str, ...]) -> bool:
        from redis.exceptions import RedisError

        began = time.monotonic()
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                found = await self._redis.exists(*(_PREFIX + each for each in ids))
        except (RedisError, OSError, TimeoutError) as error:
            self._again_at = time.monotonic() + _AGAIN_SECONDS
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if not self._away:
                self._away = True
                _LOG.error("all tokens are rejected: Redis does not say which are revoked: %s", why)
            raise _UnknownError(why) from None
        if self._away:
            self._away = False
            _LOG.warning("Redis answers again, so tokens are accepted again")
        self._remember(ids, began + _REMEMBERED_SECONDS, found > 0)
        return found > 0

    def _forget(self, ids: tuple[str, ...], asked: asyncio.Task[bool]) -> None:
        self._asking.pop(ids, None)
        # If all callers have left, nobody else takes its error, and asyncio would log it.
        if not asked.cancelled():
            asked.exception()

    def _remember(self, ids: tuple[str, ...], until: float, is_revoked: bool) -> None:
        # Remove and insert again, to keep the order of time.
        self._remembered.pop(ids, None)
        self._remembered[ids] = until, is_revoked
        if len(self._remembered) > _MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    async def close(self) -> None:
        """End what is under way."""
        under_way = list(self._asking.values())
        for asking in under_way:
            asking.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


class Revocations:
    """All lists that are configured.

    Args:
        file: list in a file.
        redis: list in Redis.
    """

    def __init__(self, file: RevokedInFile | None = None, redis: RevokedInRedis | None = None) -> None:
        self._file, self._redis = file, redis

    async def check(self, token_id: str, revocation_id: str = "") -> None:
        """Reject a token that is revoked, by either id.

        Args:
            token_id: name of the token.
            revocation_id: its id for revocation; empty if it has no other than its name.

        Raises:
            ServiceError: the token is revoked, or it is unknown whether it is.
        """
        ids = tuple(dict.fromkeys(filter(None, (revocation_id, token_id))))
        try:
            is_revoked = self._file is not None and self._file.contains(*ids)
            if not is_revoked and self._redis is not None:
                is_revoked = await self._redis.contains(*ids)
        except _UnknownError:
            raise ServiceError(
                Reason.TOKEN_UNCHECKED,
                "the service cannot read the list of revoked tokens; try again later",
                metadata={"fault": "REVOCATIONS_UNAVAILABLE"},
            ) from None
        if is_revoked:
            _LOG.info("token rejected: it is revoked (%.80r)", ids[0])
            raise ServiceError(
                Reason.TOKEN_REFUSED, "the token is revoked; get a new one", metadata={"fault": "TOKEN_REVOKED"}
            )


@contextlib.asynccontextmanager
async def open_revocations(settings: IdentitySettings) -> AsyncGenerator[Revocations | None]:
    """Open the lists that are configured; None if there are none.

    Raises:
        SettingsError: the file cannot be read, Redis does not answer, or its client is not installed.
    """
    file = None if settings.revoked_tokens_file is None else RevokedInFile(settings.revoked_tokens_file)
    if settings.revoked_tokens_redis_url is None:
        yield None if file is None else Revocations(file)
        return
    variable = "CONTEXTWORKER_REVOKED_TOKENS_REDIS_URL"
    try:
        from .shared_quotas import close_redis, open_redis
    except ModuleNotFoundError as error:
        raise missing_extra(error, ("redis",), variable, "redis") from None
    redis = open_redis(settings.revoked_tokens_redis_url.get_secret_value(), retries=1)
    listed = RevokedInRedis(redis)
    try:
        try:
            await listed.contains("-")
        except _UnknownError as error:
            raise SettingsError([f"{variable}: Redis does not answer: {error}"]) from None
        yield Revocations(file, listed)
    finally:
        await listed.close()
        await close_redis(redis)
