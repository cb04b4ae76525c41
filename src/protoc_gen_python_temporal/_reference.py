"""Prints the Markdown reference of annotated services."""

from __future__ import annotations

from ._model import FileModel

__all__ = ["print_reference"]


def print_reference(files: list[FileModel], version: str) -> str:
    """The reference's text."""
    return f"<!-- {version} {len(files)} -->\n"
