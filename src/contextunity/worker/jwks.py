"""Public keys of the issuer of JWTs, from a file or a URL, and how they follow a rotation of keys.

Looking up a key never waits: a file is read again when it has changed, and a task fetches the URL in the background.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import time
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from contextunity.core.tokens import strict_json

from .errors import AuthenticationError, KeyPendingError, SettingsError
from .file_changes import FileChanges

__all__ = ["ALGORITHMS", "IssuerKeys", "KeysFromFile", "KeysFromUrl", "read_jwks"]

_LOG = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256", "EdDSA")
"""Algorithms of signatures that are accepted. A key has exactly one of them, by its type."""
_ALGORITHM_OF = {"RSA": "RS256", "EC P-256": "ES256", "OKP Ed25519": "EdDSA"}
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_RSA_BITS = range(2048, 16_385)
_MOST_KEYS = 100
_MOST_BYTES = 256 * 1024

_FETCH_SECONDS = 5.0
"""Timeout of a fetch, in seconds."""
_LEAST_AGE = 60.0
"""Seconds for which keys are used at least, whatever the answer's Cache-Control says: many servers forbid caches for
everything."""
_UNKNOWN_PAUSE = 10.0
"""Seconds after a fetch before an unknown kid causes the next one; callers can invent kids without end."""
_RETRY, _MOST_RETRY = 1.0, 60.0
"""Seconds before the next attempt after a failed fetch: twice as long each time, up to the second number."""

Keys = Mapping[tuple[str, str], Key]
"""Keys by algorithm and kid; the kid is empty for a key without one."""


class IssuerKeys(Protocol):
    """Where the keys are."""

    def find(self, algorithm: str, kid: str) -> Key | None:
        """Return the key of a token; None if there is no such key.

        Args:
            algorithm: that the token's header names.
            kid: that it names; empty if it names none, which finds the key if there is only one of the algorithm.

        Raises:
            AuthenticationError: the keys are too old to be used, and new ones cannot be fetched.
            KeyPendingError: there is no such key, and keys are being fetched.
        """
        ...


def read_jwks(data: bytes) -> tuple[Keys, str]:
    """Read a JWK set.

    Returns:
        The keys that can verify tokens, and a text for the log that names them and those that cannot, with the reasons.

    Raises:
        ValueError: it is not a JWK set, or has no key that can verify tokens.
    """
    values = strict_json(data)
    listed: object = cast("dict[str, object]", values).get("keys") if isinstance(values, dict) else None
    entries = cast("list[object]", listed) if isinstance(listed, list) else None
    if entries is None or len(entries) > _MOST_KEYS:
        raise ValueError(f'not a JWK set: an object with the list "keys", of up to {_MOST_KEYS} keys')
    keys, unused = dict[tuple[str, str], Key](), list[str]()
    for number, entry in enumerate(entries):
        kid = _kid(entry)
        try:
            algorithm, key = _read_key(entry)
        except (ValueError, TypeError, JoseError) as error:
            unused.append(f"{kid or f'number {number + 1}'!s:.80}: {error}")
        else:
            # Of two with the same name, the first counts.
            keys.setdefault((algorithm, kid), key)
    if not keys:
        raise ValueError(f"no key that verifies {', '.join(ALGORITHMS)}: {'; '.join(unused) or 'it is empty'}")
    used = ", ".join(f"{kid or 'no kid'} ({algorithm})" for algorithm, kid in keys)
    return keys, used + (f"; not used: {'; '.join(unused)}" if unused else "")


def _kid(entry: object) -> str:
    kid = cast("dict[str, object]", entry).get("kid") if isinstance(entry, dict) else None
    return kid if isinstance(kid, str) else ""


def _read_key(entry: object) -> tuple[str, Key]:
    """Return a key and its algorithm. Only public numbers are read: the rest of a JWK is not needed to verify."""
    if not isinstance(entry, dict):
        raise TypeError("not an object")
    values = cast("dict[str, Any]", entry)
    kty, crv = values.get("kty"), values.get("crv")
    if kty == "oct" or "d" in values:
        raise ValueError("a secret or private key, which has no place here; replace it")
    algorithm = _ALGORITHM_OF.get(f"{kty}" if kty == "RSA" else f"{kty} {crv}")
    if algorithm is None:
        raise ValueError(f"a key of the type {kty} {crv or ''}".rstrip())
    if values.get("use", "sig") != "sig":
        raise ValueError(f"its use is {values['use']!r}, not 'sig'")
    if values.get("alg", algorithm) != algorithm:
        raise ValueError(f"its alg is {values['alg']!r}, not {algorithm}")
    operations = values.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("its key_ops lack 'verify'")
    public: dict[str, Any] = {name: values[name] for name in ("kty", *_MEMBERS[str(kty)]) if name in values}
    if kty == "RSA" and _bits(public.get("n")) not in _RSA_BITS:
        raise ValueError(f"an RSA key of {_bits(public.get('n'))} bits; 2048 are the least")
    return algorithm, JWKRegistry.import_key(public)


def _bits(number: object) -> int:
    text = number if isinstance(number, str) else ""
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big").bit_length()


def _pick(keys: Keys, algorithm: str, kid: str) -> Key | None:
    if kid:
        return keys.get((algorithm, kid))
    of_algorithm = [key for (its_algorithm, _), key in keys.items() if its_algorithm == algorithm]
    return of_algorithm[0] if len(of_algorithm) == 1 else None


class KeysFromFile:
    """Keys from a file, which is read again when it changes.

    Args:
        path: the file.

    Raises:
        SettingsError: the file cannot be read, or has no usable key. Later this is only logged, and the keys stay.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changes = FileChanges(path)
        self._keys = self._read()

    def find(self, algorithm: str, kid: str) -> Key | None:
        """Return a key; see `IssuerKeys`."""
        if self._changes.due():
            try:
                if self._changes.found():
                    self._keys = self._read()
            except SettingsError as error:
                _LOG.error("keys of JWTs not reloaded, the old keys stay: %s", error)
        return _pick(self._keys, algorithm, kid)

    def _read(self) -> Keys:
        try:
            keys, text = read_jwks(self._path.read_bytes())
        except (OSError, ValueError) as error:
            why = (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
            raise SettingsError([f"jwt_jwks_file = {str(self._path)!r}: {why or 'cannot be read'}"]) from None
        _LOG.info("keys of JWTs from %s: %s", self._path, text)
        return keys


class KeysFromUrl:
    """Keys from a URL, fetched again when they expire and when a token has an unknown kid. Use it as a context manager.

    Args:
        url: https, or http on this machine.
        max_age: seconds after which they are fetched again.
        grace: seconds for which they stay in use after that, if the URL does not answer.
    """

    def __init__(self, url: str, *, max_age: float, grace: float) -> None:
        self._url, self._max_age, self._grace = url, max_age, grace
        self._keys: Keys = {}
        self._told = ""
        self._due = self._usable_until = self._tried_at = float("-inf")
        self._failures = 0
        self._wanted = asyncio.Event()
        self._fetched: asyncio.Event | None = None
        self._following: asyncio.Task[None] | None = None
        # A proxy of the environment is for addresses of others, and would see what plain HTTP asks of this machine.
        self._client = httpx.AsyncClient(
            timeout=_FETCH_SECONDS,
            trust_env=urlsplit(url).scheme == "https",
            headers={"accept": "application/json", "accept-encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        """Fetch the keys.

        Raises:
            SettingsError: the URL does not answer with keys.
        """
        if why := await self._refresh():
            await self._client.aclose()
            raise SettingsError([f"jwt_jwks_url = {self._url!r}: {why}"])
        self._following = asyncio.create_task(self._follow(), name="jwks")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._client.aclose()

    def find(self, algorithm: str, kid: str) -> Key | None:
        """Return a key; see `IssuerKeys`."""
        now = time.monotonic()
        if now >= self._usable_until:
            text = "the issuer's keys could not be fetched for too long; try again later"
            raise AuthenticationError("KEYS_UNAVAILABLE", text, is_unchecked=True)
        key = _pick(self._keys, algorithm, kid)
        if key is None and not self._failures:
            if self._fetched is None and now - self._tried_at >= _UNKNOWN_PAUSE:
                self._fetched = asyncio.Event()
                self._wanted.set()
            if self._fetched is not None:
                raise KeyPendingError(self._fetched)
        return key

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(max(0.0, self._due - time.monotonic())):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            self._fetched = fetched = self._fetched or asyncio.Event()
            try:
                await self._refresh()
            finally:
                self._fetched = None
                fetched.set()

    async def _refresh(self) -> str:
        """Fetch the keys; return why that failed, empty if it did not."""
        self._tried_at = time.monotonic()
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                data, max_age = await self._fetch()
            keys, text = read_jwks(data)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError, ValueError) as error:
            # Our own say what is wrong; others are clear only with their names.
            why = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}".removesuffix(": ")
            self._due = time.monotonic() + min(_MOST_RETRY, _RETRY * 2**self._failures)
            if not self._failures and self._keys:
                left = max(0.0, self._usable_until - time.monotonic())
                _LOG.error("keys of JWTs not fetched, the old keys stay for %.0f s: %s: %s", left, self._url, why)
            self._failures = min(self._failures + 1, 30)
            return why
        self._keys, self._failures = keys, 0
        self._due = time.monotonic() + max_age
        self._usable_until = self._due + self._grace
        if text != self._told:
            self._told = text
            _LOG.info("keys of JWTs from %s: %s", self._url, text)
        return ""

    async def _fetch(self) -> tuple[bytes, float]:
        """Return the JWK set, and the seconds until it expires."""
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != HTTPStatus.OK:
                raise ValueError(
                    f"the answer has the status {response.status_code}, not 200; redirects are not followed"
                )
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ValueError("the answer is compressed, which was not asked for")
            data = bytearray()
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > _MOST_BYTES:
                    raise ValueError(f"the answer has more than {_MOST_BYTES:,} bytes")
        return bytes(data), self._age(response.headers.get_list("cache-control"))

    def _age(self, directives: Iterable[str]) -> float:
        found = re.search(r"(?:^|[\s,])max-age=(\d{1,9})", ",".join(directives).lower())
        return self._max_age if found is None else min(self._max_age, max(_LEAST_AGE, float(found[1])))
