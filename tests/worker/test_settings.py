"""Settings: where they come from, and that every wrong one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextunity.worker.errors import SettingsError
from contextunity.worker.settings import load_settings


def test_defaults_are_the_published_ones(tmp_path: Path) -> None:
    settings = load_settings({}, tmp_path)
    assert (settings.host, settings.port) == ("0.0.0.0", 50052)
    assert settings.max_unit_bytes == 50 * 1024 * 1024


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text('host = "10.0.0.1"\nport = 1234\n')
    settings = load_settings({"WORKER_PORT": "4321"}, tmp_path)
    assert (settings.host, settings.port) == ("10.0.0.1", 4321)


def test_module_paths_are_separated_by_commas_or_blanks(tmp_path: Path) -> None:
    settings = load_settings({"WORKER_MODULES": "a.b:c, d.e  f"}, tmp_path)
    assert settings.module_paths == ("a.b:c", "d.e", "f")


def test_a_file_of_another_name_is_read_where_the_environment_names_it(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("port = 7\n")
    assert load_settings({"CONTEXTWORKER_SETTINGS": "other.toml"}, tmp_path).port == 7


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
    assert "contextworker.toml: hots: there is no such setting" in text
    assert "contextworker.toml: log_level = 'loud'" in text
    assert "WORKER_PORT = 'many'" in text
    assert "CONTEXTWORKER_PROT is not a setting" in text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        pytest.param(b"port = ", "not a TOML file", id="broken"),
        pytest.param(b"\xff\xfe", "not a TOML file", id="binary"),
    ],
)
def test_a_file_that_is_no_toml_is_an_error(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "contextworker.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=told):
        load_settings({}, tmp_path)


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"names nowhere\.toml, which does not exist"):
        load_settings({"CONTEXTWORKER_SETTINGS": "nowhere.toml"}, tmp_path)
