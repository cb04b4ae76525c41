"""`contextworker token`, from its arguments to what it prints and ends with."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from temporalio.client import Client

from contextunity.core.tokens import Keyring
from contextunity.worker.auth import authenticator_for
from contextunity.worker.cli.token import PERMISSIONS, add_parser, run
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import load_settings
from tests.worker.issuer import AUDIENCE, EC, ISSUER, jwk, jwks, jwt

_SECRET = "0123456789abcdef" * 2
_PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONTEXTWORKER_TOKEN_SECRET", _SECRET)


class _Told:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """The exit code, what it printed, and what it complained about."""
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers(dest="command"))
        try:
            code = run(parser.parse_args(["token", *arguments]))
        except SystemExit as ended:
            code = int(ended.code or 0)
        told = self._capsys.readouterr()
        return code, told.out.removesuffix("\n"), told.err


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> _Told:
    return _Told(capsys)


_MINT = ("mint", "--project", "my_project", "--permission", "worker:read", "--tenant", "a", "--tenant", "b")


def test_a_minted_token_lets_its_bearer_in(tell: _Told) -> None:
    code, token, complaint = tell(*_MINT, "--permission", "worker:execute", "--user-id", "u-1")
    assert (code, complaint) == (0, "")
    authenticator = authenticator_for(
        load_settings({"CONTEXTWORKER_AUTH": "token", "CONTEXTWORKER_TOKEN_SECRET": _SECRET})
    )
    caller = authenticator.authenticate([("authorization", f"Bearer {token}")])
    assert caller.permissions == frozenset({"worker:read", "worker:execute"})
    assert caller.tenants == frozenset({"a", "b"})
    assert (caller.project_id, caller.principal) == ("my_project", "u-1")


@pytest.mark.parametrize(
    ("ttl", "seconds"), [((), 3600), (("--ttl", "90s"), 90), (("--ttl", "7d"), 604800), (("--ttl", "never"), None)]
)
def test_a_token_ends_after_its_time(tell: _Told, ttl: tuple[str, ...], seconds: int | None) -> None:
    before = int(time.time())
    code, out, _ = tell(*_MINT, *ttl, "--json")
    minted = json.loads(out)
    assert code == 0
    assert minted["kid"] == "my_project:hmac-001"
    payload = minted["payload"]
    assert before <= payload["iat"] <= time.time()
    assert payload.get("exp_unix") == (None if seconds is None else payload["iat"] + seconds)
    assert payload["project_binding"] == {"kind": "project", "project_id": "my_project"}


@pytest.mark.parametrize("ttl", ["1", "0s", "-1h", "1w", "1.5h", "", "1h ", "9999999999d"])
def test_a_time_that_is_none_is_told(tell: _Told, ttl: str) -> None:
    code, out, complaint = tell(*_MINT, f"--ttl={ttl}")
    assert (code, out) == (2, "")
    assert "is not a time; write 90s, 15m, 1h, 7d or never" in complaint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2033-01-31T08:00:00Z", 1_990_771_200),
        ("2033-01-31T09:00:00+01:00", 1_990_771_200),
        ("15m", 900),
        ("7d", 604_800),
    ],
)
def test_a_token_and_its_time_begin_when_it_is_told(tell: _Told, text: str, seconds: int) -> None:
    code, out, _ = tell(*_MINT, "--not-before", text, "--ttl", "90s", "--json")
    minted = json.loads(out)
    assert code == 0
    begins = seconds if text.startswith("2") else minted["payload"]["iat"] + seconds
    assert (minted["payload"]["nbf"], minted["payload"]["exp_unix"]) == (begins, begins + 90)
    code, _, complaint = tell("verify", minted["token"])
    assert code == 1
    assert complaint.startswith("contextworker: not_yet_valid: ")


def test_a_token_that_has_begun_says_when(tell: _Told) -> None:
    _, token, _ = tell(*_MINT, "--not-before", "2020-01-31T08:00:00Z", "--ttl", "never")
    code, out, _ = tell("verify", token)
    assert code == 0
    assert "begins      2020-01-31T08:00:00+00:00" in out.splitlines()
    assert "nbf" not in json.loads(tell(*_MINT, "--json")[1])["payload"]


@pytest.mark.parametrize(
    "text", ["", "0s", "soon", "1990857600", "2033-01-31T08:00:00", "2033-13-01T00:00:00Z", "never"]
)
def test_a_beginning_that_is_none_is_told(tell: _Told, text: str) -> None:
    code, out, complaint = tell(*_MINT, f"--not-before={text}")
    assert (code, out) == (2, "")
    assert "is not a time; write 2026-01-31T08:00:00Z, with the offset from UTC" in complaint


def test_a_token_may_be_for_the_schedules_of_all_projects(tell: _Told) -> None:
    _, out, _ = tell(*_MINT, "--platform", "--json")
    minted = json.loads(out)
    assert minted["payload"]["project_binding"] == {"kind": "platform", "project_id": "my_project"}
    assert "schedules   of all projects of its tenants" in tell("verify", minted["token"])[1].splitlines()


def test_a_token_without_tenant_or_permission_is_made_and_remarked_upon(tell: _Told) -> None:
    code, token, complaint = tell("mint", "--project", "my_project")
    assert code == 0
    assert token
    assert "no --tenant" in complaint
    assert "no --permission" in complaint


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("worker:exectue", "; did you mean worker:execute?"),
        ("worker:schedules", "; did you mean worker:schedule?"),
        ("Worker:reed", "; did you mean worker:read?"),
        ("worker:fly-to-the-moon", ""),
    ],
)
def test_a_mistyped_permission_of_the_worker_is_refused(tell: _Told, given: str, meant: str) -> None:
    code, token, complaint = tell(*_MINT, "--permission", given)
    assert (code, token) == (2, "")
    known = "worker:execute, worker:read, worker:schedule"
    assert f"{given!r} is no permission of the worker, which has {known}{meant}\n" in complaint


def test_a_permission_of_another_family_is_kept_and_remarked_upon_where_ours_is_near(tell: _Told) -> None:
    code, out, complaint = tell(*_MINT, "--permission", "brain:read", "--permission", "Worker:EXECUTE", "--json")
    assert (code, complaint) == (0, "")
    assert json.loads(out)["payload"]["permissions"] == ["worker:read", "brain:read", "worker:execute"]
    code, out, complaint = tell(*_MINT, "--permission", "workr:execute", "--json")
    assert (code, json.loads(out)["payload"]["permissions"]) == (0, ["worker:read", "workr:execute"])
    assert "'workr:execute'; did you mean worker:execute?" in complaint


async def test_the_permissions_are_those_that_the_methods_ask_for() -> None:
    client = await Client.connect("127.0.0.1:1", lazy=True)
    methods = WorkerService(client, WorkerRegistry()).methods.values()
    assert {each for method in methods for each in (*method.permissions, *method.code_permissions)} == set(PERMISSIONS)


def test_tokens_are_signed_with_a_file(tell: _Told, tmp_path: Path) -> None:
    other = "fedcba9876543210" * 2
    (tmp_path / "secret").write_text(f"{other}\n")
    (tmp_path / "secret").chmod(0o600)
    code, token, complaint = tell(*_MINT, "--secret-file", "secret", "--kid", "my_project:hmac-002")
    assert (code, complaint) == (0, "")
    assert Keyring(hmac={"my_project:hmac-002": other.encode()}).verify(token).project_id == "my_project"
    (tmp_path / "private.pem").write_bytes(_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "private.pem").chmod(0o600)
    code, token, complaint = tell(*_MINT, "--private-key-file", "private.pem")
    assert (code, complaint) == (0, "")
    assert Keyring(ed25519={"my_project:ed25519-001": _PRIVATE.public_key()}).verify(token).project_id == "my_project"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(("--secret-file", "nowhere"), "nowhere: cannot be read: no such file", id="no file"),
        pytest.param(("--private-key-file", "short"), "not a private key in PEM", id="no private key"),
        pytest.param(("--secret-file", "short"), "has 11 bytes, and needs 32", id="short secret"),
        pytest.param(
            ("--kid", "other:hmac-001"), "of another project than the token is bound to", id="kid of another project"
        ),
        pytest.param(("--kid", "my_project:hmac-002"), "known keys: *:hmac-001", id="unknown kid"),
        pytest.param(("--user-id", "a\nb"), "user_id = 'a\\nb'", id="control character"),
        pytest.param(("--secret-file", "a", "--private-key-file", "b"), "not allowed with", id="two files"),
    ],
)
def test_a_token_that_cannot_be_made_ends_with_2(
    tell: _Told, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "short").write_text("do-not-show")
    (tmp_path / "short").chmod(0o600)
    code, out, complaint = tell(*_MINT, *arguments)
    assert (code, out) == (2, "")
    assert told in complaint
    assert "do-not-show" not in complaint


def test_a_good_token_tells_what_it_says(tell: _Told) -> None:
    _, token, _ = tell(*_MINT, "--user-id", "u-1", "--token-id", "t-1", "--ttl", "never")
    code, out, complaint = tell("verify", token)
    assert (code, complaint) == (0, "")
    assert out.splitlines() == [
        "good        signed with my_project:hmac-001",
        "project     my_project",
        "schedules   of this project alone",
        "token_id    t-1",
        "user_id     u-1",
        "permissions worker:read",
        "tenants     a, b",
        "provenance  contextworker:mint",
        "ends        never",
    ]
    code, out, _ = tell("verify", token, "--json")
    told = json.loads(out)
    assert (code, told["good"], told["kid"], told["project_id"]) == (0, True, "my_project:hmac-001", "my_project")
    assert told["payload"]["allowed_tenants"] == ["a", "b"]


def test_a_token_is_read_from_the_standard_input(tell: _Told, monkeypatch: pytest.MonkeyPatch) -> None:
    _, token, _ = tell(*_MINT)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{token}\n".encode())))
    code, out, _ = tell("verify", "-")
    assert code == 0
    assert "ends        20" in out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff" * 1_000_000)))
    code, _, complaint = tell("verify", "-")
    assert (code, complaint) == (1, "contextworker: malformed: the token is longer than 16384 characters\n")


def test_a_token_that_is_not_good_ends_with_1_and_the_reason(tell: _Told) -> None:
    _, token, _ = tell(*_MINT)
    for changed, reason in {
        token[:-5] + "AAAA=": "bad_signature",
        token.replace("001", "007", 1): "unknown_kid",
        token.replace("my_project", "other", 1): "wrong_project",
        "nonsense": "malformed",
    }.items():
        code, out, complaint = tell("verify", changed)
        assert (code, out) == (1, "")
        assert complaint.startswith(f"contextworker: {reason}: ")
        code, out, complaint = tell("verify", changed, "--json")
        told: dict[str, Any] = json.loads(out)
        assert (code, told["good"], told["reason"], complaint) == (1, False, reason, "")


def test_without_keys_there_is_nothing_to_verify_with(tell: _Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONTEXTWORKER_TOKEN_SECRET")
    code, out, complaint = tell("verify", "a.b.c")
    assert (code, out) == (2, "")
    assert "there is no key to verify tokens with" in complaint


def test_an_end_that_no_calendar_has_is_told_in_seconds(tell: _Told) -> None:
    from contextunity.core.tokens import ContextToken

    token = Keyring(hmac={"*:hmac-001": _SECRET.encode()}).mint(
        ContextToken(token_id="t", exp_unix=1e300), kid="a:hmac-001"
    )
    code, out, _ = tell("verify", token)
    assert code == 0
    assert "ends        1e+300 s after 1970" in out
    assert "project     none" in out
    assert "tenants     none" in out


def test_a_printed_secret_is_a_good_one(tell: _Told, monkeypatch: pytest.MonkeyPatch) -> None:
    code, secret, complaint = tell("secret")
    assert (code, complaint, len(secret)) == (0, "", 64)
    assert json.loads(tell("secret", "--json")[1])["secret"] != secret
    monkeypatch.setenv("CONTEXTWORKER_TOKEN_SECRET", secret)
    assert tell("verify", tell(*_MINT)[1])[0] == 0


def test_public_keys_of_the_settings_verify(tell: _Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = _PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    (tmp_path / "keys.toml").write_text(f'[ed25519]\n"my_project:ed25519-001" = """{pem}"""\n')
    (tmp_path / "private.pem").write_bytes(_PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "private.pem").chmod(0o600)
    monkeypatch.setenv("CONTEXTWORKER_TOKEN_KEYS_FILE", "keys.toml")
    _, token, _ = tell(*_MINT, "--private-key-file", "private.pem")
    code, out, _ = tell("verify", token)
    assert code == 0
    assert out.startswith("good        signed with my_project:ed25519-001")


@pytest.fixture
def jwt_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a service that takes JWTs; the file of revoked tokens."""
    (tmp_path / "jwks.json").write_bytes(jwks(jwk(EC, "ec-1")))
    (tmp_path / "revoked").write_text("t-2\n")
    names = {
        "JWT_ISSUER": ISSUER,
        "JWT_AUDIENCE": AUDIENCE,
        "JWT_JWKS_FILE": "jwks.json",
        "REVOKED_TOKENS_FILE": "revoked",
    }
    for name, value in names.items():
        monkeypatch.setenv(f"CONTEXTWORKER_{name}", str(tmp_path / value) if name.endswith("FILE") else value)
    return tmp_path / "revoked"


