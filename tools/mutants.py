"""Changes the source in one place at a time, and runs the tests that call that place: one of them should fail.

Run as `python tools/mutants.py`, or `make mutants`. A change that no test sees is a survivor: either it changes nothing
that can be seen, or a test is missing. `[tool.mutants.NAME]` in pyproject.toml names the files to change (`source`),
the tests to run (`tests`), what else pytest is told (`options`), and tests that run for whatever these do not see
(`apart`), as those do that start other processes. `libraries` of `[tool.mutants]` are loaded once, for all mutants.

First the tests of a group run once, and what each calls is recorded. Then each mutant runs the tests that call its
function, and where these pass, all that call anything in its file. Everything happens in a copy of what git knows, in
a process forked from one that has loaded the libraries: the repository itself is never changed.

The sample is the same for the same seed; a mutant keeps its place in it while its line stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], str] = dict(
    [
        *((ast.Eq, "!="), (ast.NotEq, "=="), (ast.Lt, "<="), (ast.LtE, "<"), (ast.Gt, ">="), (ast.GtE, ">")),
        *((ast.Is, "is not"), (ast.IsNot, "is"), (ast.In, "not in"), (ast.NotIn, "in")),
    ]
)
_ARITHMETIC: dict[type[ast.operator], str] = dict(
    [
        *((ast.Add, "-"), (ast.Sub, "+"), (ast.Mult, "//"), (ast.Div, "*"), (ast.FloorDiv, "*"), (ast.Mod, "*")),
        *((ast.LShift, ">>"), (ast.RShift, "<<"), (ast.BitAnd, "|")),
    ]
)
_SERVER = "temporal_server"
"""The fixture that takes seconds to start."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: str
    line: int
    scope: str
    """The function that it lies in, as `line of its def or first decorator`; empty at the top of a file or class."""
    start: int
    end: int
    """Offsets into the file's bytes."""
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {' '.join(self.old.split())[:70]} -> {' '.join(self.new.split())[:70]}"


