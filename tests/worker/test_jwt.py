"""JWTs: which are valid, what their claims give, and that each forged one is nobody."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from contextunity.core.tokens import ContextToken, TokenError, mint
from contextunity.worker.auth import Caller, authenticator_for, open_authenticator
from contextunity.worker.errors import AuthenticationError, SettingsError
from contextunity.worker.jwks import KeysFromFile
from contextunity.worker.jwt import JwtVerifier
from contextunity.worker.settings import Settings, load_settings
from contextunity.worker.token_keys import is_jwt
from tests.worker.issuer import AUDIENCE, EC, ED, ISSUER, RSA, encoded, jwk, jwks, jwt, pem, sign

_SECRET = "0123456789abcdef" * 2
_KEYS = jwks(jwk(RSA, "rsa-1"), jwk(EC, "ec-1"), jwk(ED, "ed-1"))
_BY_ALGORITHM: dict[str, dict[str, Any]] = {
    "RS256": {"alg": "RS256", "key": RSA, "kid": "rsa-1"},
    "ES256": {"alg": "ES256", "key": EC, "kid": "ec-1"},
    "EdDSA": {"alg": "EdDSA", "key": ED, "kid": "ed-1"},
}


def _settings(folder: Path, keys: bytes = _KEYS, **more: Any) -> Settings:
    (folder / "jwks.json").write_bytes(keys)
    given = {"jwt_issuer": ISSUER, "jwt_audience": (AUDIENCE,), "jwt_jwks_file": folder / "jwks.json", **more}
    return Settings.model_validate({"auth": "token", **given})


def _verifier(folder: Path, keys: bytes = _KEYS, **more: Any) -> JwtVerifier:
    settings = _settings(folder, keys, **more)
    assert settings.jwt_jwks_file is not None
    return JwtVerifier(KeysFromFile(settings.jwt_jwks_file), settings)


@pytest.fixture
def verifier(tmp_path: Path) -> JwtVerifier:
    return _verifier(tmp_path)


@pytest.mark.parametrize("algorithm", _BY_ALGORITHM)
def test_each_algorithm_verifies(verifier: JwtVerifier, algorithm: str) -> None:
    verified = verifier.verify(jwt(**_BY_ALGORITHM[algorithm]))
    assert (verified.token.token_id, verified.token.user_id, verified.project_id) == ("t-1", "alex", "")
    assert verified.kid == _BY_ALGORITHM[algorithm]["kid"]


@pytest.mark.parametrize("algorithm", _BY_ALGORITHM)
def test_a_token_without_a_kid_is_verified_by_the_only_key_of_its_algorithm(
    verifier: JwtVerifier, tmp_path: Path, algorithm: str
) -> None:
    token = jwt(**{**_BY_ALGORITHM[algorithm], "kid": None})
    assert verifier.verify(token).kid == ""
    two = _verifier(tmp_path, jwks(*json.loads(_KEYS)["keys"], *(jwk(key, "2") for key in (RSA, EC, ED))))
    with pytest.raises(TokenError) as caught:
        two.verify(token)
    assert caught.value.reason == "unknown_kid"


def _forged() -> dict[str, tuple[str, str]]:
    """Tokens that are not the issuer's, and why each is rejected."""
    good, other = jwt(), ec.generate_private_key(ec.SECP256R1())
    head, claims, signature = good.split(".")
    richer = encoded({**json.loads('{"permissions": ["worker:execute"]}'), "iss": ISSUER})
    found = {
        "another key": (jwt(key=other), "bad_signature"),
        "unknown kid": (jwt(kid="ec-2"), "unknown_kid"),
        "none": (jwt(alg="none"), "bad_signature"),
        "None": (jwt(header={"alg": "None"}), "bad_signature"),
        "none without a signature of its kind": (f"{head}.{claims}.", "bad_signature"),
        "other claims": (f"{head}.{richer}.{signature}", "bad_signature"),
        "PS256": (jwt(alg="PS256", key=RSA, kid="rsa-1"), "bad_signature"),
        "ES256 for the key of RSA": (jwt(kid="rsa-1"), "unknown_kid"),
        "EdDSA for the key of EC": (jwt(alg="EdDSA", key=ED, kid="ec-1"), "unknown_kid"),
        "RS256 for the key of EC": (jwt(alg="RS256", key=RSA, kid="ec-1"), "unknown_kid"),
        "a curve of another name": (
            jwt(alg="EdDSA", key=ed448.Ed448PrivateKey.generate(), kid="ed-1"),
            "bad_signature",
        ),
        "no padding of zeros": (f"{head}.{claims}.{signature}=", "bad_signature"),
        "a key of its own": (jwt(key=other, header={"jwk": jwk(other, "ec-1")}), "bad_signature"),
        "a URL of its own": (jwt(key=other, header={"jku": "https://evil.example/jwks.json"}), "bad_signature"),
        "crit": (jwt(header={"crit": ["exp"], "exp": 1}), "malformed"),
        "unencoded": (jwt(header={"b64": False, "crit": ["b64"]}), "malformed"),
        "for another purpose": (jwt(header={"typ": "logout+jwt"}), "malformed"),
    }
    for secret in (pem(RSA), pem(RSA).strip(), json.dumps(jwk(RSA, "rsa-1")).encode(), b""):
        # Whoever takes the public key for a secret accepts what everybody can sign.
        found[f"HS256 with {len(secret)} bytes"] = (jwt(alg="HS256", key=secret, kid="rsa-1"), "bad_signature")
    return found


