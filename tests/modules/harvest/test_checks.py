"""What `contextworker doctor` finds out about catalogues, without a change of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from contextunity.modules.harvest.catalogue import Catalogue
from contextunity.modules.harvest.checks import check_catalogue
from contextunity.modules.harvest.settings import HarvestSettings
from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.doctor.findings import Finding, Status


def _check(folder: Path, url: str = "") -> Finding:
    context = ModuleContext(settings=HarvestSettings(catalogue_url=url), data_folder=folder)
    (finding,) = check_catalogue(context)
    return finding


def _file(folder: Path) -> Path:
    return folder / "harvest" / "catalogue.db"


def _execute(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(_file(folder))
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Catalogue.open(f"sqlite:///{_file(tmp_path)}").close()
    return tmp_path


def test_a_catalogue_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    finding = _check(tmp_path)
    assert (finding.status, finding.value) == (Status.OK, "is not there yet")
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_of_this_release(folder: Path) -> None:
    finding = _check(folder)
    assert (finding.status, finding.detail) == (Status.OK, "")
    assert finding.value.endswith("catalogue.db answers, schema version 1")


def test_an_empty_database(tmp_path: Path) -> None:
    _file(tmp_path).parent.mkdir()
    _file(tmp_path).touch()
    finding = _check(tmp_path)
    assert finding.status is Status.OK
    assert finding.detail == "it is empty; the first worker makes the tables"
    assert _file(tmp_path).read_bytes() == b""


def test_a_catalogue_of_a_later_release(folder: Path) -> None:
    _execute(folder, "UPDATE schema_version SET version = 7")
    finding = _check(folder)
    assert (finding.status, finding.fix) == (Status.FAIL, "upgrade contextworker")
    assert "schema version 7, not 1" in finding.value


def test_columns_that_the_next_worker_adds(folder: Path) -> None:
    _execute(folder, "ALTER TABLE enrichments DROP COLUMN missing")
    finding = _check(folder)
    assert (finding.status, finding.detail) == (Status.OK, "the next worker adds the columns enrichments.missing")
    assert _check(folder) == finding


def test_what_is_no_database(folder: Path) -> None:
    _file(folder).write_text("a text of somebody else's, which is no database at all")
    finding = _check(folder)
    assert finding.status is Status.FAIL
    assert "file is not a database" in finding.value


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    finding = _check(tmp_path, "postgresql://me:a-password@127.0.0.1:1/catalogue")
    assert finding.status is Status.FAIL
    assert "a-password" not in f"{finding}"
    assert finding.fix.endswith("check that the database is up and reachable, then try again")
