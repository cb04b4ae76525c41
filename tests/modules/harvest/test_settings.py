"""The settings of the harvest module: where files may lie, and what each supplier is bounded by."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextunity.modules.harvest.plugin import module
from contextunity.modules.harvest.settings import HarvestSettings
from contextunity.worker.errors import SettingsError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.settings import load_settings


def _harvest(folder: Path, text: str, environ: dict[str, str] | None = None) -> HarvestSettings:
    name = (environ or {}).get("CONTEXTWORKER_SETTINGS", "contextworker.toml")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    settings = load_settings(environ or {}, folder)
    registry = WorkerRegistry(module_settings=settings.modules, settings_folder=settings.settings_folder)
    registry.register(module)
    checked = registry.modules["harvest"].settings
    assert isinstance(checked, HarvestSettings)
    return checked


def test_files_lie_below_the_folder_of_the_settings_file(tmp_path: Path) -> None:
    text = f'[modules.harvest.suppliers.a]\nurl = "{(tmp_path / "conf" / "feed.csv").as_uri()}"\n'
    found = _harvest(tmp_path, text, {"CONTEXTWORKER_SETTINGS": "conf/own.toml"})
    assert found.feed_folders == (tmp_path / "conf",)


def test_relative_folders_start_at_the_settings_file(tmp_path: Path) -> None:
    text = (
        '[modules.harvest]\nfeed_folders = ["feeds", "/srv/feeds"]\n'
        f'[modules.harvest.suppliers.a]\nurl = "{(tmp_path / "feeds" / "feed.csv").as_uri()}"\n'
    )
    assert _harvest(tmp_path, text).feed_folders == (tmp_path / "feeds", Path("/srv/feeds"))


def test_a_supplier_elsewhere_is_a_fault_with_the_line_to_add(tmp_path: Path) -> None:
    text = (
        '[modules.harvest.suppliers.a]\nurl = "file:///srv/other/feed.csv"\n'
        '[modules.harvest.suppliers.b]\nurl = "https://shop.example/feed.csv"\n'
        '[modules.harvest.suppliers.c]\nurl = "file:///etc/passwd"\n'
    )
    with pytest.raises(SettingsError) as caught:
        _harvest(tmp_path, text)
    told = str(caught.value)
    assert "modules.harvest.suppliers.a.url = 'file:///srv/other/feed.csv': is in no feed folder" in told
    assert f'add this line to [modules.harvest]: feed_folders = ["{tmp_path}", "/srv/other"]' in told
    assert "modules.harvest.suppliers.c.url = 'file:///etc/passwd'" in told
    assert "suppliers.b" not in told


def test_without_a_settings_file_it_is_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert HarvestSettings().feed_folders == (tmp_path,)
    assert load_settings({}, tmp_path).settings_folder == tmp_path


def test_bounds_are_a_suppliers_own(tmp_path: Path) -> None:
    text = (
        '[modules.harvest.suppliers.a]\nurl = "https://shop.example/a"\nmax_bytes = 5\nmax_ratio = 7\n'
        "max_seconds = 9\nmin_bytes_per_second = 11\nmax_record_bytes = 2048\n"
        '[modules.harvest.suppliers.b]\nurl = "https://shop.example/b"\n'
    )
    suppliers = _harvest(tmp_path, text).suppliers
    own, usual = suppliers["a"].bounds(), suppliers["b"].bounds()
    assert (own.max_bytes, own.max_ratio, own.max_seconds, own.min_bytes_per_second, own.max_record_bytes) == (
        5,
        7,
        9,
        11,
        2048,
    )
    assert (usual.max_bytes, usual.max_ratio, usual.ratio_from_bytes) == (4 * 1024**3, 100, 16 * 1024**2)
    assert (usual.max_seconds, usual.min_bytes_per_second, usual.rate_seconds) == (3600, 1024, 30)
    assert usual.max_record_bytes == 8 * 1024**2
    assert not suppliers["b"].allow_private


@pytest.mark.parametrize("line", ["max_seconds = 3601", "max_record_bytes = 99999999", "max_ratio = 0"])
def test_a_bound_that_cannot_be_held_is_a_fault(tmp_path: Path, line: str) -> None:
    with pytest.raises(SettingsError, match=line.partition(" ")[0]):
        _harvest(tmp_path, f'[modules.harvest.suppliers.a]\nurl = "https://shop.example/a"\n{line}\n')


@pytest.mark.parametrize(
    ("name", "told"),
    [("klingon", "'klingon' is not a known encoding"), ("utf-16", "cannot be read line by line"),
     ("iso-2022-jp", "cannot be read line by line"), ("rot13", "is not a known encoding")],
)  # fmt: skip
def test_an_encoding_that_feeds_cannot_be_read_in_is_a_fault(tmp_path: Path, name: str, told: str) -> None:
    text = f'[modules.harvest.suppliers.a]\nurl = "https://shop.example/a"\nencoding = "{name}"\n'
    with pytest.raises(SettingsError, match=told) as caught:
        _harvest(tmp_path, text)
    assert "modules.harvest.suppliers.a.encoding" in str(caught.value)


def test_an_encoding_is_known_by_any_of_its_names(tmp_path: Path) -> None:
    text = '[modules.harvest.suppliers.a]\nurl = "https://shop.example/a"\nencoding = "Windows-1251"\n'
    assert _harvest(tmp_path, text).suppliers["a"].encoding == "cp1251"