@pytest.mark.parametrize(("token", "reason"), _forged().values(), ids=_forged())
def test_a_forged_token_is_rejected(verifier: JwtVerifier, token: str, reason: str) -> None:
    with pytest.raises(TokenError) as caught:
        verifier.verify(token)
    assert caught.value.reason == reason
    assert all(part not in str(caught.value) for part in token.split(".") if part)


def test_a_secret_among_the_keys_verifies_nothing(tmp_path: Path) -> None:
    secret = b"x" * 32
    verifier = _verifier(
        tmp_path, jwks(jwk(EC, "ec-1"), {"kty": "oct", "k": encoded(secret), "kid": "s", "alg": "HS256"})
    )
    with pytest.raises(TokenError) as caught:
        verifier.verify(jwt(alg="HS256", key=secret, kid="s"))
    assert caught.value.reason == "bad_signature"


_NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"exp": None}, "malformed", id="no exp"),
        pytest.param({"exp": _NOW - 30}, "expired", id="expired, with the leeway"),
        pytest.param({"exp": _NOW - 29}, None, id="within the leeway"),
        pytest.param({"exp": "soon"}, "malformed", id="exp is no number"),
        pytest.param({"exp": True}, "malformed", id="exp is true"),
        pytest.param({"exp": 1e400}, "malformed", id="exp is infinite"),
        pytest.param({"exp": float("nan")}, "malformed", id="exp is no number at all"),
        pytest.param({"nbf": _NOW + 31}, "not_yet_valid", id="not yet valid"),
        pytest.param({"nbf": _NOW + 30}, None, id="valid within the leeway"),
        pytest.param({"iat": _NOW + 31}, "not_yet_valid", id="issued in the future"),
        pytest.param({"iat": _NOW + 30}, None, id="issued within the leeway"),
        pytest.param({"iat": "today"}, "malformed", id="iat is no number"),
        pytest.param({"iss": None}, "wrong_issuer", id="no issuer"),
        pytest.param({"iss": ISSUER.rstrip("/")}, "wrong_issuer", id="almost the issuer"),
        pytest.param({"iss": [ISSUER]}, "wrong_issuer", id="a list of issuers"),
        pytest.param({"aud": None}, "wrong_audience", id="no audience"),
        pytest.param({"aud": []}, "wrong_audience", id="no audiences"),
        pytest.param({"aud": "other"}, "wrong_audience", id="another audience"),
        pytest.param({"aud": AUDIENCE + "2"}, "wrong_audience", id="almost the audience"),
        pytest.param({"aud": ["other", AUDIENCE]}, None, id="among the audiences"),
        pytest.param({"aud": [AUDIENCE, 7]}, "malformed", id="an audience is no text"),
        pytest.param({"jti": None}, None, id="sub names it"),
        pytest.param({"jti": None, "sub": None}, "malformed", id="nothing names it"),
        pytest.param({"jti": 7}, "malformed", id="jti is no text"),
        pytest.param({"jti": ""}, "malformed", id="jti is empty"),
        pytest.param({"sub": "a\nb"}, "malformed", id="control characters"),
        pytest.param({"permissions": 7}, "malformed", id="permissions are no texts"),
        pytest.param({"permissions": ["a", None]}, "malformed", id="a permission is no text"),
        pytest.param({"tenants": {"a": 1}}, "malformed", id="tenants are no texts"),
    ],
)
def test_claims_are_checked(verifier: JwtVerifier, claims: dict[str, Any], reason: str | None) -> None:
    token = jwt(**{"exp": _NOW + 60, **claims})
    if reason is None:
        assert verifier.verify(token, now=_NOW).token.user_id == "alex"
        return
    with pytest.raises(TokenError) as caught:
        verifier.verify(token, now=_NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("a.b", id="two parts"),
        pytest.param(jwt() + ".x", id="four parts"),
        pytest.param("x" * 16_385, id="too long"),
        pytest.param("é.b.c", id="no ASCII"),
        pytest.param(f"{encoded(b'[]')}.e30.", id="the header is a list"),
        pytest.param(f"{encoded(b'[' * 9000)}.e30.", id="the header is deep"),
        pytest.param(f"{encoded(b'{}')}.e30.", id="the header is empty"),
        pytest.param(jwt(header={"alg": ["ES256"]}), id="alg is a list"),
        pytest.param(jwt(header={"kid": 7}), id="kid is a number"),
        pytest.param(jwt(header={"kid": "a\nb"}), id="kid has a line break"),
        pytest.param(jwt(b"[]"), id="the claims are a list"),
        pytest.param(jwt(b'{"iss": "a", "iss": "b"}'), id="a claim comes twice"),
        pytest.param(jwt(b"[" * 9000), id="the claims are deep"),
        pytest.param(jwt(b"\xff"), id="the claims are no text"),
    ],
)
def test_an_unreadable_token_is_malformed(verifier: JwtVerifier, token: str) -> None:
    with pytest.raises(TokenError) as caught:
        verifier.verify(token)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    ("claims", "names", "permissions", "tenants"),
    [
        pytest.param({}, {}, (), None, id="none"),
        pytest.param({"permissions": ["a", "b"], "scope": "c"}, {}, ("a", "b"), None, id="permissions"),
        pytest.param({"scope": "openid worker:read"}, {}, ("openid", "worker:read"), None, id="scope"),
        pytest.param({"permissions": [], "scope": "c"}, {}, (), None, id="no permissions are none"),
        pytest.param({"allowed_tenants": ["x"], "tenants": ["y"]}, {}, (), ("x",), id="allowed_tenants"),
        pytest.param({"tenants": "one tenant"}, {}, (), ("one tenant",), id="one tenant"),
        pytest.param(
            {"realm_access": {"roles": ["a"]}, "scope": "b"},
            {"permissions": ("realm_access.roles",)},
            ("a",),
            None,
            id="a path",
        ),
        pytest.param(
            {"https://example.com/tenants": ["x"]},
            {"tenants": ("https://example.com/tenants",)},
            (),
            ("x",),
            id="a URL",
        ),
        pytest.param({"realm_access": "x"}, {"permissions": ("realm_access.roles",)}, (), None, id="no such path"),
        pytest.param(
            {"permissions": ["operator", "x"]},
            {"grants": {"operator": ("worker:read", "worker:execute")}},
            ("worker:read", "worker:execute", "x"),
            None,
            id="a role",
        ),
    ],
)
def test_claims_give_permissions_and_tenants(
    tmp_path: Path,
    claims: dict[str, Any],
    names: dict[str, Any],
    permissions: tuple[str, ...],
    tenants: tuple[str, ...] | None,
) -> None:
    token = _verifier(tmp_path, jwt_claims=names).verify(jwt(**claims)).token
    assert (token.permissions, token.allowed_tenants) == (permissions, tenants)


