"""What is told of a data folder that cannot be written to, and what is none of its business."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextunity.worker.data_folder import naming_data_folder
from contextunity.worker.errors import SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that cannot be made."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "data"


def test_a_folder_that_cannot_be_made_is_named_with_its_setting(folder: Path) -> None:
    told = r"file/data: not a directory; .*CONTEXTWORKER_DATA_FOLDER"
    with pytest.raises(SettingsError, match=told), naming_data_folder(folder):
        (folder / "code").mkdir(parents=True)


def _open_catalogue(folder: Path) -> None:
    try:
        folder.mkdir()
    except OSError as error:
        raise RuntimeError("no catalogue") from error


def test_so_it_is_where_a_module_has_an_error_of_its_own_for_it(folder: Path) -> None:
    with pytest.raises(SettingsError, match="cannot write to the data folder"), naming_data_folder(folder):
        _open_catalogue(folder)


def test_other_errors_pass(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), naming_data_folder(folder):
        (tmp_path / "none").read_text()
    with pytest.raises(FileNotFoundError), naming_data_folder(tmp_path / "good"):
        (tmp_path / "good" / "none").read_text()
    with pytest.raises(ValueError, match="wrong"), naming_data_folder(folder):
        raise ValueError("wrong")
