"""Keys of an issuer: from a file and from a real web server, through rotations, floods of unknown kids and outages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448

from contextunity.worker import file_changes
from contextunity.worker import jwks as module
from contextunity.worker.auth import Authenticator, identify, open_authenticator
from contextunity.worker.errors import AuthenticationError, KeyPendingError, SettingsError
from contextunity.worker.jwks import KeysFromFile, KeysFromUrl, read_jwks
from contextunity.worker.settings import Settings
from tests.worker.issuer import AUDIENCE, EC, ED, ISSUER, RSA, Site, encoded, jwk, jwks, jwt, publishing

_NEW = ec.generate_private_key(ec.SECP256R1())


async def _until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not reached():  # noqa: ASYNC110 - another thread serves
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def _keys(site: Site, max_age: float = 300.0, grace: float = 3600.0) -> AsyncGenerator[KeysFromUrl]:
    async with KeysFromUrl(site.url, max_age=max_age, grace=grace) as keys:
        yield keys


def _authenticating(site: Site, **settings: Any) -> contextlib.AbstractAsyncContextManager[Authenticator]:
    found = {"auth": "token", "jwt_issuer": ISSUER, "jwt_audience": (AUDIENCE,), "jwt_jwks_url": site.url, **settings}
    return open_authenticator(Settings.model_validate(found))


def _metadata(token: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", f"Bearer {token}")]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        pytest.param("x", "not an object", id="a text"),
        pytest.param({}, "a key of the type None", id="empty"),
        pytest.param({"kty": "oct", "k": "eA"}, "a secret or private key", id="a secret"),
        pytest.param(jwk(EC, d="eA"), "a secret or private key", id="a private key"),
        pytest.param(jwk(ec.generate_private_key(ec.SECP384R1())), "a key of the type EC P-384", id="another curve"),
        pytest.param(jwk(ed448.Ed448PrivateKey.generate()), "a key of the type OKP Ed448", id="another Edwards curve"),
        pytest.param(jwk(RSA, use="enc"), "its use is 'enc'", id="for encryption"),
        pytest.param(jwk(RSA, alg="RS512"), "its alg is 'RS512', not RS256", id="another algorithm"),
        pytest.param(jwk(EC, alg="RS256"), "its alg is 'RS256', not ES256", id="an algorithm of another type"),
        pytest.param(jwk(EC, key_ops=["sign"]), "its key_ops lack 'verify'", id="to sign"),
        pytest.param({**jwk(EC), "x": encoded(b"x" * 32)}, "", id="a point beside the curve"),
        pytest.param({**jwk(EC), "x": 7}, "", id="a number for a text"),
        pytest.param({"kty": "EC", "crv": "P-256"}, "", id="without its numbers"),
        pytest.param({"kty": ["RSA"]}, "a key of the type ['RSA']", id="a list for a type"),
    ],
)
def test_a_key_that_cannot_verify_is_left_out_with_its_reason(entry: Any, why: str) -> None:
    with pytest.raises(ValueError, match="no key that verifies RS256, ES256, EdDSA: ") as caught:
        read_jwks(jwks(entry))
    assert why in str(caught.value)
    keys, text = read_jwks(jwks(entry, jwk(ED, "ed-1")))
    assert list(keys) == [("EdDSA", "ed-1")]
    assert f"ed-1 (EdDSA); not used: number 1: {why}" in text


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b"\xff", b"[" * 9000, jwks(*[{}] * 101)]
)
def test_what_is_no_jwk_set_is_told_so(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|JWK set|no key|decode|nested|Expecting"):
        read_jwks(data)


def test_a_private_key_is_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = encoded(EC.private_numbers().private_value.to_bytes(32, "big"))
    (tmp_path / "keys").write_bytes(jwks(jwk(EC, "ec-1", d=secret)))
    with pytest.raises(SettingsError) as caught:
        KeysFromFile(tmp_path / "keys")
    assert secret not in f"{caught.value} {caplog.text}"


def _replace(path: Path, data: bytes, stamp: int) -> None:
    path.write_bytes(data)
    # Clocks of file systems are coarse.
    os.utime(path, ns=(stamp, stamp))


def test_a_file_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_changes, "_PAUSE", 0.0)
    path = tmp_path / "jwks.json"
    _replace(path, jwks(jwk(EC, "1")), 1)
    keys = KeysFromFile(path)
    assert keys.find("ES256", "1")
    assert keys.find("ES256", "2") is None
    _replace(path, jwks(jwk(_NEW, "2")), 2)
    assert keys.find("ES256", "1") is None
    assert keys.find("ES256", "2")
    _replace(path, b"{", 3)
    assert keys.find("ES256", "2")
    path.unlink()
    assert keys.find("ES256", "2")
    assert caplog.text.count("keys of JWTs not reloaded, the old keys stay") == 2


@pytest.mark.parametrize(
    ("data", "why"),
    [(None, "no such file"), (b"{}", "not a JWK set"), (jwks(), "it is empty"), (b"x", "Expecting value")],
)
def test_a_file_without_keys_is_a_fault_of_the_settings(tmp_path: Path, data: bytes | None, why: str) -> None:
    if data is not None:
        (tmp_path / "jwks.json").write_bytes(data)
    with pytest.raises(SettingsError, match="jwt_jwks_file = ") as caught:
        KeysFromFile(tmp_path / "jwks.json")
    assert why in str(caught.value)


async def test_keys_are_fetched_at_start_and_when_they_expire() -> None:
    with publishing(jwks(jwk(EC, "1"))) as site:
        async with _keys(site, max_age=0.01) as keys:
            assert site.asked >= 1
            assert keys.find("ES256", "1")
            site.body = jwks(jwk(_NEW, "2"))
            await _until(lambda: ("ES256", "2") in keys._keys)  # pyright: ignore[reportPrivateUsage]
            # The old key verifies nothing any more, and that is no reason to ask.
            assert list(keys._keys) == [("ES256", "2")]  # pyright: ignore[reportPrivateUsage]


async def test_a_token_of_a_new_key_waits_for_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_UNKNOWN_PAUSE", 0.0)
    with publishing(jwks(jwk(EC, "ec-1"))) as site:
        async with _authenticating(site) as authenticator:
            site.body = jwks(jwk(EC, "ec-1"), jwk(_NEW, "ec-2"))
            token = _metadata(jwt(key=_NEW, kid="ec-2"))
            with pytest.raises(KeyPendingError) as caught:
                authenticator.authenticate(token)
            assert (caught.value.reason, str(caught.value)) == ("TOKEN_INVALID", "no key verifies the token")
            async with asyncio.timeout(20):
                assert (await identify(authenticator, token)).principal == "alex"
            assert (await identify(authenticator, _metadata(jwt()))).principal == "alex"


async def test_a_flood_of_unknown_kids_causes_one_fetch() -> None:
    with publishing(jwks(jwk(EC, "ec-1"))) as site:
        async with _authenticating(site) as authenticator:
            assert site.asked == 1
            for number in range(500):
                # The last fetch was just now, so there is nothing to wait for.
                with pytest.raises(AuthenticationError, match="no key verifies the token") as caught:
                    authenticator.authenticate(_metadata(jwt(kid=f"random-{number}")))
                assert type(caught.value) is AuthenticationError
            assert site.asked == 1


async def test_unknown_kids_share_one_fetch_and_are_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with publishing(jwks(jwk(EC, "ec-1"))) as site:
        async with _authenticating(site) as authenticator:
            monkeypatch.setattr(module, "_UNKNOWN_PAUSE", 0.0)
            site.open.clear()
            calls = [
                asyncio.create_task(identify(authenticator, _metadata(jwt(kid=f"random-{number}"))))
                for number in range(100)
            ]
            await _until(lambda: site.asked == 2)
            # Good tokens are accepted meanwhile, and bad signatures of known keys do not wait.
            assert authenticator.authenticate(_metadata(jwt())).principal == "alex"
            with pytest.raises(AuthenticationError) as caught:
                authenticator.authenticate(_metadata(jwt(key=_NEW)))
            assert type(caught.value) is AuthenticationError
            monkeypatch.setattr(module, "_UNKNOWN_PAUSE", 60.0)
            site.open.set()
            async with asyncio.timeout(20):
                told = await asyncio.gather(*calls, return_exceptions=True)
            assert {f"{each}" for each in told} == {"no key verifies the token"}
            assert site.asked == 2


async def test_keys_stay_while_the_url_does_not_answer_and_then_calls_are_refused_as_unavailable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_RETRY", 0.01)
    monkeypatch.setattr(module, "_MOST_RETRY", 0.01)
    monkeypatch.setattr(module, "_UNKNOWN_PAUSE", 0.0)
    with publishing(jwks(jwk(EC, "ec-1"))) as site:
        async with _keys(site, max_age=0.01, grace=3600.0) as keys:
            site.status = 503
            asked = site.asked
            await _until(lambda: site.asked > asked + 3)
            assert keys.find("ES256", "ec-1")
            # While it fails, unknown kids wait for nothing.
            assert keys.find("ES256", "ec-2") is None
            assert caplog.text.count("keys of JWTs not fetched, the old keys stay for") == 1
            assert "the answer has the status 503, not 200" in caplog.text
            keys._usable_until = time.monotonic()  # pyright: ignore[reportPrivateUsage]  # after an hour
            for kid in ("ec-1", "ec-2"):
                with pytest.raises(AuthenticationError) as caught:
                    keys.find("ES256", kid)
                assert (caught.value.reason, caught.value.is_unchecked) == ("KEYS_UNAVAILABLE", True)
            site.status = 200

            def found() -> object:
                with contextlib.suppress(AuthenticationError):
                    return keys.find("ES256", "ec-1")

            await _until(found)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param({"status": 404}, "the answer has the status 404", id="not there"),
        pytest.param({"status": 302, "headers": {"location": "/x"}}, "redirects are not followed", id="elsewhere"),
        pytest.param({"body": b"x" * 300_000}, "more than 262,144 bytes", id="too large"),
        pytest.param({"headers": {"content-encoding": "gzip"}}, "the answer is compressed", id="compressed"),
        pytest.param({"body": b"<html>"}, "JSONDecodeError", id="a page"),
        pytest.param({"body": jwks()}, "no key that verifies", id="no keys"),
    ],
)
async def test_a_url_without_keys_fails_the_start(answer: dict[str, Any], why: str) -> None:
    with publishing(jwks(jwk(EC, "1"))) as site:
        for name, value in answer.items():
            setattr(site, name, value)
        with pytest.raises(SettingsError, match="jwt_jwks_url = ") as caught:
            async with _authenticating(site):
                pass
        assert why in str(caught.value)
        assert site.asked == 1


async def test_a_url_that_does_not_answer_in_time_fails_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FETCH_SECONDS", 0.05)
    with publishing(jwks(jwk(EC, "1"))) as site:
        site.open.clear()
        with pytest.raises(SettingsError, match=r"TimeoutError|ReadTimeout"):
            async with _authenticating(site):
                pass


async def test_nobody_there_fails_the_start() -> None:
    with publishing(b"") as site:
        pass
    with pytest.raises(SettingsError, match="ConnectError"):
        async with _authenticating(site):
            pass


@pytest.mark.parametrize(
    ("header", "age"),
    [
        (None, 300.0),
        ("max-age=120", 120.0),
        ("public, max-age=7200, immutable", 300.0),
        ("no-store, max-age=0", 60.0),
        ("s-maxage=90", 300.0),
        ("max-age=x", 300.0),
        ("Max-Age=100", 100.0),
    ],
)
async def test_an_answer_may_say_that_it_expires_earlier(header: str | None, age: float) -> None:
    with publishing(jwks(jwk(EC, "1"))) as site:
        site.headers = {} if header is None else {"cache-control": header}
        before = time.monotonic()
        async with _keys(site) as keys:
            due = keys._due  # pyright: ignore[reportPrivateUsage]
            assert before + age <= due <= time.monotonic() + age


async def test_attempts_after_a_failure_come_at_growing_distances() -> None:
    with publishing(b"") as site:
        pass
    keys, distances = KeysFromUrl(site.url, max_age=300.0, grace=0.0), list[float]()
    for _ in range(9):
        before = time.monotonic()
        assert "ConnectError" in await keys._refresh()  # pyright: ignore[reportPrivateUsage]
        distances.append(round(keys._due - before))  # pyright: ignore[reportPrivateUsage]
    assert distances == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    await keys.__aexit__(None, None, None)


async def test_a_proxy_of_the_environment_is_for_addresses_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[bytes]()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    listening = await asyncio.start_server(proxy, "127.0.0.1", 0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    with publishing(jwks(jwk(EC, "1"))) as site:
        async with listening, _keys(site) as keys:
            assert keys.find("ES256", "1")
            assert (site.asked, asked) == (1, [])
            with pytest.raises(SettingsError):
                await KeysFromUrl("https://id.example.com/jwks", max_age=300.0, grace=0.0).__aenter__()
            assert asked == [b"CONNECT id.example.com:443 HTTP/1.1\r\n"]
