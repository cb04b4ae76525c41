"""Revoked tokens: a file that changes, and the deployed system's list in a real Redis. What cannot be read refuses."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from contextunity.core.tokens import ContextToken, mint
from contextunity.worker import file_changes, shared_quotas
from contextunity.worker import revocations as module
from contextunity.worker.auth import Authenticator, identify, open_authenticator
from contextunity.worker.errors import SettingsError
from contextunity.worker.grpc_errors import ServiceError
from contextunity.worker.revocations import RevokedInFile, RevokedInRedis, open_revocations
from contextunity.worker.settings import Settings
from tests.worker.conftest import RedisServer
from tests.worker.issuer import AUDIENCE, EC, ISSUER, jwk, jwks, jwt

_REVOKED = "UNAUTHENTICATED TOKEN_REFUSED TOKEN_REVOKED"
_UNKNOWN = "UNAVAILABLE TOKEN_UNCHECKED REVOCATIONS_UNAVAILABLE"
_SECRET = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at once where a service looks after a second, and leaves Redis the time that a busy machine takes."""
    monkeypatch.setattr(file_changes, "_PAUSE", 0.0)
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 20.0)
    monkeypatch.setattr(shared_quotas, "_SOCKET_SECONDS", 10.0)


def _settings(folder: Path, **more: Any) -> Settings:
    (folder / "jwks.json").write_bytes(jwks(jwk(EC, "ec-1")))
    given = {"jwt_issuer": ISSUER, "jwt_audience": (AUDIENCE,), "jwt_jwks_file": folder / "jwks.json", **more}
    return Settings.model_validate({"auth": "token", "token_secret": _SECRET, **given})


def _ours(token_id: str = "c-1", revocation_id: str | None = None) -> str:
    token = ContextToken(token_id=token_id, revocation_id=revocation_id)
    return mint(token, kid="p:hmac-001", secret=_SECRET.encode())


async def _refused(authenticator: Authenticator, token: str) -> str:
    """How a call with the token ends: status, reason and fault, or nothing where it goes on."""
    try:
        await identify(authenticator, [("authorization", f"Bearer {token}")])
    except ServiceError as error:
        return f"{error.code.name} {error.reason.name} {error.metadata['fault']}"
    return ""


def _write(path: Path, text: str, stamp: int) -> None:
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(stamp, stamp))


async def test_tokens_in_the_file_are_refused_as_soon_as_it_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "revoked"
    _write(path, "# nobody\n\n", 1)
    async with open_authenticator(_settings(tmp_path, revoked_tokens_file=path)) as authenticator:
        tokens = {
            "c-1": _ours(),
            "r-2": _ours("c-2", "r-2"),
            "t-1": jwt(),
            "alex": jwt(jti=None),
            "c-3": _ours("c-3", "r-3"),
        }
        for token in tokens.values():
            assert await _refused(authenticator, token) == ""
        for number, (revoked, its_token) in enumerate(tokens.items()):
            _write(path, f"other\n  {revoked}\t# leaked\n#{revoked}2\nx#y\n", 2 + number)
            for token in tokens.values():
                assert await _refused(authenticator, token) == (_REVOKED if token is its_token else ""), revoked
        assert "token rejected: it is revoked ('r-2')" in caplog.text
        assert "no revocation list is configured" not in caplog.text


def test_comments_begin_a_line_or_follow_a_space(tmp_path: Path) -> None:
    path = tmp_path / "revoked"
    path.write_text("#a\n # b\nc # d\ne#f\n\tg\t#\nh i\n\n#\n", encoding="utf-8")
    listed = RevokedInFile(path)
    found = {each for each in "abcdefghi" if listed.contains(each)} | {
        each for each in ("", "#", "e#f", "h i", "c # d", "#a") if listed.contains(each)
    }
    assert found == {"c", "e#f", "g", "h i"}


@pytest.mark.parametrize("how", ["gone", "no text", "a folder"])
async def test_a_file_that_cannot_be_read_refuses_everybody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path = tmp_path / "revoked"
    _write(path, "c-9\n", 1)
    async with open_authenticator(_settings(tmp_path, revoked_tokens_file=path)) as authenticator:
        assert await _refused(authenticator, _ours()) == ""
        path.unlink()
        if how == "no text":
            path.write_bytes(b"c-9\n\xff")
        elif how == "a folder":
            path.mkdir()
        for token in (_ours(), _ours("c-9"), jwt()):
            assert await _refused(authenticator, token) == _UNKNOWN
        assert caplog.text.count("all tokens are rejected: revoked_tokens_file") == 1
        if path.is_dir():
            path.rmdir()
        _write(path, "c-9\n", 1)
        assert await _refused(authenticator, _ours()) == ""
        assert await _refused(authenticator, _ours("c-9")) == _REVOKED


async def test_a_file_that_may_be_read_again_counts_again_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "revoked"
    _write(path, "c-9\n", 1)
    async with open_authenticator(_settings(tmp_path, revoked_tokens_file=path)) as authenticator:
        with monkeypatch.context() as forbidden:
            # Root may read everything, and tests run as root too.
            forbidden.setattr(Path, "read_text", _forbidden)
            _write(path, "c-9\n", 2)
            assert await _refused(authenticator, _ours()) == _UNKNOWN
            assert await _refused(authenticator, _ours()) == _UNKNOWN
        assert await _refused(authenticator, _ours()) == ""
        assert await _refused(authenticator, _ours("c-9")) == _REVOKED


def _forbidden(*_: Any, **__: Any) -> str:
    raise PermissionError(13, "Permission denied")


