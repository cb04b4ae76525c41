"""What the pages and README publish are excerpts of programs that `make test-polyglot` builds and runs."""

from __future__ import annotations

import re
import textwrap

import pytest

from .pages import ROOT, blocks, page

_PROGRAMS = {
    "go": ("go", ["clients/go/main.go"]),
    "java": ("java", ["clients/java/src/main/java/com/example/harvester/Harvester.java"]),
    "python": ("python", ["clients/python/harvester.py"]),
    "rust": ("rust", ["clients/rust/src/main.rs", "clients/rust/build.rs"]),
    "typescript": ("ts", [f"clients/typescript/src/{name}.ts" for name in ("harvester", "node", "browser")]),
}


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip("\n").split("\n")]


def _is_excerpt(block: str, programs: list[str]) -> bool:
    wanted = _lines(block)
    texts = [_lines((ROOT / program).read_text(encoding="utf-8")) for program in programs]
    return any(
        lines[start : start + len(wanted)] == wanted for lines in texts for start in range(len(lines) - len(wanted) + 1)
    )


@pytest.mark.parametrize("language", _PROGRAMS)
def test_the_code_of_a_page_is_that_of_the_program(language: str) -> None:
    fence, programs = _PROGRAMS[language]
    found = blocks(page(language), fence)
    assert found
    assert [block for block in found if not _is_excerpt(block, programs)] == []
    assert [block for block in found if textwrap.dedent(block) != block] == []


def test_readme_calls_a_contract_from_two_languages() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for language in ("go", "typescript"):
        fence, programs = _PROGRAMS[language]
        found = blocks(readme, fence)
        assert found
        assert [block for block in found if not _is_excerpt(block, programs)] == []


def test_no_manifest_names_a_registry() -> None:
    folder = ROOT / "clients"
    names = (
        "go.mod",
        "go.sum",
        "package.json",
        "package-lock.json",
        ".npmrc",
        "pom.xml",
        "Cargo.toml",
        "requirements.txt",
    )
    found = [path for name in names for path in folder.glob(f"*/{name}")]
    assert {path.name for path in found} == set(names)
    # A schema is named by an address, too.
    addresses = re.compile(r"https?://(?!maven\.apache\.org/|www\.w3\.org/)")
    assert [path for path in found if addresses.search(path.read_text(encoding="utf-8"))] == []
