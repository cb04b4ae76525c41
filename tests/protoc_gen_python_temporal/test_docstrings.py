"""Comments as docstrings: whatever stands in a comment, the module stays valid and says the same."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protoc_gen_python_temporal.python_text import PythonText

_LINE = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12).map(str.rstrip)


@given(st.lists(_LINE, min_size=1, max_size=4).map("\n".join).map(lambda text: text.strip("\n")))
def test_any_comment_survives(comment: str) -> None:
    text = PythonText()
    text.line("class C:")
    text.docstring(comment, 1)
    text.line("x = 1", 1)
    [cls] = ast.parse("\n".join(text.render())).body
    assert isinstance(cls, ast.ClassDef)
    expected = "\n".join(line.strip() for line in comment.split("\n")).strip()
    found = ast.get_docstring(cls) or ""
    assert "\n".join(line.strip() for line in found.split("\n")).strip() == expected


@pytest.mark.parametrize(
    "comment", [pytest.param("// Ends with a \\", id="backslash"), pytest.param('// "', id="quote")]
)
def test_awkward_comments_leave_the_module_valid(run: Callable[..., Any], comment: str) -> None:
    body = f"service S {{\n{comment}\r\n// more\nrpc Ask(In) returns (Out) {{ option (temporal.v1.query) = {{}}; }} }}"
    text = run(body).text
    compile(text, "generated", "exec")
    assert "\r" not in text
