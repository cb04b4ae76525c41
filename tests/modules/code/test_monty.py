"""The embedded backend by itself: what comes back, what cannot, and that nothing of the program's harms the worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from contextunity.gen.contextunity.code.v1 import ExecutionStatus as Status

from contextunity.modules.code.backend import (
    Outcome,
    Program,
    ProgramLimits,
    ToolCall,
    ToolReply,
)
from contextunity.modules.code.errors import SandboxUnavailable
from contextunity.modules.code.monty import MontyBackend
from contextunity.modules.code.monty.guest import keep_last_expression

_LIMITS = ProgramLimits(
    wall=1.0, cpu=1.0, memory_bytes=64 << 20, output_bytes=65536, result_bytes=262144, scratch_bytes=1 << 20
)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[MontyBackend]:
    async with MontyBackend(processes=1, folder=tmp_path / "monty") as opened:
        yield opened
    assert list((tmp_path / "monty").iterdir()) == []


async def _run(backend: MontyBackend, code: str, **fields: Any) -> Outcome:
    limits = replace(_LIMITS, **fields.pop("limits", {}))
    found = await backend.run(Program(code=code, limits=limits, **fields))
    assert isinstance(found, Outcome)
    return found


_TWICE = "a = [0]\nfor i in range({0}): a = [a, a]\n"


async def test_values_that_can_be_carried_come_back_exactly(backend: MontyBackend) -> None:
    for code, value in {
        "result = 3\n4": 3,
        "4": 4,
        "x = 1; x + 1": 2,
        "x = 5": None,
        "None": None,
        "(1, 2.5, 'é\\n\"', True, None, {'k': [-0.0]})": [1, 2.5, 'é\n"', True, None, {"k": [-0.0]}],
        "2 ** 53": 2**53,
        "lambda_ = 3\nlambda_": 3,
        "'''\nfoo\n'''": "\nfoo\n",
        "'# no comment'  # comment": "# no comment",
        "import asyncio\nasync def f(): return 7\nasyncio.run(f())": 7,
        "[\n  1,\n  2,\n]": [1, 2],
        "result = 8\nraise SystemExit": 8,
    }.items():
        found = await _run(backend, code)
        assert (code, found.status, found.result) == (code, Status.OK, value), found
        assert found.has_result is (code != "x = 5")


async def test_values_that_cannot_be_carried_are_told_with_place_and_way_out(backend: MontyBackend) -> None:
    for code, told in {
        "{'a': [{1}]}": "result['a'][0] is of type set, which JSON cannot represent; use sorted",
        "{1: 2}": "result has a key of type int; keys must be text",
        "[2 ** 53 + 1]": "result[0] is an integer beyond 2^53",
        "float('nan')": "result is nan, which JSON does not have",
        "b'x'": "decode it, or use base64",
        "class P: pass\nP()": "is of type P",
        "lambda: 1": "is of type function",
        "a = []\na.append(a)\na": "nested more than 24 deep, or part of itself",
        _TWICE.format(20) + "a": "result takes more than the limit of 262,144 bytes",
        _TWICE.format(40) + "a": "nested more than 24 deep",
        "'x' * 300_000": "result takes more than the limit of 262,144 bytes",
        "'é' * 200_000": "result takes 400,002 bytes as JSON; the limit is 262,144",
    }.items():
        found = await _run(backend, code, limits={"wall": 30.0, "cpu": 30.0})
        assert (code, found.status, found.exit_code) == (code, Status.RESULT_ERROR, 1), found
        assert told in found.error
        assert not found.has_result


async def test_what_the_subset_lacks_is_told_apart_from_what_nobody_has(backend: MontyBackend) -> None:
    for code, status, told in [
        ("class A(dict): pass", Status.UNSUPPORTED, "class inheritance"),
        ("def f():\n  yield 1", Status.UNSUPPORTED, "yield"),
        ("import statistics", Status.UNSUPPORTED, "the module statistics"),
        ("import sys\nsys.exit(1)", Status.UNSUPPORTED, "sys.exit"),
        ("input()", Status.UNSUPPORTED, "does not have input"),
        ("'x'.format_map({})", Status.UNSUPPORTED, "str.format_map"),
        ("import numpy", Status.EXCEPTION, "No module named 'numpy'"),
        ("'x'.no_such()", Status.EXCEPTION, "no attribute 'no_such'"),
        ("nobody", Status.EXCEPTION, "name 'nobody' is not defined"),
        ("raise NotImplementedError('mine')", Status.EXCEPTION, "mine"),
    ]:
        found = await _run(backend, code)
        assert (code, found.status) == (code, status), found
        assert told in found.error
        assert ("language: cpython" in found.error) is (status is Status.UNSUPPORTED)


async def test_a_traceback_shows_the_program_as_it_was_written(backend: MontyBackend) -> None:
    found = await _run(backend, "def f(x):\n  return 1 / x\nprint('before')\nf(0)")
    assert (found.stdout, found.error_type) == ("before\n", "ZeroDivisionError")
    assert 'File "<program>", line 4, in <module>\n    f(0)\n    ~~~~\n' in found.stderr
    assert "__cw" not in found.stderr


async def test_output_is_cut_at_its_bound_and_the_program_goes_on(backend: MontyBackend) -> None:
    found = await _run(
        backend, "import sys\nprint('é' * 100)\nprint('x', file=sys.stderr)\n7", limits={"output_bytes": 11}
    )
    assert (found.stdout, found.stderr, found.truncated, found.result) == ("ééééé", "", True, 7)
    exact = await _run(backend, "print('x' * 10)\n7", limits={"output_bytes": 11})
    assert (exact.stdout, exact.truncated, exact.result) == ("x" * 10 + "\n", False, 7)


async def test_an_exception_with_a_text_beyond_measure_is_told_without_it(backend: MontyBackend) -> None:
    outcome = await _run(backend, "raise ValueError('x' * 20_000_000)")
    assert (outcome.status, outcome.exit_code) == (Status.EXCEPTION, 1)
    if sys.platform == "linux":
        assert outcome.error.startswith("the program raised an exception whose text is too long to read, about 20,")
    # What was printed or written before is no part of the text.
    for before in ("print('x' * 20_000_000)", "for n in range(9): open(str(n), 'w').write('x' * 2_000_000)"):
        limits = {"scratch_bytes": 32 << 20, "wall": 20.0, "cpu": 20.0}
        outcome = await _run(backend, f"{before}\nraise ValueError('short')", limits=limits)
        assert outcome.error == "ValueError: short"


async def test_processes_have_nothing_of_the_workers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux shows the environment of a process")
    monkeypatch.setenv("PLANTED_SECRET", "planted")
    async with MontyBackend(processes=2, folder=tmp_path / "monty") as backend:
        seen = set[int]()
        while len(seen) < 4:
            running = asyncio.create_task(_run(backend, "import time\ntime.sleep(0.1)\n1"))
            # Those that replace the first ones are among them.
            await _until(lambda running=running: _children() or running.done())
            for child in _children():
                seen.add(child.pid)
                assert Path(f"/proc/{child.pid}/environ").read_bytes() == b""
            assert (await running).result == 1


async def test_limits_end_a_program_that_swallows_everything(backend: MontyBackend) -> None:
    swallow = "while True:\n  try:\n    {}\n  except BaseException:\n    pass"
    for code, status in [
        (swallow.format("while True: pass"), Status.TIMEOUT),
        (swallow.format("x = 'a' * (1 << 30)"), Status.MEMORY_LIMIT),
        ("import time\n" + swallow.format("time.sleep(10)"), Status.TIMEOUT),
    ]:
        assert (await _run(backend, code, limits={"wall": 0.4, "cpu": 0.4})).status is status
    assert (await _run(backend, "1 + 1")).result == 2


async def test_a_program_sees_no_file_variable_or_socket_of_the_workers(
    backend: MontyBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    (tmp_path / "secret").write_text("s3cret")
    for code in [
        f"open('{tmp_path}/secret').read()",
        "open('../secret').read()",
        "open('/proc/self/environ').read()",
        "import os\nos.environ['SECRET']",
        "import os\nos.getenv('SECRET', 'none')",
        "import socket\nsocket.socket()",
    ]:
        found = await _run(backend, code)
        assert found.status in (Status.EXCEPTION, Status.UNSUPPORTED), (code, found)
        assert "s3cret" not in f"{found}"


async def test_files_are_there_once_and_bounded(backend: MontyBackend) -> None:
    files = {"in/a.txt": b"hello", "b.bin": b"\xff"}
    code = """
