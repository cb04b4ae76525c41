"""Programs as an agent writes them, with their exact results, over every backend.

`monty_lacks.txt` lists those that the embedded interpreter does not have what it takes for; the answer then says so.
`monty_differs.txt` lists those that it runs to another result, without a word.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from contextunity.gen.contextunity.code.v1 import ExecutionStatus

from contextunity.modules.code.backend import Backend, Outcome, Program, ProgramLimits

from ..opened import NAMES, opened

_FOLDER = Path(__file__).parent
_LIMITS = ProgramLimits(
    wall=30.0, cpu=30.0, memory_bytes=128 << 20, output_bytes=64 << 10, result_bytes=64 << 10, scratch_bytes=4 << 20
)


def _programs(file: str) -> dict[str, tuple[str, object]]:
    programs: dict[str, tuple[str, object]] = {}
    for section in (_FOLDER / file).read_text(encoding="utf-8").split("=== ")[1:]:
        name, _, rest = section.partition("\n")
        code, _, result = rest.rpartition("--- ")
        assert name not in programs
        programs[name] = (code, json.loads(result))
    return programs


PROGRAMS = _programs("programs.txt")
MONTY_DIFFERS = {name: result for name, (_, result) in _programs("monty_differs.txt").items()}
MONTY_LACKS = (_FOLDER / "monty_lacks.txt").read_text(encoding="utf-8").splitlines()

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=NAMES)
async def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backend]:
    async with opened(request.param, tmp_path_factory.mktemp("backend")) as backend:
        yield backend


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_gives_its_result(backend: Backend, name: str) -> None:
    code, expected = PROGRAMS[name]
    outcome = await backend.run(Program(code=code, limits=_LIMITS))
    assert isinstance(outcome, Outcome)
    if backend.name == "monty" and name in MONTY_LACKS:
        assert (outcome.status, outcome.has_result) == (ExecutionStatus.UNSUPPORTED, False)
        assert "cpython" in outcome.error
        return
    if backend.name == "monty":
        expected = MONTY_DIFFERS.get(name, expected)
    assert outcome.status is ExecutionStatus.OK, outcome.stderr or outcome.error
    assert (outcome.has_result, outcome.exit_code, outcome.error, outcome.truncated) == (True, 0, "", False)
    assert outcome.result == expected
    assert json.dumps(outcome.result) == json.dumps(expected)


async def test_what_monty_lacks_is_among_the_programs() -> None:
    assert len(PROGRAMS) >= 60
    assert set(MONTY_LACKS) | set(MONTY_DIFFERS) <= PROGRAMS.keys()
    assert sorted(set(MONTY_LACKS)) == MONTY_LACKS
