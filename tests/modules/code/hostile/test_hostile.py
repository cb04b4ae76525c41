"""Hostile programs against every backend: whatever they try, nothing gets out, and nothing stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from contextunity.modules.code.backend import Backend

from ..opened import NAMES, opened
from .harness import Traps, examine, laid
from .programs import HOSTILE, Hostile

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def traps() -> Iterator[Traps]:
    with laid() as traps:
        yield traps


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=NAMES)
async def backend(
    request: pytest.FixtureRequest, traps: Traps, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    # After the traps: what a backend starts must not have been given them on the way.
    folder: Path = tmp_path_factory.mktemp("backend")
    async with opened(request.param, folder) as backend:
        yield backend


@pytest.mark.parametrize("hostile", HOSTILE, ids=[program.name.replace(" ", "-") for program in HOSTILE])
async def test_a_hostile_program_is_contained(
    backend: Backend, hostile: Hostile, traps: Traps, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await examine(backend, hostile, traps) == []
    assert capfd.readouterr() == ("", "")
