"""The loop that the processes run on."""

from __future__ import annotations

import asyncio
import sys

import pytest

from contextunity.worker import event_loop


async def _loop() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_it_is_uvloops() -> None:
    uvloop = pytest.importorskip("uvloop", reason="uvloop is for CPython on anything but Windows")
    assert event_loop.run(_loop()) is uvloop.Loop


def test_it_is_asyncios_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop.run(_loop()) is asyncio.SelectorEventLoop