open('out.txt', 'w').write('mine')
[open('in/a.txt').read(), len(open('b.bin', 'rb').read()), open('out.txt').read()]
"""
    assert (await _run(backend, code, files=files)).result == ["hello", 1, "mine"]
    assert (await _run(backend, "open('out.txt').read()")).error_type == "FileNotFoundError"
    full = await _run(backend, "for n in range(9): open(str(n), 'w').write('x' * 200_000)")
    assert (full.status, full.exit_code, full.error_type) == (Status.SCRATCH_LIMIT, 153, "OSError")
    many = await _run(backend, "for n in range(100_000): open(str(n), 'w').close()", limits={"wall": 9.0, "cpu": 9.0})
    assert (many.status, many.error_type) == (Status.SCRATCH_LIMIT, "MemoryError")
    caught = "try: open('f', 'w').write('x' * 2_000_000)\nexcept OSError: print('full')"
    assert (await _run(backend, caught)).status is Status.OK


async def test_a_call_by_place_of_a_value_that_would_blow_up_is_refused_inside(backend: MontyBackend) -> None:
    for call in ("ask(a)", "ask(b=a)"):
        found = await backend.run(Program(code=_TWICE.format(40) + call, limits=_LIMITS, tools=("ask",)))
        assert isinstance(found, Outcome)
        assert (found.status, found.error_type) == (Status.EXCEPTION, "ValueError")
    forged = await backend.run(Program(code=_TWICE.format(40) + "__cw_call(a)", limits=_LIMITS, tools=("ask",)))
    assert isinstance(forged, ToolCall)
    assert (forged.name, forged.positional, forged.named) == ("", [], {})


async def test_a_stopped_program_goes_on_in_another_pool(backend: MontyBackend, tmp_path: Path) -> None:
    code = """
