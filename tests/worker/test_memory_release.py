"""What was freed goes back to the system, also from between what is still in use."""

from __future__ import annotations

import asyncio

import pytest

from contextunity.worker import memory_release

_MIB = 1024 * 1024
_TRIMS = memory_release.trim()


@pytest.mark.skipif(not _TRIMS or not memory_release.resident_bytes(), reason="needs glibc on Linux")
async def test_what_is_free_is_given_back_by_and_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_release, "_EVERY", 0.01)
    async with memory_release.giving_back():
        await asyncio.sleep(0)
        # Blocks small enough for the heap; every fiftieth stays, so that it cannot simply become shorter.
        blocks = [bytes([number % 256]) * 60_000 for number in range(3000)]
        grown = memory_release.resident_bytes()
        kept = blocks[::50]
        del blocks
        async with asyncio.timeout(30):
            # There is no event of it.
            while memory_release.resident_bytes() > grown - 100 * _MIB:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert len(kept) == 60