class _Finder(ast.NodeVisitor):
    """Collects what can be changed in a file. Annotations, decorators and strings stay as they are."""

    def __init__(self, path: str, text: bytes) -> None:
        self.found: list[Mutant] = []
        self._path, self._text = path, text
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._scope = ""

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _source(self, node: ast.expr | ast.stmt) -> str:
        start, end = self._span(node)
        return self._text[start:end].decode()

    def _add(self, node: ast.expr | ast.stmt, new: str) -> None:
        start, end = self._span(node)
        old = self._source(node)
        # Lines below keep their numbers, by which functions are known.
        new += "\n" * (old.count("\n") - new.count("\n")) if isinstance(node, ast.stmt) else ""
        self.found.append(Mutant(self._path, node.lineno, self._scope, start, end, old, new))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if any(ast.unparse(each).endswith("overload") for each in node.decorator_list):
            return
        for part in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
        outer, self._scope = self._scope, str(min(each.lineno for each in (node, *node.decorator_list)))
        for statement in node.body:
            self.visit(statement)
        self._scope = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:
            self.visit(part)

    visit_FunctionDef = visit_AsyncFunctionDef = _function  # noqa: N815

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        test = self._source(node.test)
        if test == "TYPE_CHECKING" or "__name__" in test:
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if not isinstance(node.test, ast.Constant):
            self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        # A single comparison, or a `not`, is turned round where it is found.
        if not (isinstance(test, ast.Compare) and len(test.ops) == 1) and not isinstance(test, ast.UnaryOp):
            self._add(test, f"(not ({self._source(test)}))")

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add(node, f"({self._source(node.operand)})")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [self._source(each) for each in (node.left, *node.comparators)]
        for index, operator in enumerate(node.ops):
            words = [
                f"{_COMPARISONS[type(each)] if at == index else _written(each)}" for at, each in enumerate(node.ops)
            ]
            rest = (f" {word} ({operand})" for word, operand in zip(words, operands[1:], strict=True))
            if type(operator) in _COMPARISONS:
                self._add(node, f"(({operands[0]}){''.join(rest)})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        word = " or " if isinstance(node.op, ast.And) else " and "
        self._add(node, f"({word.join(f'({self._source(each)})' for each in node.values)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        word = _ARITHMETIC.get(type(node.op))
        texts = (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict)
        of_text = any(
            isinstance(each, texts) or (isinstance(each, ast.Constant) and isinstance(each.value, str | bytes))
            for each in (node.left, node.right)
        )
        if word is not None and not of_text:
            self._add(node, f"(({self._source(node.left)}) {word} ({self._source(node.right)}))")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self._add(node, repr(node.value + 1))

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and self._source(node.value) not in ("None", "True", "False"):
            self._add(node, "return None")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        if isinstance(value, ast.Call):
            self._add(node, "pass")
        self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leaves them as they are: most are messages, and their parts have no offsets before Python 3.12."""


def _written(operator: ast.cmpop) -> str:
    return ast.unparse(ast.Compare(ast.Name("a"), [operator], [ast.Name("b")]))[2:-2]


def mutants(path: str, text: str) -> list[Mutant]:
    """All mutants of a file, in the order in which they stand in it."""
    finder = _Finder(path, text.encode())
    finder.visit(ast.parse(text))
    return sorted(finder.found, key=lambda each: (each.start, each.end, each.new))


def sample(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """A sample that is the same for a seed: at most one mutant for each line, so that it spreads."""

    ranks: dict[str, Mutant] = {}
    for each in found:
        place, alike = f"{seed}\0{each.path}\0{each.old}\0{each.new}", 0
        while (rank := hashlib.sha256(f"{place}\0{alike}".encode()).hexdigest()) in ranks:
            alike += 1
        ranks[rank] = each
    taken: dict[tuple[str, int], Mutant] = {}
    for _, each in sorted(ranks.items()):
        if len(taken) == count:
            break
        taken.setdefault((each.path, each.line), each)
    return list(taken.values())


@dataclass(frozen=True)
class Group:
    """Files that are changed, and the tests that should see it."""

    name: str
    source: list[str]
    tests: list[str]
    options: list[str]
    apart: list[str]
    """Tests that call the source in processes of their own, where it is not seen what they call."""


class _Calls:
    """A plugin of pytest that records which functions each test calls, and how long it takes."""

    def __init__(self, tree: Path, files: set[str]) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self._names = {str(tree / file): file for file in files}
        self._now: set[str] = set()
        self._known: dict[CodeType, str] = {}

    def _trace(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        name = self._known.get(code)
        if name is None:
            file = self._names.get(code.co_filename)
            name = self._known[code] = f"{file}:{code.co_firstlineno}" if file else ""
        if name:
            self._now.add(name)

    def pytest_runtest_setup(self, item: Any) -> None:
        self._waits = _SERVER in item.fixturenames

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._now, self._began, self._waits, self._failed = set(), time.monotonic(), False, False
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._failed = self._failed or bool(report.failed)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        sys.settrace(None)
        spent = round(time.monotonic() - self._began, 3)
        self.tests[nodeid] = {
            "calls": sorted(self._now),
            "seconds": spent,
            "waits": self._waits,
            "failed": self._failed,
        }


class Tree:
    """A copy of the repository in which mutants are tried."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
        for name in {
            *filter(None, names.split("\0")),
            *(str(each.relative_to(root)) for each in root.glob("src/*/*.so")),
        }:
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)
        config = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutants"]
        self.libraries: list[str] = config.pop("libraries", [])
        self.groups = [
            Group(name, each["source"], each["tests"], each.get("options", []), each.get("apart", []))
            for name, each in config.items()
        ]

    def files(self, group: Group) -> list[str]:
        """The files of a group that can be changed."""
        found = {path for pattern in group.source for path in self.folder.glob(pattern)}
        return sorted(str(path.relative_to(self.folder)) for path in found)

    def mutants(self, group: Group) -> list[Mutant]:
        """All mutants of a group."""
        texts = {name: (self.folder / name).read_text(encoding="utf-8") for name in self.files(group)}
        return [each for name, text in texts.items() for each in mutants(name, text)]

    @contextlib.contextmanager
    def changed(self, mutant: Mutant) -> Iterator[None]:
        """Holds the change in its file."""
        path = self.folder / mutant.path
        before = path.read_bytes()
        compiled = Path(importlib.util.cache_from_source(str(path)))
        # Compiled code is known by time and size, and a change may keep both.
        compiled.unlink(missing_ok=True)
        path.write_bytes(before[: mutant.start] + mutant.new.encode() + before[mutant.end :])
        try:
            yield
        finally:
            path.write_bytes(before)
            compiled.unlink(missing_ok=True)

    def run(self, work: Callable[[], int], timeout: float, output: Path) -> int | None:
        """What some work exits with in a process of its own; None where it takes longer. All its children are ended."""
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.chdir(self.folder)
                with output.open("wb") as file:
                    for stream in (1, 2):
                        os.dup2(file.fileno(), stream)
                code = work()
            except BaseException as error:  # noqa: BLE001 - it must not get back into the parent's code
                print(error, flush=True)
            finally:
                sys.stdout.flush()
                os._exit(code)
        deadline = time.monotonic() + timeout
        try:
            while time.monotonic() < deadline:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.02)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None


def _pytest(*arguments: str, plugin: object | None = None) -> int:
    import pytest

    # What is loaded once for all runs is loaded before pytest could rewrite its assertions.
    fixed = ["-q", "-p", "no:cacheprovider", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*fixed, *arguments], plugins=[plugin] if plugin else []))


