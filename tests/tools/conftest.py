"""The script of tools/ that a file of tests is about, as a module."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def tool(request: pytest.FixtureRequest) -> ModuleType:
    """`tools/mutants.py` for the tests of `test_mutants.py`, and so on."""
    name = request.path.stem.removeprefix("test_")
    spec = importlib.util.spec_from_file_location(f"{name}_tool", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for the module that they are of.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