async def test_a_file_that_is_not_there_fails_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"revoked_tokens_file = .*no such file"):
        async with open_authenticator(_settings(tmp_path, revoked_tokens_file=tmp_path / "revoked")):
            pass


async def test_without_a_list_nothing_is_asked(tmp_path: Path) -> None:
    async with open_authenticator(_settings(tmp_path)) as authenticator:
        assert authenticator.confirm is None
    async with open_revocations(_settings(tmp_path)) as revocations:
        assert revocations is None


def _with_redis(folder: Path, redis: RedisServer, **more: Any) -> Settings:
    return _settings(folder, revoked_tokens_redis_url=redis.url, **more)


async def _until(reached: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not await reached():  # noqa: ASYNC110 - another process serves
            await asyncio.sleep(0.01)


async def test_tokens_in_redis_are_refused_until_they_are_not(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED_SECONDS", 0.0)
    with Redis.from_url(redis.url) as deployed:
        async with open_authenticator(_with_redis(tmp_path, redis)) as authenticator:
            for revoked, token in {
                "r-1": _ours("c-1", "r-1"),
                "c-2": _ours("c-2"),
                "t-1": jwt(),
                "alex": jwt(jti=None),
            }.items():
                assert await _refused(authenticator, token) == ""
                deployed.set(f"contextunity:revoked:{revoked}", "1")
                assert await _refused(authenticator, token) == _REVOKED
                deployed.delete(f"contextunity:revoked:{revoked}")
                assert await _refused(authenticator, token) == ""


async def test_what_redis_said_counts_for_some_seconds(redis: RedisServer, tmp_path: Path) -> None:
    with Redis.from_url(redis.url) as deployed:
        async with open_authenticator(_with_redis(tmp_path, redis)) as authenticator:
            before = deployed.info("commandstats")["cmdstat_exists"]["calls"]
            for _ in range(50):
                assert await _refused(authenticator, _ours()) == ""
            # A hundred at once ask once, too.
            assert set(await asyncio.gather(*(_refused(authenticator, _ours("c-2")) for _ in range(100)))) == {""}
            assert deployed.info("commandstats")["cmdstat_exists"]["calls"] == before + 2


async def test_the_file_counts_without_asking_redis(redis: RedisServer, tmp_path: Path) -> None:
    (tmp_path / "revoked").write_text("c-1\n")
    settings = _with_redis(tmp_path, redis, revoked_tokens_file=tmp_path / "revoked")
    async with open_authenticator(settings) as authenticator:
        redis.stop()
        assert await _refused(authenticator, _ours()) == _REVOKED
        assert await _refused(authenticator, _ours("c-2")) == _UNKNOWN


async def test_a_redis_that_is_away_refuses_everybody_until_it_is_back(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(module, "_REMEMBERED_SECONDS", 0.0)
    async with open_authenticator(_with_redis(tmp_path, redis)) as authenticator:
        assert await _refused(authenticator, _ours()) == ""
        redis.stop()
        for token in (_ours(), jwt()):
            assert await _refused(authenticator, token) == _UNKNOWN
        assert caplog.text.count("all tokens are rejected: Redis does not say which are revoked") == 1
        redis.start()

        async def accepted() -> bool:
            return await _refused(authenticator, _ours()) == ""

        await _until(accepted)
        assert caplog.text.count("tokens are accepted again") == 1


async def test_connections_that_are_gone_refuse_nobody(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED_SECONDS", 0.0)
    async with open_authenticator(_with_redis(tmp_path, redis)) as authenticator:
        assert await _refused(authenticator, _ours()) == ""
        redis.stop()
        redis.start()
        assert await _refused(authenticator, _ours()) == ""


async def test_a_redis_that_says_nothing_does_not_hold_calls_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.05)
    asked = 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    client = shared_quotas.open_redis(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}/0")
    async with silent:
        listed = RevokedInRedis(client)
        monkeypatch.setattr(module, "_AGAIN_SECONDS", 60.0)
        for _ in range(20):
            with pytest.raises(module._UnknownError):  # pyright: ignore[reportPrivateUsage]
                await listed.contains("c-1")
        # After the first, nobody waits.
        assert asked == 1
        await listed.close()
        await shared_quotas.close_redis(client)


async def test_a_caller_that_leaves_does_not_take_the_answer_from_others(redis: RedisServer, tmp_path: Path) -> None:
    async with open_authenticator(_with_redis(tmp_path, redis)) as authenticator:
        first, second = (asyncio.create_task(_refused(authenticator, _ours())) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == ""


async def test_no_redis_fails_the_start(redis: RedisServer, tmp_path: Path) -> None:
    redis.stop()
    with pytest.raises(SettingsError, match="CONTEXTWORKER_REVOKED_TOKENS_REDIS_URL: Redis does not answer: Connect"):
        async with open_authenticator(_with_redis(tmp_path, redis)):
            pass


async def test_without_its_client_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "contextunity.worker.shared_quotas")
    monkeypatch.setitem(sys.modules, "redis", None)
    settings: Any = _settings(tmp_path, revoked_tokens_redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(SettingsError, match=r"REVOKED_TOKENS_REDIS_URL: .*pip install 'contextworker\[redis\]'"):
        async with open_authenticator(settings):
            pass


async def test_answers_are_forgotten_where_there_are_many(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 5)
    client = shared_quotas.open_redis(redis.url)
    listed = RevokedInRedis(client)
    for number in range(20):
        assert not await listed.contains(f"c-{number}")
    assert len(listed._remembered) == 5  # pyright: ignore[reportPrivateUsage]
    await shared_quotas.close_redis(client)
