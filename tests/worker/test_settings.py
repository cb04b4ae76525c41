"""Settings: where they come from, and that every wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from contextunity.worker.errors import SettingsError
from contextunity.worker.settings import describe_violations, is_loopback, load_settings


def test_defaults_are_the_published_ones(tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path)
    assert (settings.host, settings.port) == ("0.0.0.0", 50052)
    assert settings.auth == "none"
    assert settings.max_unit_bytes == 50 * 1024 * 1024


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text('host = "127.0.0.2"\nport = 1234\n')
    settings = load_settings({"WORKER_PORT": "4321"}, tmp_path)
    assert (settings.host, settings.port) == ("127.0.0.2", 4321)


def test_module_paths_are_separated_by_commas_or_blanks(tmp_path: Path) -> None:
    settings = load_settings({"WORKER_MODULES": "a.b:c, d.e  f"}, tmp_path)
    assert settings.module_paths == ("a.b:c", "d.e", "f")


def test_a_file_of_another_name_is_read_where_the_environment_names_it(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("port = 7\n")
    assert load_settings({"CONTEXTWORKER_SETTINGS": "other.toml"}, tmp_path).port == 7


def test_what_callers_set_in_the_same_shell_is_no_fault(tmp_path: Path) -> None:
    callers = ("TARGET", "TENANT", "TOKEN")
    assert load_settings({f"CONTEXTWORKER_{name}": "x" for name in callers}, tmp_path) == load_settings({}, tmp_path)


def test_settings_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1  # type: ignore[misc]  # this is what must fail


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text('hots = "x"\nlog_level = "loud"\n')
    with pytest.raises(SettingsError) as caught:
        load_settings({"WORKER_PORT": "many", "CONTEXTWORKER_PROT": "1"}, tmp_path)
    text = str(caught.value)
    assert len(caught.value.faults) == 4
    assert "contextworker.toml: hots: unknown setting" in text
    assert "contextworker.toml: log_level = 'loud'" in text
    assert "WORKER_PORT = 'many'" in text
    assert "CONTEXTWORKER_PROT is not a setting" in text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"port = ", "not a readable TOML file", id="broken"),
        pytest.param(b"\xff\xfe", "not a readable TOML file", id="binary"),
    ],
)
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "contextworker.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=told):
        load_settings({}, tmp_path)


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"names nowhere\.toml, which does not exist"):
        load_settings({"CONTEXTWORKER_SETTINGS": "nowhere.toml"}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        pytest.param({}, "127.0.0.1:50052", id="nobody asks: this machine alone"),
        pytest.param({"CONTEXTWORKER_AUTH": "token"}, "0.0.0.0:50052", id="tokens: the published address"),
        pytest.param({"CONTEXTWORKER_AUTH": "token", "WORKER_HOST": "127.0.0.1"}, "127.0.0.1:50052", id="tokens, here"),
        pytest.param({"WORKER_HOST": "127.0.0.9"}, "127.0.0.9:50052", id="another loopback"),
        pytest.param({"WORKER_HOST": "::1"}, "[::1]:50052", id="IPv6"),
        pytest.param({"WORKER_HOST": "[::1]"}, "[::1]:50052", id="IPv6 in brackets"),
        pytest.param({"WORKER_HOST": "localhost", "WORKER_PORT": "0"}, "localhost:0", id="by name"),
        pytest.param({"CONTEXTWORKER_ALLOW_UNAUTHENTICATED": "true"}, "127.0.0.1:50052", id="allowed, not asked for"),
        pytest.param(
            {"CONTEXTWORKER_ALLOW_UNAUTHENTICATED": "true", "WORKER_HOST": "0.0.0.0"}, "0.0.0.0:50052", id="allowed"
        ),
    ],
)
def test_where_it_listens(tmp_path: Path, environ: dict[str, str], address: str) -> None:
    assert load_settings(environ, tmp_path).listen_address == address


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "worker.internal"])
def test_listening_beyond_this_machine_without_asking_who_calls_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"WORKER_HOST": host}, tmp_path)
    (fault,) = caught.value.faults
    assert fault.startswith(f"WORKER_HOST = {host!r}: ")
    for way_out in ("CONTEXTWORKER_AUTH=token", "127.0.0.1", "CONTEXTWORKER_ALLOW_UNAUTHENTICATED=true"):
        assert way_out in fault


def test_a_host_is_not_blamed_for_what_is_wrong_with_auth(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({"WORKER_HOST": "0.0.0.0", "CONTEXTWORKER_AUTH": "tokens"}, tmp_path)
    assert caught.value.faults == ("CONTEXTWORKER_AUTH = 'tokens': input should be 'none' or 'token'",)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "::ffff:127.0.0.1", "LocalHost")),
        *((host, False) for host in ("0.0.0.0", "::", "::ffff:10.0.0.1", "127.1", "0", "127.0.0.1.example.com", "[")),
    ],
)
def test_what_is_reached_from_this_machine_alone(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("content", ['token_secret = "{}"', '[hmac]\n"*:hmac-001" = "{}"'], ids=["secret", "keys"])
def test_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, content: str) -> None:
    (tmp_path / "contextworker.toml").write_text(content.format("do-not-show-" * 4))
    with pytest.raises(SettingsError, match=r"contextworker\.toml: put no secrets into this file") as caught:
        load_settings({}, tmp_path)
    assert len(caught.value.faults) == 1
    assert "do-not-show" not in str(caught.value)


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    settings = load_settings({"CONTEXTWORKER_TOKEN_SECRET": "do-not-show-" * 4}, tmp_path)
    assert settings.token_secret is not None
    for text in (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_copy())):
        assert "do-not-show" not in text


class _Module(BaseModel):
    router_token: int = 0
    api_keys: dict[str, int] = {}
    url: int = 0
    token_file: int = 0


def test_what_may_be_a_secret_is_not_quoted() -> None:
    values = {
        "router_token": "a-secret",
        "api_keys": {"acme": "another-secret"},
        "url": "postgresql://me:password@host/db",
        "token_file": "/etc/token",
    }
    with pytest.raises(ValidationError) as caught:
        _Module.model_validate(values)
    token, keys, url, file = describe_violations(caught.value, _Module, {}, "modules.it.")
    assert token.startswith("modules.it.router_token: input should be a valid integer")
    assert keys.startswith("modules.it.api_keys.acme: input should be a valid integer")
    assert url.startswith("modules.it.url = 'postgresql://…@host/db': ")
    assert file.startswith("modules.it.token_file = '/etc/token': ")
