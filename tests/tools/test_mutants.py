"""The tool that changes the source in one place: what it changes, and what it says of tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

_TOOL = Path(__file__).resolve().parents[2] / "tools/mutants.py"


def _texts(tool: ModuleType, text: str) -> list[str]:
    """The whole text as each mutant leaves it."""
    data = text.encode()
    return [(data[: each.start] + each.new.encode() + data[each.end :]).decode() for each in tool.mutants("a.py", text)]


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        pytest.param("x = a < b", ["x = ((a) <= (b))"], id="comparison"),
        pytest.param("x = 0 < b", ["x = ((0) <= (b))", "x = 1 < b"], id="comparison with a number"),
        pytest.param("x = a < b >= c", ["x = ((a) < (b) > (c))", "x = ((a) <= (b) >= (c))"], id="chain"),
        pytest.param("x = a is None", ["x = ((a) is not (None))"], id="identity"),
        pytest.param("x = a and b", ["x = ((a) or (b))"], id="and"),
        pytest.param("x = not a", ["x = (a)"], id="not"),
        pytest.param("if a:\n    b = c", ["if (not (a)):\n    b = c"], id="condition"),
        pytest.param("x = [y for y in z if y]", ["x = [y for y in z if (not (y))]"], id="filter"),
        pytest.param("x = a + b", ["x = ((a) - (b))"], id="arithmetic"),
        pytest.param("x = True", ["x = False"], id="truth"),
        pytest.param("def f():\n    return a", ["def f():\n    return None"], id="return"),
        pytest.param("f(\n    a\n)\ny = b", ["pass\n\n\ny = b"], id="call that is left out, lines kept"),
        pytest.param("x = 'ø' if a else b", ["x = 'ø' if (not (a)) else b"], id="letters of several bytes"),
    ],
)
def test_what_is_changed(tool: ModuleType, text: str, changed: list[str]) -> None:
    assert sorted(_texts(tool, text)) == sorted(changed)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('"""A docstring."""', id="docstring"),
        pytest.param("x: Literal[1]", id="annotation"),
        pytest.param("@dataclass(frozen=True)\nclass A:\n    pass", id="decorator"),
        pytest.param("x = 'a' + b", id="text"),
        pytest.param("x = f'{a + 1}'", id="message"),
        pytest.param("if TYPE_CHECKING:\n    x = 1", id="imports for types"),
        pytest.param("def f():\n    return None", id="return of nothing"),
    ],
)
def test_what_is_left_as_it_is(tool: ModuleType, text: str) -> None:
    assert _texts(tool, text) == []


def test_all_mutants_of_a_real_file_are_python(tool: ModuleType) -> None:
    text = _TOOL.read_text(encoding="utf-8")
    texts = _texts(tool, text)
    assert len(texts) == len(set(texts)) > 50
    for each in texts:
        compile(each, "a.py", "exec")
        assert each != text


def test_a_sample_is_the_same_for_a_seed_and_for_other_lines_around(tool: ModuleType) -> None:
    text = "\n".join(f"x{number} = a{number} < b" for number in range(100))
    first = tool.sample(tool.mutants("a.py", text), 10, 1)
    assert first == tool.sample(tool.mutants("a.py", text), 10, 1)
    moved = tool.sample(tool.mutants("a.py", f"import os\n\n{text}"), 10, 1)
    assert [each.old for each in moved] == [each.old for each in first]
    assert [each.line for each in moved] == [each.line + 2 for each in first]
    assert first != tool.sample(tool.mutants("a.py", text), 10, 2)


_SOURCE = """\
def limit(value):
    if value > 10:
        return 10
    return value

def unseen(value):
    return value
"""
_TESTS = """\
import shop

def test_limit():
    assert shop.limit(11) == 10
    assert shop.limit(3) == 3

def test_wrong():
    assert shop.unseen(1) == 2
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/shop.py").write_text(_SOURCE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_shop.py").write_text(_TESTS)
    (tmp_path / "pyproject.toml").write_text('[tool.mutants.shop]\nsource = ["src/*.py"]\ntests = ["tests"]\n')
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def _run(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_TOOL), "--root", str(root), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_mutants_are_killed_or_survive_but_not_by_a_test_that_fails_anyway(shop: Path) -> None:
    done = _run(shop, "--count", "20", "--only", " return value ")
    assert "left out, since it fails without any change: tests/test_shop.py::test_wrong" in done.stdout, done.stderr
    assert " killed: src/shop.py:4: return value -> return None\n" in done.stdout
    assert " survived: src/shop.py:7: return value -> return None\n" in done.stdout
    assert (shop / "src/shop.py").read_text() == _SOURCE


def test_tests_that_cannot_be_run_are_an_error(shop: Path) -> None:
    (shop / "tests/test_shop.py").write_text("import nothing_of_the_kind\n")
    done = _run(shop)
    assert done.returncode == 1
    assert "the tests of shop cannot be run" in done.stderr