def record(tree: Tree, group: Group, state: Path, timeout: float) -> dict[str, dict[str, Any]]:
    """What each test of a group calls; recorded once for each state of the tests and the source."""
    digest = hashlib.sha256(json.dumps(asdict(group)).encode())
    for path in sorted({*(tree.folder / name for name in tree.files(group)), *tree.folder.glob("tests/**/*.py")}):
        digest.update(path.read_bytes())
    kept = state / f"{group.name}-{digest.hexdigest()[:12]}.json"

    def work() -> int:
        calls = _Calls(tree.folder, set(tree.files(group)))
        code = _pytest(*group.options, *group.tests, plugin=calls)
        if code in (0, 1):
            kept.write_text(json.dumps(calls.tests), encoding="utf-8")
        return code

    output = state / f"{group.name}.txt"
    if not kept.is_file() and tree.run(work, timeout, output) not in (0, 1):
        raise SystemExit(f"the tests of {group.name} cannot be run, or take too long; see {output}")
    tests: dict[str, dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    for name, test in tests.items():
        # One that fails as it is would count every mutant as killed.
        if test["failed"]:
            print(f"left out, since it fails without any change: {name}", flush=True)
    return {name: test for name, test in tests.items() if not test["failed"]}


def attempt(
    tree: Tree, group: Group, mutant: Mutant, tests: dict[str, dict[str, Any]], budget: float, output: Path
) -> str:
    """What becomes of a mutant: `killed`, also by a timeout or an import that fails, `survived` or `not called`."""
    scope = f"{mutant.path}:{mutant.scope}"
    near = [name for name, each in tests.items() if scope in each["calls"]]
    wide = [name for name, each in tests.items() if any(call.startswith(f"{mutant.path}:") for call in each["calls"])]
    with tree.changed(mutant):
        for chosen in (near, [name for name in wide if name not in set(near)], group.apart):
            if not chosen:
                continue
            names = chosen if chosen is group.apart else _affordable(chosen, tests, budget)
            # A server may have to be started, and the machine may have more to do than it had at first.
            timeout = 60 + 4 * budget
            code = tree.run(functools.partial(_pytest, "-x", *group.options, *names), timeout, output)
            if code != 0:
                return "killed" if code == 1 else "killed (timeout)" if code is None else f"killed (exit {code})"
    return "survived" if near or wide else "not called"


def _affordable(names: list[str], tests: dict[str, dict[str, Any]], budget: float) -> list[str]:
    """The tests that take no longer together: those that need no server first, then the fastest."""
    affordable: list[str] = []
    for name in sorted(names, key=lambda name: (tests[name]["waits"], tests[name]["seconds"])):
        budget -= tests[name]["seconds"]
        if affordable and budget < 0:
            break
        affordable.append(name)
    return affordable


def main(arguments: list[str]) -> int:
    """Runs the groups that are named, or all, and prints survivors and a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("groups", nargs="*", help="names of groups; all without any")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--count", type=int, default=40, help="mutants of each group")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budget", type=float, default=30, help="tests that took so many seconds run for a mutant")
    parser.add_argument("--only", default="", help="only mutants with this in `path:line: old -> new`")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    options = parser.parse_args(arguments)
    # Stopped by a signal, it still ends the tests that it has started, and removes its copy.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    state = options.root / ".build/mutants"
    state.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Tree(options.root, Path(folder).resolve())
        # For processes that tests start, and, before anything of the source is loaded, for this one.
        places = [str(tree.folder / each) for each in ("src", "gen", ".")]
        os.environ["PYTHONPATH"] = os.pathsep.join(places)
        sys.path[:0] = places
        for name in () if options.list else tree.libraries:
            importlib.import_module(name)
        chosen = [group for group in tree.groups if group.name in options.groups or not options.groups]
        rows = []
        for group in chosen:
            found = tree.mutants(group)
            picked = [each for each in sample(found, options.count, options.seed) if options.only in str(each)]
            if options.list:
                print("\n".join(f"{group.name}: {each}" for each in picked))
                continue
            tests = record(tree, group, state, timeout=900)
            outcomes = []
            for number, mutant in enumerate(picked):
                output = state / f"{group.name}-{number:03}.txt"
                outcomes.append(attempt(tree, group, mutant, tests, options.budget, output))
                print(f"{group.name} {number + 1}/{len(picked)} {outcomes[-1]}: {mutant}", flush=True)
            killed = sum(each.startswith("killed") for each in outcomes)
            rows.append((group.name, len(found), len(picked), killed, len(picked) - killed))
    if rows:
        print("\n| group | possible | tried | killed | survived |\n|---|---|---|---|---|")
        print("\n".join(f"| {' | '.join(map(str, row))} |" for row in rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
