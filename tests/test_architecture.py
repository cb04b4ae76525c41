"""The house rules that no other tool checks: which way imports run, how long files are, and what stands in no file."""

from __future__ import annotations

import ast
import graphlib
import importlib
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

_WORKER = "contextunity.worker"
_WORKER_LAYERS = (
    ("errors", "settings"),
    ("temporal", "modules", "schedules"),
    ("service",),
    ("server",),
    ("devserver",),
    ("cli",),
)
"""Parts of the worker, lowest first: none imports one of a later group. What is not listed lies between them."""
_LONGEST_FILE = 600


def _module(path: Path) -> str:
    parts = path.relative_to(_ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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


@pytest.mark.parametrize("layer", range(len(_WORKER_LAYERS) - 1))
def test_the_parts_of_the_worker_import_no_higher_ones(layer: int) -> None:
    higher = tuple(f"{_WORKER}.{name}" for names in _WORKER_LAYERS[layer + 1 :] for name in names)
    folder = _ROOT / "src" / _WORKER.replace(".", "/")
    files = [
        path
        for name in _WORKER_LAYERS[layer]
        for path in [*folder.glob(f"{name}.py"), *folder.glob(f"{name}/*.py")]
        # A program, not a part: it calls the command line.
        if path.name != "__main__.py"
    ]
    assert files
    wrong = [
        f"{path.relative_to(_ROOT)} imports {name}"
        for path in files
        for name in _imports(path)
        if name.startswith(tuple(f"{each}." for each in higher)) or name in higher
    ]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    modules = {_module(path): path for path in (_ROOT / "src").rglob("*.py")}
    # An __init__ hands on what is in its folder, and is asked by the files in it for nothing.
    graph = {
        name: {
            found
            for imported in _imports(path)
            for found in (imported, imported.rpartition(".")[0])
            if found in modules and found != name and modules[found].name != "__init__.py"
        }
        for name, path in modules.items()
        if path.name != "__init__.py"
    }
    assert len(graph) > 100
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("published", "defined", "names"),
    [
        (
            "contextunity.worker.core.registry",
            "contextunity.worker.modules.registry",
            ("ModuleConfig", "ModuleContext", "RegisteredModule", "WorkerRegistry"),
        ),
        ("contextunity.worker.plugin", "contextunity.worker.temporal.plugin", ("ContextWorkerPlugin",)),
        ("contextunity.worker.temporal", "contextunity.worker.temporal.client", ("connect", "with_port")),
        ("contextunity.worker.temporal", "contextunity.worker.temporal.worker", ("running_workers",)),
    ],
)
def test_published_paths_hand_on_the_same_names(published: str, defined: str, names: tuple[str, ...]) -> None:
    for name in names:
        assert getattr(importlib.import_module(published), name) is getattr(importlib.import_module(defined), name)


def test_what_is_not_published_is_not_there() -> None:
    with pytest.raises(ImportError, match="nothing_such"):
        exec("from contextunity.worker.temporal import nothing_such")


def test_no_file_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (_ROOT / "src").rglob("*.py")}
    assert {str(path.relative_to(_ROOT)): length for path, length in lengths.items() if length > _LONGEST_FILE} == {}


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
