"""One import serves runs in several threads at once; what one of them does about the sandbox, no other notices."""

from __future__ import annotations

import builtins
import os
import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from temporalio import workflow
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError, SandboxRestrictions
from temporalio.worker.workflow_sandbox._importer import Importer
from temporalio.worker.workflow_sandbox._restrictions import RestrictionContext

from shared_import_sandbox._sdk import Entered, StandingSandbox

_ORIGINAL = {name: getattr(builtins, name) for name in ("__import__", "isinstance", "issubclass", "open")}


@pytest.fixture
def sandbox() -> StandingSandbox:
    made = StandingSandbox(SandboxRestrictions.default, __name__)
    made.seal()
    return made


def _assert_refused() -> None:
    with pytest.raises(RestrictedWorkflowAccessError):
        __import__("random").random()
    with pytest.raises(RestrictedWorkflowAccessError):
        builtins.open(os.devnull)  # noqa: SIM115
    assert workflow.unsafe.in_sandbox()


def _assert_untouched() -> None:
    assert __import__("random") is random
    builtins.open(os.devnull).close()
    assert not workflow.unsafe.in_sandbox()


def _stock() -> Any:
    context = RestrictionContext()
    context.is_runtime = True
    return Importer(SandboxRestrictions.default, context).applied()


@pytest.mark.parametrize("other", ["ours", "stock"])
def test_a_run_that_ends_unprotects_no_other(sandbox: StandingSandbox, other: str) -> None:
    with ThreadPoolExecutor(1) as elsewhere:

        def run_there(check: Callable[[], None]) -> None:
            elsewhere.submit(check).result()

        def whole_run() -> None:
            if other == "stock":
                with _stock(), pytest.raises(RestrictedWorkflowAccessError):
                    __import__("random").random()
            else:
                with Entered(sandbox, in_activation=True):
                    _assert_refused()

        for _ in range(3):
            with Entered(sandbox, in_activation=True):
                _assert_refused()
                run_there(_assert_untouched)
                run_there(whole_run)
                _assert_refused()
                assert sandbox.context.in_activation
            _assert_untouched()
    assert {name: getattr(builtins, name) for name in _ORIGINAL} == _ORIGINAL
    assert type(sys.modules) is dict


def test_the_stock_sandbox_may_end_last(sandbox: StandingSandbox) -> None:
    entered, left = threading.Event(), threading.Event()

    def stock_run() -> None:
        with _stock():
            entered.set()
            left.wait(30)
            with pytest.raises(RestrictedWorkflowAccessError):
                __import__("random").random()

    with ThreadPoolExecutor(1) as elsewhere:
        with Entered(sandbox, in_activation=True):
            running = elsewhere.submit(stock_run)
            assert entered.wait(30)
        _assert_untouched()
        left.set()
        running.result()
    assert {name: getattr(builtins, name) for name in _ORIGINAL} == _ORIGINAL


def test_an_error_leaves_the_sandbox(sandbox: StandingSandbox) -> None:
    with pytest.raises(ZeroDivisionError), Entered(sandbox, in_activation=True):
        _ = 1 / 0
    _assert_untouched()
    assert Importer.current_importer() is None


def test_imports_while_a_run_goes_on_are_restricted_in_all_threads(sandbox: StandingSandbox) -> None:
    together = threading.Barrier(8)

    def run(_: int) -> bool:
        with Entered(sandbox, in_activation=True):
            together.wait(30)
            # None of them imported any of these before.
            return all(_refuses(name, member) for name, member in _MEMBERS)

    with ThreadPoolExecutor(8) as elsewhere:
        assert all(elsewhere.map(run, range(8)))


_MEMBERS = [("time", "time"), ("uuid", "uuid4"), ("random", "random"), ("secrets", "token_hex"), ("os", "getpid")]


def _refuses(name: str, member: str) -> bool:
    try:
        getattr(__import__(name, fromlist=(member,)), member)()
    except RestrictedWorkflowAccessError:
        return True
    return False
