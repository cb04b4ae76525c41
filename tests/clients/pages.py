"""Reads the pages about callers in other languages."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["ROOT", "blocks", "page", "section"]

ROOT = Path(__file__).resolve().parents[2]


def page(language: str) -> str:
    """The text of a page."""
    return (ROOT / f"docs/how-to/call-from-{language}.md").read_text(encoding="utf-8")


def section(language: str, heading: str) -> str:
    """What stands in a page below a heading."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page(language), re.DOTALL | re.MULTILINE)
    assert found is not None, f"the page about {language} has no section {heading!r}"
    return found[1]


def blocks(text: str, fence: str) -> list[str]:
    """The code blocks of a language."""
    return re.findall(rf"^```{fence}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
