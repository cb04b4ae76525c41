"""The check plugin, as buf calls it."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contextunity.worker.contracts import RULES, Severity, buf_plugin

from .conftest import BUF

_SERVICE = "/buf.plugin.check.v1.CheckService"


def _call(monkeypatch: pytest.MonkeyPatch, *words: str, request: bytes = b"") -> bytes:
    class _Stream:
        def __init__(self, content: bytes = b"") -> None:
            self.buffer = io.BytesIO(content)

    out = _Stream()
    monkeypatch.setattr(sys, "argv", ["contextworker-buf-plugin", *words])
    monkeypatch.setattr(sys, "stdin", _Stream(request))
    monkeypatch.setattr(sys, "stdout", out)
    buf_plugin.main()
    return out.buffer.getvalue()


def _json(content: bytes) -> Any:
    return json.loads(content)


def test_it_speaks_pluginrpc(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _call(monkeypatch, "--protocol") == b"1\n"
    spec = _json(_call(monkeypatch, "--spec", "--format", "json"))
    assert [each["path"].rpartition("/")[2] for each in spec["procedures"]] == ["Check", "ListRules", "ListCategories"]
    response = _json(_call(monkeypatch, f"{_SERVICE}/Other", "--format", "json"))
    assert response["error"] == {"code": 12, "message": f"there is no procedure {_SERVICE}/Other"}
    assert b"Check accepts only binary requests" in _call(monkeypatch, f"{_SERVICE}/Check", "--format", "json")


def test_a_request_that_is_none_is_an_error_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert b"Error parsing message" in _call(monkeypatch, f"{_SERVICE}/Check", request=b"\x0a\xff")


def test_its_rules_are_as_buf_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = _json(_call(monkeypatch, f"{_SERVICE}/ListRules", "--format", "json"))["value"]["rules"]
    known = _json(_call(monkeypatch, f"{_SERVICE}/ListCategories", "--format", "json"))["value"]["categories"]
    categories = {each["id"] for each in known}
    assert {each["id"] for each in listed} == set(RULES) - {"EXCEPTION_UNUSED"}
    for each in (*listed, *known):
        assert re.fullmatch(r"[A-Z0-9][A-Z0-9_]{1,62}[A-Z0-9]", each["id"])
        assert re.fullmatch(r"[A-Z].{1,254}[.]", each["purpose"]), each["purpose"]
    for each in listed:
        is_error = RULES[each["id"]].severity is Severity.ERROR
        assert each.get("default", False) is is_error
        assert set(each["categoryIds"]) == (categories if is_error else {"CONTEXTWORKER_STRICT"})


def test_buf_breaking_finds_what_the_gate_finds(tmp_path: Path, foreign: dict[str, str], imports: Path) -> None:
    plugin = tmp_path / "plugin"
    program = "from contextunity.worker.contracts.buf_plugin import main; main()"
    plugin.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)} "$@"\n')
    plugin.chmod(0o755)
    texts = {path.relative_to(imports).as_posix(): path.read_text() for path in imports.rglob("*.proto")}
    for side in ("old", "new"):
        for name, text in {**texts, **foreign}.items():
            if side == "new" and name.endswith("orders.proto"):
                text = text.replace('name: "charge"', 'name: "bill"').replace("max_len = 200", "max_len = 20")
                text = text.replace("heartbeat_timeout: {seconds: 10}", "")
            (tmp_path / side / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / side / name).write_text(text)
        (tmp_path / side / "buf.yaml").write_text(
            f"version: v2\nbreaking:\n  use: [FILE, CONTEXTWORKER]\nplugins:\n  - plugin: {plugin}\n"
        )
    done = subprocess.run(
        [str(BUF), "breaking", ".", "--against", "../old", "--error-format", "json"],
        cwd=tmp_path / "new",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 100, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    # What the gate only warns of is in the category CONTEXTWORKER_STRICT.
    assert [each["type"] for each in found] == ["ACTIVITY_NAME_CHANGED", "INPUT_LENGTH_NARROWED"]
    text = foreign["acme/orders/v1/orders.proto"].splitlines()
    lines = [number for number, line in enumerate(text, 1) if "heartbeat" not in line]
    assert text[lines[found[0]["start_line"] - 1] - 1].strip() == 'name: "charge"'
    assert found[0]["path"] == "acme/orders/v1/orders.proto"
