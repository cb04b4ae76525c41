"""Who calls, as a call's metadata tells it, and where the keys come from that prove it."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from contextunity.core import ContextUnit, worker_pb2, worker_pb2_grpc
from contextunity.core.tokens import ContextToken, Keyring, ProjectBinding, mint
from contextunity.worker.auth import EVERYBODY, Authenticator, Caller, authenticator_for
from contextunity.worker.boundary import SERVICE_NAME
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import AuthenticationError, SettingsError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.settings import Settings, load_settings
from contextunity.worker.temporal.client import connect
from contextunity.worker.token_keys import load_keyring

_SECRET, _OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
_KEYS = Keyring(hmac={"*:hmac-001": _SECRET.encode()})
_PRIVATE = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


def _settings(folder: Path, **variables: str) -> Settings:
    return load_settings({f"CONTEXTWORKER_{name}": value for name, value in variables.items()}, folder)


@pytest.fixture
def by_token(tmp_path: Path) -> Authenticator:
    return authenticator_for(_settings(tmp_path, AUTH="token", TOKEN_SECRET=_SECRET))


def _token(token: ContextToken = ContextToken(token_id="t-1"), kid: str = "my_project:hmac-001") -> str:  # noqa: B008
    return _KEYS.mint(token, kid=kid)


def test_a_token_tells_who_calls(by_token: Authenticator) -> None:
    token = ContextToken(
        token_id="t-1",
        permissions=("worker:execute", "worker:read"),
        allowed_tenants=("my_project", "other"),
        exp_unix=time.time() + 60,
        user_id="u-1",
        agent_id="a-1",
        project_binding=ProjectBinding(project_id="my_project"),
    )
    caller = by_token.authenticate([("user-agent", "x"), ("authorization", f"Bearer {_token(token)}")])
    assert caller == Caller(
        permissions=frozenset({"worker:execute", "worker:read"}),
        tenants=frozenset({"my_project", "other"}),
        project_id="my_project",
        bound_project="my_project",
        principal="u-1",
    )
    assert caller.may("worker:read")
    assert caller.may("worker:schedule", "worker:execute")
    assert not caller.may("worker:schedule")
    assert not caller.may()
    assert caller.sees("other")
    assert not caller.sees("others")


def test_a_token_without_tenants_or_permissions_gives_none(by_token: Authenticator) -> None:
    caller = by_token.authenticate([("authorization", f"Bearer {_token()}")])
    assert caller == Caller(permissions=frozenset(), tenants=frozenset(), project_id="", principal="t-1")
    assert not caller.sees("")
    assert not caller.sees("my_project")


def test_no_permission_implies_another_and_no_tenant_is_a_pattern(by_token: Authenticator) -> None:
    token = ContextToken(token_id="t", permissions=("admin:all", "worker:*"), allowed_tenants=("*", ""))
    caller = by_token.authenticate([("authorization", f"Bearer {_token(token)}")])
    assert not caller.may("worker:execute", "worker:read", "worker:schedule")
    assert not caller.sees("my_project")
    assert not caller.sees("")


@pytest.mark.parametrize(
    ("binding", "kid", "vouched", "bound"),
    [
        pytest.param(None, "acme:hmac-001", "", None, id="unbound"),
        pytest.param({"kind": "platform"}, "acme:hmac-001", "", None, id="platform"),
        pytest.param({"kind": "platform", "project_id": "acme"}, "acme:hmac-001", "acme", None, id="platform of one"),
        pytest.param({"kind": "project", "project_id": "acme"}, "acme:hmac-001", "acme", "acme", id="project"),
        pytest.param({"project_id": "acme"}, "acme:hmac-001", "acme", "acme", id="no kind"),
        # Its bearer may write any project into the kid.
        pytest.param({"kind": "project"}, "acme:hmac-001", "", "", id="of a project that is not named"),
        pytest.param({"kind": "project"}, "own:hmac-001", "own", "own", id="of the key's project"),
        pytest.param(None, "own:hmac-001", "own", None, id="unbound, of a project's key"),
    ],
)
def test_a_caller_is_bound_to_the_project_of_its_token(
    tmp_path: Path, binding: dict[str, Any] | None, kid: str, vouched: str, bound: str | None
) -> None:
    keys = _file(tmp_path / "keys.toml", f'[hmac]\n"own:hmac-001" = "{_OTHER}"\n')
    authenticator = authenticator_for(_settings(tmp_path, AUTH="token", TOKEN_SECRET=_SECRET, TOKEN_KEYS_FILE=keys))
    token = ContextToken(token_id="t", project_binding=None if binding is None else ProjectBinding(**binding))
    text = mint(token, kid=kid, secret=(_OTHER if kid.startswith("own") else _SECRET).encode())
    caller = authenticator.authenticate([("authorization", f"Bearer {text}")])
    assert (caller.project_id, caller.bound_project) == (vouched, bound)
    for project in ("acme", "own", "default", "ac", "acme2", "ACME"):
        assert caller.sees_project(project) == (bound in (None, project)), project


_ADMIN = {
    *("admin:all", "admin:read", "admin:write", "admin:trace", "brain:read", "brain:write"),
    *("memory:read", "memory:write", "trace:read", "trace:write"),
}


@pytest.mark.parametrize(
    ("held", "effective"),
    [
        pytest.param({"admin:all"}, _ADMIN, id="admin:all"),
        pytest.param({"admin:trace"}, {"admin:trace", "trace:read"}, id="admin:trace"),
        pytest.param({"memory:write"}, {"memory:write", "memory:read"}, id="memory:write"),
        pytest.param({"brain:write"}, {"brain:write", "brain:read"}, id="brain:write"),
        pytest.param({"memory:read", "admin:write"}, {"memory:read", "admin:write"}, id="nothing more"),
        pytest.param({"worker:execute", "x"}, {"worker:execute", "x"}, id="the worker's own"),
        pytest.param(set[str](), set[str](), id="none"),
    ],
)
def test_scopes_are_held_against_what_permissions_imply(held: set[str], effective: set[str]) -> None:
    caller = Caller(permissions=frozenset(held), tenants=frozenset())
    everything = _ADMIN | {"worker:execute", "worker:read", "worker:schedule", "worker:*", "admin:*", "x", ""}
    assert {each for each in everything if caller.satisfies([each])} == effective
    assert caller.satisfies([])
    assert caller.satisfies(["no such scope", *effective]) == bool(effective)
    assert {each for each in everything if caller.may(each)} == held
    assert EVERYBODY.satisfies(["no such scope"])


@pytest.mark.parametrize(
    ("token", "principal"),
    [
        (ContextToken(token_id="t", agent_id="a"), "a"),
        (ContextToken(token_id="t", user_id="", agent_id=""), "t"),
    ],
)
def test_the_principal_is_the_first_that_is_named(by_token: Authenticator, token: ContextToken, principal: str) -> None:
    assert by_token.authenticate([("authorization", f"Bearer {_token(token)}")]).principal == principal


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_is_read_in_any_case(by_token: Authenticator, scheme: str) -> None:
    assert by_token.authenticate([("Authorization", scheme + _token())]).principal == "t-1"
    assert by_token.authenticate([("authorization", (scheme + _token()).encode())]).principal == "t-1"


_GOOD = _token()


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([], "TOKEN_MISSING", id="none"),
        pytest.param([("x-authorization", f"Bearer {_GOOD}")], "TOKEN_MISSING", id="another header"),
        pytest.param([("authorization", "")], "TOKEN_MALFORMED", id="empty"),
        pytest.param([("authorization", "Bearer")], "TOKEN_MALFORMED", id="scheme alone"),
        pytest.param([("authorization", "Bearer  ")], "TOKEN_MALFORMED", id="blank token"),
        pytest.param([("authorization", _GOOD)], "TOKEN_MALFORMED", id="no scheme"),
        pytest.param([("authorization", f"Basic {_GOOD}")], "TOKEN_MALFORMED", id="another scheme"),
        pytest.param([("authorization", f"Bearer {_GOOD} x")], "TOKEN_MALFORMED", id="more after it"),
        pytest.param([("authorization", f"Bearer {_GOOD}")] * 2, "TOKEN_MALFORMED", id="twice"),
        pytest.param([("authorization", b"Bearer \xff.\x00.\xfe")], "TOKEN_MALFORMED", id="bytes"),
        pytest.param([("authorization", "Bearer " + _GOOD.replace("001", "007"))], "TOKEN_INVALID", id="unknown key"),
        pytest.param(
            [("authorization", "Bearer " + mint(ContextToken(token_id="t"), kid="a:hmac-001", secret=_OTHER.encode()))],
            "TOKEN_INVALID",
            id="another secret",
        ),
        pytest.param(
            [("authorization", "Bearer " + _token(ContextToken(token_id="t", exp_unix=1)))], "TOKEN_EXPIRED", id="old"
        ),
        pytest.param(
            [("authorization", "Bearer " + _token(ContextToken(token_id="t", nbf=1e12)))],
            "TOKEN_NOT_YET_VALID",
            id="early",
        ),
        pytest.param(
            [
                (
                    "authorization",
                    "Bearer "
                    + _token(
                        ContextToken(token_id="t", project_binding=ProjectBinding(project_id="a")), "a:hmac-001"
                    ).replace("a:", "b:", 1),
                )
            ],
            "TOKEN_WRONG_PROJECT",
            id="another project",
        ),
    ],
)
def test_who_does_not_show_a_good_token_is_nobody(
    by_token: Authenticator,
    headers: list[tuple[str, str | bytes]],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AuthenticationError) as caught:
        by_token.authenticate(headers)
    assert caught.value.reason == reason
    for _, value in headers:
        shown = value if isinstance(value, str) else value.decode("latin-1")
        for part in shown.rsplit(".", 2)[1:]:
            assert part not in f"{caught.value!r} {caplog.text}"


def test_a_stranger_is_not_told_which_keys_there_are(by_token: Authenticator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    told = set[str]()
    for token in (_GOOD.replace("001", "007"), _GOOD[:-5] + "AAAA="):
        with pytest.raises(AuthenticationError) as caught:
            by_token.authenticate([("authorization", f"Bearer {token}")])
        told.add(f"{caught.value.reason}: {caught.value}")
    assert told == {"TOKEN_INVALID: no key verifies the token"}
    assert "no key has the token's kid (kid 'my_project:hmac-007')" in caplog.text
    assert "signature is invalid (kid 'my_project:hmac-001')" in caplog.text


_values = st.one_of(st.text(), st.binary(), st.text().map("Bearer {}".format), st.binary().map(b"bearer ".__add__))
_BY_TOKEN = authenticator_for(Settings.model_validate({"auth": "token", "token_secret": _SECRET}))


@given(st.lists(st.tuples(st.sampled_from(["authorization", "Authorization", "x"]), _values)))
def test_whatever_stands_in_the_metadata_is_nobody(metadata: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(AuthenticationError):
        _BY_TOKEN.authenticate(metadata)


def test_where_nobody_is_asked_everybody_may_do_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authenticator = authenticator_for(_settings(tmp_path))
    for metadata in ([], [("authorization", "Bearer nonsense")], [("authorization", "x")] * 2):
        assert authenticator.authenticate(metadata) is EVERYBODY
    assert EVERYBODY.may("worker:execute")
    assert EVERYBODY.sees("any")
    assert EVERYBODY.sees("")
    assert caplog.text == ""


def test_a_service_that_is_open_to_all_says_so_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({"WORKER_HOST": "0.0.0.0", "CONTEXTWORKER_ALLOW_UNAUTHENTICATED": "yes"}, tmp_path)
    assert authenticator_for(settings).authenticate([]) is EVERYBODY
    assert "other machines can reach 0.0.0.0" in caplog.text


@pytest.fixture
async def target(tmp_path: Path, temporal_server: EmbeddedServer) -> AsyncIterator[str]:
    """Where a service of ours, without modules, listens that asks for tokens."""
    settings = _settings(tmp_path, AUTH="token", TOKEN_SECRET=_SECRET)
    settings = settings.model_copy(update={"host": "127.0.0.1", "port": 0})
    client = await connect(settings, address=temporal_server.address)
    async with running_server(WorkerService(client, WorkerRegistry()), settings, authenticator_for(settings)) as server:
        yield server.target


async def _ask(channel: grpc.aio.Channel, *headers: str) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Asks for a task that nobody has; the status, and the reason and metadata of its ErrorInfo."""
    ask: Any = worker_pb2_grpc.WorkerServiceStub(channel).GetTaskStatus
    unit: Any = ContextUnit(payload={"workflow_id": "nobody-has-this"}).to_protobuf(worker_pb2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(unit, metadata=[("authorization", header) for header in headers], timeout=30)
    info = error_details_pb2.ErrorInfo()
    for detail in getattr(rpc_status.from_call(cast("Any", caught.value)), "details", ()):
        detail.Unpack(info)
    return caught.value.code(), info.reason, dict(info.metadata)


async def test_the_service_lets_in_who_shows_a_good_token(target: str) -> None:
    reader = ContextToken(token_id="t", permissions=("worker:read",), allowed_tenants=("a",))
    # The longest there is: grpcio must not get in its way.
    longest = reader.model_copy(update={"provenance": ("x" * 12_000,)})
    async with grpc.aio.insecure_channel(target) as channel:
        for headers, fault in {
            (): "TOKEN_MISSING",
            ("Bearer a.b.c",): "TOKEN_MALFORMED",
            (f"Bearer {_token(reader)}", f"Bearer {_token(reader)}"): "TOKEN_MALFORMED",
            (f"Bearer {_token(reader)[:-5]}AAAA=",): "TOKEN_INVALID",
        }.items():
            code, reason, metadata = await _ask(channel, *headers)
            assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_REFUSED")
            assert metadata["fault"] == fault
        code, reason, _ = await _ask(channel, f"Bearer {_token()}")
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")
        for token in (reader, longest):
            code, reason, _ = await _ask(channel, f"bearer {_token(token)}")
            assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "TASK_UNKNOWN")


async def test_health_and_reflection_ask_for_no_token(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        async for listed in reflection.ServerReflectionInfo(iter(asked)):
            assert SERVICE_NAME in [service.name for service in listed.list_services_response.service]


def _file(path: Path, text: str, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_keys_come_from_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    public = _PRIVATE.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    raw = base64.b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    keys = _file(
        tmp_path / "keys.toml",
        f'[hmac]\n"a:hmac-001" = "{_OTHER}"\n[ed25519]\n"a:ed25519-001" = """\n{pem}"""\n"b:ed25519-001" = "{raw}"\n',
    )
    (tmp_path / "contextworker.toml").write_text(
        f'auth = "token"\ntoken_keys_file = "{keys}"\ntoken_secret_file = "{tmp_path}/secret"\n'
    )
    _file(tmp_path / "secret", f"\n {_SECRET}\r\n")
    keyring = load_keyring(_settings(tmp_path))
    assert keyring.kids == ("a:hmac-001", "*:hmac-001", "a:ed25519-001", "b:ed25519-001")
    token = ContextToken(token_id="t")
    assert keyring.verify(mint(token, kid="a:hmac-001", secret=_OTHER.encode())).project_id == "a"
    assert keyring.verify(mint(token, kid="c:hmac-001", secret=_SECRET.encode())).kid == "c:hmac-001"
    assert keyring.verify(mint(token, kid="a:ed25519-001", private_key=_PRIVATE)).project_id == "a"
    assert caplog.text == ""


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602])
def test_a_secret_that_others_may_use_is_told_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    secret = _file(tmp_path / "secret", _SECRET, mode)
    keys = _file(tmp_path / "keys.toml", f'[hmac]\n"a:hmac-001" = "{_OTHER}"', mode)
    load_keyring(_settings(tmp_path, TOKEN_SECRET_FILE=secret, TOKEN_KEYS_FILE=keys))
    for path in (secret, keys):
        assert f"{path} contains a secret, and other users can access it (mode {mode:o}); set mode 600" in caplog.text
    assert _SECRET not in caplog.text