import os
os.mkdir('empty')
open('f', 'w').write('x')
print('one')
y = ask(1, k='v')
print('two')
[y, open('f').read(), sorted(os.listdir())]
"""
    program = Program(code=code, limits=_LIMITS, tools=("ask",))
    stopped = await backend.run(program)
    assert isinstance(stopped, ToolCall)
    assert (stopped.name, stopped.positional, stopped.named) == ("ask", [1], {"k": "v"})
    assert (stopped.stdout, stopped.truncated) == ("one\n", False)
    async with MontyBackend(processes=1, folder=tmp_path / "other") as other:
        ended = await other.resume(replace(program, code=""), stopped.snapshot, ToolReply(result={"n": [1]}))
    assert isinstance(ended, Outcome)
    assert (ended.stdout, ended.result) == ("two\n", [{"n": [1]}, "x", ["empty", "f"]])
    with pytest.raises(ValueError, match="not a snapshot"):
        await backend.resume(program, b"junk", ToolReply())


async def test_files_are_bounded_over_calls_too(backend: MontyBackend) -> None:
    code = "n = 0\nwhile True:\n  open(str(n), 'w').write('x' * 300_000)\n  n = ask(n)"
    program = Program(code=code, limits=replace(_LIMITS, wall=30.0, cpu=30.0), tools=("ask",))
    found, calls = await backend.run(program), 0
    while isinstance(found, ToolCall):
        calls += 1
        found = await backend.resume(program, found.snapshot, ToolReply(result=calls))
    assert (found.status, found.error_type, calls) == (Status.SCRATCH_LIMIT, "OSError", 3)


async def test_processor_time_adds_up_over_calls(backend: MontyBackend) -> None:
    code = "def spin():\n  for i in range(1_000_000): pass\nn = 0\nwhile True:\n  spin()\n  n = ask(n)"
    program = Program(code=code, limits=replace(_LIMITS, wall=60.0, cpu=0.3), tools=("ask",))
    found, calls = await backend.run(program), 0
    while isinstance(found, ToolCall):
        assert calls < 200
        calls += 1
        found = await backend.resume(program, found.snapshot, ToolReply(result=calls))
    assert (found.status, calls > 1) == (Status.CPU_LIMIT, True)


async def test_a_cancelled_run_leaves_no_process_spinning(backend: MontyBackend) -> None:
    running = asyncio.create_task(_run(backend, "while True: pass", limits={"wall": 60.0, "cpu": 60.0}))
    await _until(_spinning)
    spinning = _spinning()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await _until(lambda: not any(child.is_running() and child.status() != "zombie" for child in spinning))
    assert (await _run(backend, "1 + 1")).result == 2


async def test_an_interpreter_that_breaks_down_is_tried_once_more_and_then_told(backend: MontyBackend) -> None:
    killed = set[int]()

    def others() -> list[psutil.Process]:
        # One that was killed has still used its processor time until it is waited for.
        return [child for child in _spinning() if child.pid not in killed]

    async def kill_next() -> None:
        await _until(others)
        for child in others():
            os.kill(child.pid, signal.SIGKILL)
            killed.add(child.pid)

    running = asyncio.create_task(_run(backend, "while True: pass", limits={"wall": 60.0, "cpu": 60.0}))
    await kill_next()
    assert not running.done()
    await kill_next()
    found = await running
    assert (found.status, found.exit_code) == (Status.CRASHED, 139)
    assert (await _run(backend, "1 + 1")).result == 2


_ENDS_AT_ONCE = """
import asyncio, sys
from pathlib import Path
from contextunity.modules.code.backend import Program, ProgramLimits
from contextunity.modules.code.errors import SandboxUnavailable
from contextunity.modules.code.monty import MontyBackend
limits = ProgramLimits(wall=9, cpu=9, memory_bytes=1 << 26, output_bytes=99, result_bytes=99, scratch_bytes=1 << 20)
async def main():
    async with MontyBackend(processes=1, folder=Path(sys.argv[1])) as backend:
        for _ in range(3): await backend.run(Program(code="1 + 1", limits=limits))