@pytest.mark.usefixtures("jwt_settings")
def test_a_jwt_is_verified_too(tell: _Told) -> None:
    code, out, _ = tell("verify", jwt(tenants=["a"], scope="worker:read", exp=2_000_000_000))
    assert code == 0
    assert out.splitlines() == [
        f"good        signed with ec-1, a JWT of {ISSUER}",
        "project     none",
        "schedules   of all projects of its tenants",
        "token_id    t-1",
        "user_id     alex",
        "permissions worker:read",
        "tenants     a",
        "ends        2033-05-18T03:33:20+00:00",
    ]
    code, out, _ = tell("verify", jwt(aud="other"), "--json")
    assert (code, json.loads(out)["reason"]) == (1, "wrong_audience")
    code, _, complaint = tell("verify", jwt(kid="ec-2"))
    assert (code, complaint) == (
        1,
        "contextworker: unknown_kid: the issuer has no ES256 key with the token's kid (kid ec-2)\n",
    )
    # Tokens of the other kind are verified as before.
    assert tell("verify", tell(*_MINT)[1])[0] == 0


def test_a_revoked_token_is_not_good(tell: _Told, jwt_settings: Path) -> None:
    code, out, _ = tell("verify", jwt(jti="t-2"), "--json")
    assert (code, json.loads(out)["reason"]) == (1, "revoked")
    code, _, complaint = tell("verify", tell(*_MINT, "--token-id", "t-2")[1])
    assert (code, complaint) == (
        1,
        "contextworker: revoked: the token is revoked; get a new one (kid my_project:hmac-001)\n",
    )
    jwt_settings.unlink()
    code, _, complaint = tell("verify", jwt())
    assert code == 2
    assert "revoked_tokens_file" in complaint
