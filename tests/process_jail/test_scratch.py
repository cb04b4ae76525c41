"""Folders that a program has filled as it liked are counted and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from process_jail.scratch import BLOCK, ScratchRoot, occupied, remove


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "scratch"
    made.mkdir()
    return made


@pytest.fixture
def opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_every_file_and_folder_counts_for_a_block_at_least(folder: Path, opened: int) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "empty").touch()
    (folder / "large").write_bytes(os.urandom(10 * BLOCK))
    assert 12 * BLOCK <= occupied(opened, 1 << 30) <= 14 * BLOCK


def test_links_count_as_themselves(folder: Path, opened: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(bytes(100 * BLOCK))
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "up").symlink_to("..")
    assert occupied(opened, 1 << 30) == 2 * BLOCK


def test_open_files_without_a_name_count(folder: Path, opened: int) -> None:
    with (folder / "x").open("wb") as file:
        file.write(bytes(50 * BLOCK))
        file.flush()
        (folder / "x").unlink()
        assert occupied(opened, 1 << 30, os.getpid()) >= 50 * BLOCK
        assert occupied(opened, 1 << 30) == 0


def test_folders_in_too_many_folders_count_as_too_much(folder: Path, opened: int) -> None:
    (folder / "/".join("d" * 40)).mkdir(parents=True)
    assert occupied(opened, 1 << 30) > 1 << 30


def test_the_deepest_folders_are_removed(folder: Path) -> None:
    program = "import os\nfor _ in range(4000):\n    os.mkdir('d' * 50); os.chdir('d' * 50)\n    open('f', 'w')"
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
    remove(str(folder))
    assert not folder.exists()


def test_links_are_removed_and_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (folder / "link").symlink_to(tmp_path / "kept")
    (folder / "a").mkdir()
    (folder / "a" / "up").symlink_to("../..")
    (folder / "a" / "gone").symlink_to("nowhere")
    remove(str(folder))
    assert not folder.exists()
    assert (tmp_path / "kept" / "file").read_text() == "x"


def test_folders_without_rights_are_removed(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").touch()
    (folder / "a" / "b").chmod(0)
    (folder / "a").chmod(0)
    remove(str(folder))
    assert not folder.exists()


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    left = ScratchRoot(tmp_path, None, prefix="of-this-test-")
    left.make()
    path = next(tmp_path.iterdir())
    shutil.copytree(path, tmp_path / "of-this-test-left")
    (tmp_path / "of-this-test-file").touch()
    (tmp_path / "others").mkdir()
    another = ScratchRoot(tmp_path, None, prefix="of-this-test-")
    names = {entry.name for entry in tmp_path.iterdir()}
    assert {path.name, "of-this-test-file", "others"} < names
    assert "of-this-test-left" not in names
    another.close()
    left.close()
    assert {entry.name for entry in tmp_path.iterdir()} == {"of-this-test-file", "others"}