asyncio.run(main())
"""


async def test_a_process_may_end_as_soon_as_the_backend_is_closed(tmp_path: Path) -> None:
    """The library aborted about one of eight."""

    async def ended(number: int) -> int:
        folder = str(tmp_path / str(number))
        return await (await asyncio.create_subprocess_exec(sys.executable, "-c", _ENDS_AT_ONCE, folder)).wait()

    for number in range(0, 8, 2):
        assert await asyncio.gather(ended(number), ended(number + 1)) == [0, 0]


async def test_a_closed_backend_says_so() -> None:
    backend = MontyBackend(processes=1)
    async with backend:
        pass
    await backend.aclose()
    with pytest.raises(SandboxUnavailable, match="not open"):
        await backend.run(Program(code="1", limits=_LIMITS))


def _children(used: float = 0.0) -> list[psutil.Process]:
    """The interpreters' processes that have used so many seconds of the processor."""
    found = list[psutil.Process]()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # One that was killed, and is not buried yet.
            if "monty" in " ".join(child.cmdline()) and child.cpu_times().user >= used:
                found.append(child)
    return found


def _spinning() -> list[psutil.Process]:
    return _children(used=0.3)


async def _until(reached: Any) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if reached():
                    return
            except psutil.NoSuchProcess:
                continue
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        pytest.param("x", "R = x", id="name"),
        pytest.param("a = 1; b", "a = 1; R = b", id="behind a semicolon"),
        pytest.param("b;", "R = b;", id="semicolon at the end"),
        pytest.param("if a: b", None, id="head and body on a line"),
        pytest.param("if a: b; c", None, id="body of two"),
        pytest.param("if a:\n  b", None, id="block"),
        pytest.param("if a:\n  b\nc\n", "if a:\n  b\nR = c\n", id="after a block"),
        pytest.param("a = b", None, id="assignment"),
        pytest.param("a += b", None, id="augmented"),
        pytest.param("a: int", None, id="annotation"),
        pytest.param("match x:\n  case 1: y", None, id="match"),
        pytest.param("f(a=1)[1:2]", "R = f(a=1)[1:2]", id="colons and equals inside brackets"),
        pytest.param("lambda a=1: a", "R = lambda a=1: a", id="lambda"),
        pytest.param("x if y else z", "R = x if y else z", id="conditional"),
        pytest.param("not x", "R = not x", id="not"),
        pytest.param("a, b", "R = a, b", id="tuple"),
        pytest.param("f'{a:>3}={b!r}'", "R = f'{a:>3}={b!r}'", id="f-string"),
        pytest.param("'''\na = 1\n'''", "R = '''\na = 1\n'''", id="text of several lines"),
        pytest.param("a + \\\n  b", "R = a + \\\n  b", id="continued"),
        pytest.param("@d\ndef f(): pass", None, id="decorated"),
        pytest.param("import os", None, id="import"),
        pytest.param("x = (", None, id="unfinished"),
        pytest.param("", None, id="empty"),
        pytest.param("# nothing", None, id="comment"),
        pytest.param("x\r\ny\r\n", None, id="foreign line ends"),
    ],
)
def test_the_last_expression_is_found(code: str, kept: str | None) -> None:
    found = keep_last_expression(code, "R")
    if "\r" in code:
        assert found.replace("\r", "") in ("x\nR = y\n", "x\ny\n")
    else:
        assert found == (code if kept is None else kept)
