"""The example of the package's README works as it stands there, with nothing but the package at hand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import process_jail

_FOLDER = Path(process_jail.__file__).parent


@pytest.mark.skipif(
    bool(process_jail.missing(False, 65534)), reason=f"the jail needs {process_jail.missing(False, 65534)}"
)
def test_the_example_works_with_the_package_alone(tmp_path: Path) -> None:
    shutil.copytree(_FOLDER, tmp_path / "process_jail", ignore=shutil.ignore_patterns("__pycache__"))
    (example,) = re.findall(r"```python\n(.*?)```", (_FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    start = f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); runpy.run_module('example')"
    # Isolated and without site-packages: the standard library is all that it finds beside itself.
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", start], capture_output=True, text=True, check=False)
    assert (ran.stderr, ran.stdout.split()) == ("", " ".join(re.findall(r"\)  # (.*)", example)).split())
