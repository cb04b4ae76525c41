"""The house rules that no other tool checks: which way imports run, and what stands in no file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]

_ALONE = (
    "betterproto2_codec",
    "process_jail",
    "protoc_gen_python_messages",
    "protoc_gen_python_temporal",
    "python_temporal",
    "shared_import_sandbox",
)
"""Packages that import nothing of each other, nor of contextunity."""

_PLUGINS = ("protoc_gen_python_messages", "protoc_gen_python_temporal")

_LAYERS = {
    **{f"src/{name}": ("contextunity", *(other for other in _ALONE if other != name)) for name in _ALONE},
    "gen/contextunity/gen": (
        "contextunity.core",
        "contextunity.worker",
        "contextunity.modules",
        *(name for name in _ALONE if name != "python_temporal"),
    ),
    "src/contextunity/core": ("contextunity.worker", "contextunity.modules", "process_jail", *_PLUGINS),
    "src/contextunity/worker": ("contextunity.modules", "process_jail", *_PLUGINS),
    "src/contextunity/modules": _PLUGINS,
    # It reads and writes the catalogue by the contract, as a module in another repository would.
    "src/contextunity/modules/gardener": ("contextunity.modules.harvest", "contextunity.modules.code"),
}
"""What the files of a folder may not import."""


def _imports(path: Path) -> set[str]:
    names = set()
    package = path.relative_to(_ROOT).parts[1:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            names |= {".".join((*base, *filter(None, (node.module, alias.name)))) for alias in node.names}
    return names


@pytest.mark.parametrize("folder", _LAYERS)
def test_imports_run_one_way(folder: str) -> None:
    files = sorted((_ROOT / folder).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(_ROOT)} imports {name}"
        for path in files
        for name in _imports(path)
        for barred in _LAYERS[folder]
        if name == barred or name.startswith(f"{barred}.")
    ]
    assert wrong == []


def test_no_tracked_file_names_an_address_to_download_from() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    # Written in pieces, so that this file holds none of what it looks for.
    address = r"https?:" + r"//[^\s\"']+\.(whl|tar\.gz)"
    pattern = re.compile(
        "|".join((r"--(extra-)?index" + "-url", "find" + "-links", r"\"resolved\"" + r": *\"http", address))
    )
    found = [
        name
        for name in filter(None, files)
        if pattern.search((_ROOT / name).read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []
