"""The taxonomy file: what is read from it, and that every fault is named with its line before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contextunity.modules.gardener.settings import GardenerSettings
from contextunity.modules.gardener.taxonomy import (
    BUNDLED_TAXONOMY,
    TaxonomyError,
    is_within,
    load_taxonomy,
    parse_taxonomy,
    words_of,
)

_PATH = Path("words.txt")


def test_the_bundled_one_can_be_read() -> None:
    taxonomy = load_taxonomy(BUNDLED_TAXONOMY)
    assert taxonomy.categories["tunnel tent"] == "tents/tunnel"
    assert taxonomy.colors["gray"] == "grey"
    assert "moss" not in taxonomy.colors
    assert taxonomy.option_colors["moss"] == "green"
    assert taxonomy.may_be_of("ripstop", "tents/dome")
    assert not taxonomy.may_be_of("ripstop", "tents/pegs")
    assert not taxonomy.may_be_of("ripstop", "cookware/pots")
    assert not taxonomy.may_be_of("ripstop", "")
    assert len(taxonomy.version) == 12


def test_words_are_compared_without_case_accents_and_plural() -> None:
    assert words_of("Crêpe Pans, Men's GORE-TEX 2\"") == ("crepe", "pan", "men", "gore", "tex", "2")
    assert words_of("Намет Dress") == ("намет", "dress")


def test_a_path_is_within_itself_and_what_stands_above() -> None:
    assert is_within("tents/dome", "tents")
    assert is_within("tents", "tents")
    assert not is_within("tents-old", "tents")


_FAULTS = [
    pytest.param("tents = tent\n", 1, "is before the first section", id="no section"),
    pytest.param(
        "[categories]\ntents = tent\n[colours]\nred = red\n", 3, "there is no section [colours]", id="section"
    ),
    pytest.param("[categories]\n\ntents\n", 3, "'tents' is not a name, an = and phrases", id="no ="),
    pytest.param("[categories]\ntents =\n", 2, "is not a name, an = and phrases", id="no phrases"),
    pytest.param("[categories]\nTents = tent\n", 2, "'Tents' is not a path", id="capital"),
    pytest.param("[categories]\na = one\nb = two\na = three\n", 4, "'a' is already on line 2", id="twice"),
    pytest.param("[categories]\na = one\nb = two, Ones\n", 3, "'one' is already on line 2", id="phrase twice"),
    pytest.param("[categories]\na = a b c d e\n", 2, "has 5 words; 1 to 4 are allowed", id="long phrase"),
    pytest.param("[categories]\na = one\n[materials]\nx @ b = x\n", 4, "of the category 'b'", id="unknown limit"),
    pytest.param("[categories]\na = one\n[options]\nweight = kg\n", 4, "and not 'weight'", id="option"),
    pytest.param("[categories]\na @ b = one\n", 2, "@ is only for materials", id="limit elsewhere"),
    pytest.param("# nothing\n", 0, "has no category", id="empty"),
]


@pytest.mark.parametrize(("text", "line", "says"), _FAULTS)
def test_a_fault_is_named_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(TaxonomyError) as caught:
        parse_taxonomy(text, _PATH)
    assert [line for line, _ in caught.value.faults] == [line]
    assert says in str(caught.value)
    assert (f"words.txt, line {line}:" in str(caught.value)) == bool(line)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(TaxonomyError) as caught:
        parse_taxonomy("[categories]\nx\ny\nz = z\n", _PATH)
    assert [line for line, _ in caught.value.faults] == [2, 3]


def test_a_file_that_is_missing_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match="cannot be read: no such file or directory; check taxonomy"):
        load_taxonomy(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"[categories]\n\ntents = \xff\n")
    with pytest.raises(TaxonomyError, match=r"bytes\.txt, line 3: is not UTF-8"):
        load_taxonomy(tmp_path / "bytes.txt")


def test_the_command_ends_before_anything_starts_and_names_the_line(spawn: Any, tmp_path: Path) -> None:
    (tmp_path / "contextworker.toml").write_text('[modules.gardener]\ntaxonomy = "words.txt"\n')
    (tmp_path / "words.txt").write_text("[categories]\ntents = tent\nstoves\n")
    process = spawn("-m", "contextunity.worker", "--temporal", "--modules", "gardener")
    assert process.wait() == 2
    assert "modules.gardener.taxonomy" in process.output
    assert "words.txt, line 3: 'stoves' is not a name" in process.output
    assert "Traceback" not in process.output


def test_a_taxonomy_of_ones_own_lies_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("[categories]\ntents = tent\n")
    settings = GardenerSettings.model_validate({"taxonomy": "words.txt"}, context={"settings_folder": tmp_path})
    assert settings.taxonomy == tmp_path / "words.txt"