def test_public_keys_are_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = base64.b64encode(_PRIVATE.public_key().public_bytes_raw()).decode()
    keys = _file(tmp_path / "keys.toml", f'[ed25519]\n"a:ed25519-001" = "{raw}"', 0o644)
    assert load_keyring(_settings(tmp_path, TOKEN_KEYS_FILE=keys)).kids == ("a:ed25519-001",)
    assert caplog.text == ""


_PRIVATE_PEM = _PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("secret", "keys", "faults"),
    [
        pytest.param(None, None, ["there is no key to verify tokens with"], id="no key"),
        pytest.param(None, "", ["there is no key to verify tokens with"], id="empty file of keys"),
        pytest.param("do-not-show", None, ["the secret of *:hmac-001 has 11 bytes, and needs 32"], id="short"),
        pytest.param("", None, ["the secret of *:hmac-001 has 0 bytes, and needs 32"], id="empty secret file"),
        pytest.param(None, "do-not-show", ["not a readable TOML file (at "], id="no TOML"),
        pytest.param(None, '[hmac]\n"do-not-show', ["not a readable TOML file (at end of document)"], id="cut TOML"),
        pytest.param(None, "hmac = 'do-not-show'", ["hmac is not a table of keys"], id="no table"),
        pytest.param(
            None,
            "[rsa]\nx = 'do-not-show'\n[hmac]\na.hmac = 'do-not-show'\n[ed25519]\n'a:ed25519-001' = 'do-not-show'\n",
            ["rsa: unknown table", "hmac: 'a' is not a string", "'a:ed25519-001': not a public key"],
            id="wrong keys",
        ),
        pytest.param(
            None,
            f"[ed25519]\n'a:ed25519-001' = '''{_PRIVATE_PEM}'''",
            ["got a private key; give its public key instead"],
            id="private key",
        ),
        pytest.param(_SECRET, f"[hmac]\n'*:hmac-001' = '{_OTHER}'", ["set it in one place"], id="set twice"),
        pytest.param(_SECRET, f"[hmac]\n'a:hmac-001' = '{_SECRET}'", ["have the same key"], id="one key for two"),
    ],
)
def test_keys_that_cannot_be_used_are_faults_of_the_settings(
    tmp_path: Path, secret: str | None, keys: str | None, faults: list[str]
) -> None:
    variables = {"AUTH": "token"}
    if secret is not None:
        variables["TOKEN_SECRET_FILE"] = _file(tmp_path / "secret", secret)
    if keys is not None:
        variables["TOKEN_KEYS_FILE"] = _file(tmp_path / "keys.toml", keys)
    with pytest.raises(SettingsError) as caught:
        authenticator_for(_settings(tmp_path, **variables))
    assert caught.value.exit_code == 2
    assert len(caught.value.faults) == len(faults)
    for fault, told in zip(caught.value.faults, faults, strict=True):
        assert told in fault
    for shown in ("do-not-show", _SECRET, _OTHER, _PRIVATE_PEM.splitlines()[1]):
        assert shown not in str(caught.value)


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path, AUTH="token", TOKEN_SECRET=_SECRET, TOKEN_SECRET_FILE=f"{tmp_path}/nowhere", TOKEN_KEYS_FILE="/"
    )
    with pytest.raises(SettingsError) as caught:
        authenticator_for(settings)
    assert caught.value.faults == (
        "token_keys_file: /: cannot be read: is a directory",
        "token_secret_file and CONTEXTWORKER_TOKEN_SECRET are both set; set only one",
    )
    with pytest.raises(SettingsError, match=r"token_secret_file: .*nowhere: cannot be read: no such file or directory"):
        load_keyring(_settings(tmp_path, TOKEN_SECRET_FILE=f"{tmp_path}/nowhere"))


def test_a_secret_may_be_any_bytes(tmp_path: Path) -> None:
    secret = b"\xff\xfe" * 16
    settings = _settings(tmp_path, TOKEN_SECRET=secret.decode("utf-8", "surrogateescape"))
    token = mint(ContextToken(token_id="t"), kid="a:hmac-001", secret=secret)
    assert load_keyring(settings).verify(token).kid == "a:hmac-001"
