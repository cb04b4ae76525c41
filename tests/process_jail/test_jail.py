"""A jail at work: results, files, output, limits, programs at once, cancelled ones, and zygotes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from process_jail import Jail, JailFailedError, JailUnavailableError, Limits, Program, Status

LIMITS = Limits(
    wall=20.0, cpu=20.0, memory_bytes=128 << 20, output_bytes=1000, result_bytes=1000, scratch_bytes=1 << 20
)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jail(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Jail]:
    try:
        opened = await Jail(folder=tmp_path_factory.mktemp("jail")).__aenter__()
    except JailUnavailableError as error:
        pytest.skip(str(error))
    yield opened
    await opened.aclose()


def _program(code: str, **limits: float) -> Program:
    return Program(code=code, limits=replace(LIMITS, **limits))  # type: ignore[arg-type]


def _zygote() -> psutil.Process:
    return next(child for child in psutil.Process().children() if "process_jail" in " ".join(child.cmdline()))


async def _started(zygote: psutil.Process) -> psutil.Process:
    """The one child of a zygote, once it is there."""
    while not (children := zygote.children()):  # noqa: ASYNC110 - no event tells of another process's child
        await asyncio.sleep(0.01)
    return children[0]


async def test_the_result_is_the_variable_else_the_last_expression(jail: Jail) -> None:
    codes = ("result = [1]\n2", "x = 2\nx * 21", "x = 1", "print('a')", "None", "result = None", "", "# nothing")
    outcomes = [await jail.run(_program(code)) for code in codes]
    assert [(outcome.has_result, outcome.result) for outcome in outcomes] == [
        *((True, [1]), (True, 42), (False, None), (True, None), (True, None), (True, None), (False, None)),
        (False, None),
    ]


async def test_inputs_are_variables_and_files_are_there(jail: Jail) -> None:
    program = Program(
        code="import pathlib\n[n + 1 for n in numbers] + [pathlib.Path(name).read_text(), open('b').read()]",
        limits=LIMITS,
        inputs={"numbers": [1, 2.5], "name": "data/deep/ä.txt"},
        files={"data/deep/ä.txt": "Größe".encode(), "b": b"x" * 100},
    )
    assert (await jail.run(program)).result == [2, 3.5, "Größe", "x" * 100]


@pytest.mark.parametrize("path", ["../x", "/tmp/x", "a/../../x", "", "a//b", ".", "a\0b"])
async def test_a_file_outside_the_folder_is_refused_by_name(jail: Jail, path: str) -> None:
    outcome = await jail.run(Program(code="1", limits=LIMITS, files={path: b"x"}))
    assert (outcome.status, outcome.error_type) == (Status.EXCEPTION, "ValueError")
    assert repr(path) in outcome.error


async def test_an_exception_is_told_with_its_place(jail: Jail) -> None:
    outcome = await jail.run(_program("print('before')\ndef f():\n    return {}['key']\nf()"))
    assert outcome == replace(outcome, status=Status.EXCEPTION, exit_code=1, stdout="before\n", error_type="KeyError")
    assert outcome.error == "KeyError: 'key'"
    assert "File \"<program>\", line 3, in f\n    return {}['key']" in outcome.stderr
    assert "process_jail" not in outcome.stderr


async def test_a_program_that_is_none_is_told_with_its_place(jail: Jail) -> None:
    outcome = await jail.run(_program("x = 1\nif x\n    pass"))
    assert (outcome.status, outcome.exit_code) == (Status.SYNTAX_ERROR, 1)
    assert outcome.error == "SyntaxError: expected ':' (<program>, line 2)"
    assert outcome.stderr.splitlines()[0] == '  File "<program>", line 2'


async def test_output_is_cut_at_its_bound_and_the_program_goes_on(jail: Jail) -> None:
    outcome = await jail.run(_program("import sys\nprint('ä' * 5000)\nsys.stderr.write('late')\n'done'"))
    assert (outcome.result, outcome.truncated) == ("done", True)
    assert len((outcome.stdout + outcome.stderr).encode()) <= LIMITS.output_bytes
    assert set(outcome.stdout) == {"ä"}


async def test_what_was_printed_before_a_limit_struck_is_there(jail: Jail) -> None:
    outcome = await jail.run(_program("print('first')\nwhile True: pass", wall=0.2))
    assert (outcome.status, outcome.stdout, outcome.exit_code) == (Status.TIMEOUT, "first\n", 124)
    assert outcome.error == "the program took longer than 0.2 s"


async def test_the_least_limits_are_limits(jail: Jail) -> None:
    endless = await jail.run(_program("while True: pass", wall=0.001))
    small = await jail.run(_program("1 + 1", memory_bytes=1))
    large = await jail.run(_program("x = bytearray(1 << 24)", memory_bytes=1 << 20))
    assert [outcome.status.name for outcome in (endless, small, large)] == ["TIMEOUT", "OK", "MEMORY_LIMIT"]
    assert large.exit_code == 137
    assert (large.error_type, large.error) == ("MemoryError", "the program ran out of memory")
    assert "process_jail" not in large.stderr


async def test_processor_time_is_a_limit_of_its_own(jail: Jail) -> None:
    outcome = await jail.run(_program("while True: pass", cpu=0.2))
    assert (outcome.status, outcome.exit_code) == (Status.CPU_LIMIT, 152)
    assert outcome.error == "the program used more than 0.2 s of a processor"


async def test_files_are_bounded_together(jail: Jail) -> None:
    outcome = await jail.run(
        _program("import time\nfor n in range(20):\n    open(str(n), 'wb').write(bytes(1 << 17))\ntime.sleep(60)")
    )
    assert (outcome.status, outcome.exit_code) == (Status.SCRATCH_LIMIT, 153)
    assert outcome.error == "the files of the program occupied more than 1,048,576 bytes, or were nested too deeply"
    one = await jail.run(_program("open('f', 'wb').write(bytes(1 << 21))"))
    assert (one.status, one.exit_code, one.error_type) == (Status.SCRATCH_LIMIT, 153, "OSError")
    assert one.error == "OSError: [Errno 27] File too large"
    assert "open('f', 'wb')" in one.stderr


async def test_programs_run_at_once_and_see_nothing_of_each_other(jail: Jail, tmp_path: Path) -> None:
    code = "import os, time\nopen('f', 'x').write(str(n))\ntime.sleep(0.3)\n[open('f').read(), os.listdir()]"
    programs = [Program(code=code, limits=LIMITS, inputs={"n": number}) for number in range(6)]
    outcomes = await asyncio.gather(*(jail.run(program) for program in programs))
    assert [outcome.result for outcome in outcomes] == [[str(number), ["f"]] for number in range(6)]


async def test_a_cancelled_program_is_ended(jail: Jail) -> None:
    children = psutil.Process().children(recursive=True)
    running = asyncio.create_task(jail.run(_program("import time\ntime.sleep(60)")))
    await _started(_zygote())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert psutil.Process().children(recursive=True) == children
    assert (await jail.run(_program("1 + 1"))).result == 2


async def test_a_killed_zygote_fails_its_programs_and_is_replaced(jail: Jail) -> None:
    running = asyncio.create_task(jail.run(_program("import time\ntime.sleep(60)")))
    zygote = _zygote()
    child = await _started(zygote)
    zygote.kill()
    with pytest.raises(JailFailedError, match="zygote"):
        await running
    child.wait(10)
    assert (await jail.run(_program("1 + 1"))).result == 2


async def test_more_is_asked_than_a_zygote_takes_at_once(jail: Jail) -> None:
    zygote = _zygote()
    zygote.suspend()
    asked = [asyncio.create_task(jail.run(_program(f"{number} + 1"))) for number in range(150)]
    _, waiting = await asyncio.wait(asked, timeout=0.5)
    zygote.resume()
    outcomes = await asyncio.gather(*asked)
    assert len(waiting) == len(asked)
    assert [outcome.result for outcome in outcomes] == [number + 1 for number in range(150)]


async def test_scratch_folders_go_with_their_programs(jail: Jail) -> None:
    outcome = await jail.run(_program("import os\nos.makedirs('a/b')\nopen('a/b/c', 'w')\nos.getcwd()"))
    assert isinstance(outcome.result, str)
    assert os.listdir(Path(outcome.result).parent) == []


async def test_a_closed_jail_runs_nothing(tmp_path: Path) -> None:
    jail = Jail(folder=tmp_path)
    await jail.aclose()
    await jail.aclose()
    with pytest.raises(JailFailedError, match="closed"):
        await jail.run(_program("1"))


async def test_a_jail_starts_nothing_before_it_is_asked(tmp_path: Path) -> None:
    before = psutil.Process().children()
    with contextlib.closing(asyncio.new_event_loop()):
        Jail(folder=tmp_path)
    assert (psutil.Process().children(), list(tmp_path.iterdir())) == (before, [])