async def test_both_kinds_of_token_tell_who_calls(tmp_path: Path) -> None:
    settings = _settings(tmp_path, token_secret=_SECRET)
    async with open_authenticator(settings) as authenticator:
        assert authenticator.confirm is None
        ours = mint(
            ContextToken(token_id="c-1", permissions=("worker:read",)), kid="p:hmac-001", secret=_SECRET.encode()
        )
        theirs = jwt(permissions=["worker:read"], tenants=["acme"], project_id="p", client_id="c")
        assert (is_jwt(ours), is_jwt(theirs)) == (False, True)
        caller = authenticator.authenticate([("authorization", f"Bearer {ours}")])
        assert (caller.token_id, caller.permissions) == ("c-1", {"worker:read"})
        assert authenticator.authenticate([("authorization", f"Bearer {theirs}")]) == Caller(
            permissions=frozenset({"worker:read"}),
            tenants=frozenset({"acme"}),
            project_id="p",
            bound_project="p",
            principal="alex",
        )


@pytest.mark.parametrize(
    ("token", "fault"),
    [
        pytest.param(jwt(kid="ec-2"), "TOKEN_INVALID: no key verifies the token", id="unknown key"),
        pytest.param(jwt()[:-4] + "AAAA", "TOKEN_INVALID: no key verifies the token", id="bad signature"),
        pytest.param(jwt(alg="none"), "TOKEN_INVALID: no key verifies the token", id="none"),
        pytest.param(
            mint(ContextToken(token_id="c"), kid="p:hmac-001", secret=b"x" * 32), "TOKEN_INVALID: no key", id="ours"
        ),
        pytest.param(jwt(iss="x"), "TOKEN_WRONG_ISSUER: the token is from an issuer", id="issuer"),
        pytest.param(jwt(aud="x"), "TOKEN_WRONG_AUDIENCE: the token is for another audience", id="audience"),
        pytest.param(jwt(exp=1), "TOKEN_EXPIRED: ", id="expired"),
        pytest.param(jwt(nbf=time.time() + 1e6), "TOKEN_NOT_YET_VALID: ", id="early"),
        pytest.param(jwt(exp=None), "TOKEN_MALFORMED: ", id="no exp"),
        pytest.param("a.b.c", "TOKEN_MALFORMED: ", id="nonsense"),
    ],
)
async def test_the_caller_is_told_what_is_wrong(
    tmp_path: Path, token: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with open_authenticator(_settings(tmp_path)) as authenticator:
        with pytest.raises(AuthenticationError) as caught:
            authenticator.authenticate([("authorization", f"Bearer {token}")])
    assert f"{caught.value.reason}: {caught.value}".startswith(fault)
    assert all(part not in caplog.text for part in token.rsplit(".", 2)[1:] if len(part) > 5)


_GOOD = jwt()
_PARTS = st.sampled_from([*_GOOD.split("."), "", "e30", encoded(b"[1]"), encoded(b'{"alg":"ES256"}'), "é", "=", "_-"])


@given(st.lists(st.one_of(_PARTS, st.text(max_size=20)), max_size=5))
def test_whatever_comes_for_a_token_is_a_token_error(parts: list[str]) -> None:
    text = ".".join(parts)
    try:
        assert _ANY.verify(text).token.token_id == "t-1"
        assert text == _GOOD
    except TokenError:
        pass


class _OneKey:
    def find(self, algorithm: str, kid: str) -> Any:
        from joserfc.jwk import ECKey

        return ECKey.import_key(jwk(EC)) if (algorithm, kid) in (("ES256", "ec-1"), ("ES256", "")) else None


_ANY = JwtVerifier(_OneKey(), Settings(jwt_issuer=ISSUER, jwt_audience=(AUDIENCE,)))


def test_a_verifier_needs_an_issuer_and_an_audience() -> None:
    for given_ in ({"jwt_issuer": ISSUER}, {"jwt_audience": (AUDIENCE,)}):
        with pytest.raises(SettingsError, match="JWTs need jwt_issuer and jwt_audience"):
            JwtVerifier(_OneKey(), Settings.model_validate(given_))


@pytest.mark.parametrize(
    ("given_", "faults"),
    [
        pytest.param({"JWT_AUDIENCE": "a", "JWT_JWKS_URL": "https://x"}, ["jwt_audience needs", "jwt_jwks_url needs"]),
        pytest.param({"JWT_ISSUER": "i"}, ["needs jwt_audience", "set jwt_jwks_file or jwt_jwks_url"]),
        pytest.param(
            {"JWT_ISSUER": "i", "JWT_AUDIENCE": "a,b", "JWT_JWKS_URL": "https://x", "JWT_JWKS_FILE": "x"},
            ["only one of them"],
        ),
        *(
            pytest.param({"JWT_ISSUER": "i", "JWT_AUDIENCE": "a", "JWT_JWKS_URL": url}, ["should be an https:// URL"])
            for url in (
                "http://id.example.com/",
                "ftp://x",
                "https://",
                "https://u:p@x/",
                "http://127.0.0.1.x/",
                "https://[x/",
            )
        ),
        pytest.param({"JWT_LEEWAY": "301"}, ["CONTEXTWORKER_JWT_LEEWAY = '301'"]),
        pytest.param({"JWT_JWKS_GRACE": "inf"}, ["CONTEXTWORKER_JWT_JWKS_GRACE = 'inf'"]),
        pytest.param({"JWT_JWKS_MAX_AGE": "9"}, ["CONTEXTWORKER_JWT_JWKS_MAX_AGE = '9'"]),
        pytest.param({"REVOKED_TOKENS_REDIS_URL": "http://:hidden@x"}, ["REVOKED_TOKENS_REDIS_URL: should be a URL"]),
    ],
)
def test_settings_that_do_not_go_together_are_told(tmp_path: Path, given_: dict[str, str], faults: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({f"CONTEXTWORKER_{name}": value for name, value in given_.items()}, tmp_path)
    assert len(caught.value.faults) == len(faults)
    for fault, told in zip(caught.value.faults, faults, strict=True):
        assert told in fault
    assert "hidden" not in str(caught.value)


def test_settings_come_from_the_file_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text(
        f'jwt_issuer = "{ISSUER}"\njwt_audience = ["a"]\njwt_jwks_url = "http://localhost:1/x"\n'
        '[jwt_claims]\ntenants = ["org"]\ngrants.operator = ["worker:read"]\n'
    )
    settings = load_settings({"CONTEXTWORKER_JWT_AUDIENCE": "b, c"}, tmp_path)
    assert (settings.jwt_issuer, settings.jwt_audience) == (ISSUER, ("b", "c"))
    assert settings.jwt_claims.tenants == ("org",)
    assert settings.jwt_claims.grants == {"operator": ("worker:read",)}
    (tmp_path / "contextworker.toml").write_text('revoked_tokens_redis_url = "redis://:hidden@127.0.0.1/0"\n')
    with pytest.raises(SettingsError, match="set CONTEXTWORKER_REVOKED_TOKENS_REDIS_URL instead") as caught:
        load_settings({}, tmp_path)
    assert "hidden" not in str(caught.value)


def test_what_is_opened_elsewhere_is_not_left_out_in_silence(tmp_path: Path) -> None:
    for settings in (_settings(tmp_path), Settings(auth="token", revoked_tokens_file=tmp_path / "revoked")):
        with pytest.raises(SettingsError, match="open_authenticator"):
            authenticator_for(settings)


async def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "joserfc"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("contextunity.worker.jwt", "contextunity.worker.jwks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "joserfc", None)
    with pytest.raises(SettingsError, match=r"pip install 'contextworker\[jwt\]'"):
        async with open_authenticator(_settings(tmp_path)):
            pass


def test_small_keys_are_not_used(tmp_path: Path) -> None:
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    with pytest.raises(SettingsError, match="an RSA key of 1024 bits; 2048 are the least"):
        _verifier(tmp_path, jwks(jwk(small, "s")))
    assert sign("RS256", small, b"x")
