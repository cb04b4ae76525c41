"""No run sees what another one left behind, whichever way their module is imported."""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError, SandboxMatcher, SandboxRestrictions

from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from shared_import_sandbox import sandboxed_runner
from shared_import_sandbox._runner import WorkflowStateError
from shared_import_sandbox._sdk import Entered
from shared_import_sandbox._snapshot import Snapshot
from tests.shared_import_sandbox.conftest import prepared, running, sharing_runner
from tests.shared_import_sandbox.sandboxed import stateful_steps

_LOGGER = "shared_import_sandbox"


@pytest.fixture
def stateful(steps: Callable[[str], Any]) -> Any:
    return steps("stateful_steps")


async def _failures(handle: WorkflowHandle[Any, Any]) -> list[str]:
    return [
        event.workflow_task_failed_event_attributes.failure.message
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]


@pytest.mark.parametrize("change", stateful_steps.CHANGES)
async def test_a_change_ends_the_sharing_and_goes_no_further(
    client: Client, stateful: Any, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, _LOGGER)
    async with running(client, [stateful.Stateful], sharing_runner()) as queue:
        first = await client.start_workflow("Stateful", change, id=f"state-{uuid.uuid4()}", task_queue=queue)
        assert await first.result() == 1
        second = await client.start_workflow("Stateful", change, id=f"state-{uuid.uuid4()}", task_queue=queue)
        assert await second.result() == 1
    (failure,) = await _failures(first)
    assert failure.startswith("workflow code changed ")
    assert "keep state on self" in failure
    assert await _failures(second) == []
    told = [(record.levelname, record.message) for record in caplog.records if record.name == _LOGGER]
    assert [level for level, _ in told] == ["INFO", "WARNING"], told
    assert told[0][1] == "workflow module stateful_steps: imported once, for all runs"
    assert failure in told[1][1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("class_attribute", "stateful_steps.Changes.seen"),
        ("workflow_class_attribute", "stateful_steps.Stateful.runs"),
        ("enum_member", "stateful_steps.Color.RED.label"),
        ("function_attribute", "stateful_steps.helper.calls"),
        ("function_defaults", "stateful_steps.helper.__defaults__"),
        ("closure", "a closure variable of stateful_steps.counter"),
        ("function_defaults_in_place", "stateful_steps.helper.__kwdefaults__.named"),
        ("attributes_of_a_constant", "stateful_steps.SETTINGS"),
        ("class_of_a_constant", "stateful_steps.SETTINGS"),
        ("member_of_an_enum", "stateful_steps.Color._member_names_"),
        ("value_of_an_enum", "stateful_steps.Color._value2member_map_.2"),
        ("module_in_a_name", "stateful_steps.backend"),
        ("field_of_a_constant", "stateful_steps.POLICY.maximum_attempts"),
        ("module_attribute", "stateful_steps.LEFT"),
        ("main_module", "__main__.LEFT"),
        ("made_module", "sys.modules.made_up"),
    ],
)
async def test_the_error_names_what_was_changed(stateful: Any, change: str, named: str) -> None:
    shared = prepared(sharing_runner(), stateful.Stateful)
    error = _changed(shared, change)
    assert isinstance(error, WorkflowStateError)
    assert error.changed == (named,)


@pytest.mark.parametrize("change", stateful_steps.CHANGES)
async def test_a_change_is_undone(stateful: Any, change: str) -> None:
    shared = prepared(sharing_runner(), stateful.Stateful)
    for _ in range(2):
        assert _changed(shared, change) is not None
        assert shared.undo(shared.undone) is None


def _changed(shared: Any, change: str) -> Exception | None:
    """Makes a change as a run does, which has to be the first, and looks what is found of it."""
    changes = shared.sandbox.imported("stateful_steps", "Changes")
    since = shared.undone
    with Entered(shared.sandbox, in_activation=True):
        assert getattr(changes, change)() == 1
    found: Exception | None = shared.undo(since)
    return found


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            """
            import enum
            class Right(enum.Flag):
                READ = 1
                WRITE = 2
            class Bits(enum.IntFlag):
                ONE = 1
                TWO = 2
            def go():
                return ~Right.READ, Right.READ | Right.WRITE, ~Bits.ONE, Bits(3)
            """,
            id="flags",
        ),
        pytest.param(
            """
            import copy, dataclasses
            @dataclasses.dataclass
            class A:
                names: list = dataclasses.field(default_factory=list)
            class B:
                __slots__ = ("one",)
            CONSTANT = A(["x"])
            def go():
                return copy.copy(A()), copy.deepcopy(B()), copy.deepcopy(CONSTANT), dataclasses.asdict(CONSTANT)
            """,
            id="copies",
        ),
        pytest.param(
            """
            import abc
            from typing import Generic, Protocol, TypeVar, get_type_hints, runtime_checkable
            T = TypeVar("T")
            @runtime_checkable
            class P(Protocol[T]):
                def f(self) -> T: ...
            class A(P[int]):
                def f(self): return 1
            class B(abc.ABC): ...
            class G(Generic[T]):
                one: T
            def go():
                return A(), G[int](), isinstance(A(), P), isinstance(A(), B), get_type_hints(G)
            """,
            id="types",
        ),
    ],
)
async def test_what_the_interpreter_remembers_is_no_change(written: Callable[[str], Any], text: str) -> None:
    module = written(text)
    shared = prepared(sharing_runner(), module.Flow)
    assert shared.usable
    go = shared.sandbox.imported(module.__name__, "go")
    with Entered(shared.sandbox, in_activation=True):
        go()
    assert shared.undo(0) is None
    assert shared.usable


@pytest.mark.parametrize(
    "late", ["'parts', None, None, ('later',), 0).later", "'parts.later', None, None, ('now',), 0)"]
)
@pytest.mark.filterwarnings("ignore:Module parts.later was imported after initial workflow load")
async def test_a_module_that_was_taken_out_can_be_imported_again(
    written: Callable[[str], Any], tmp_path: Path, late: str
) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("")
    (tmp_path / "parts/later.py").write_text("def now(): return 1")
    module = written(f"import parts\ndef go():\n  return __import__({late}.now()")
    members = SandboxMatcher(children={"parts": SandboxMatcher(children={"later": SandboxMatcher(use={"now"})})})
    restrictions = dataclasses.replace(SandboxRestrictions.default, invalid_module_members=members)
    shared = prepared(sandboxed_runner(restrictions), module.Flow)
    assert shared.usable
    go = shared.sandbox.imported(module.__name__, "go")
    for _ in range(2):
        with Entered(shared.sandbox, in_activation=True), pytest.raises(RestrictedWorkflowAccessError):
            go()
        error = str(shared.undo(shared.undone))
        assert "sys.modules.parts.later" in error
        assert "import what a run needs at the top of a module, or pass it through" in error


def test_a_change_that_is_made_while_others_are_undone_is_found_next() -> None:
    names = {"kept": 1}
    snapshot = Snapshot()

    def ours(name: str, was: object, now: object) -> bool:
        names["kept"] = 2  # Of another thread.
        return False

    snapshot.dictionary("module", names, ours)
    names["allowed"] = 1
    assert snapshot.restore() == []
    assert not snapshot.unchanged()


async def test_a_run_beside_a_change_is_repeated(stateful: Any) -> None:
    shared = prepared(sharing_runner(), stateful.Stateful)
    since = shared.undone  # Of both, so they overlap.
    assert _changed(shared, "class_attribute") is not None
    error = shared.undo(since)
    assert error is not None
    assert "another run changed shared state of module 'stateful_steps'" in str(error)
    assert shared.undo(shared.undone) is None


async def test_interleaved_runs_see_nothing_of_each_other(client: Client, stateful: Any) -> None:
    async with running(client, [stateful.Stateful], sharing_runner()) as queue:
        first, second, third = [
            await client.start_workflow("Stateful", args=["", True], id=f"state-{uuid.uuid4()}", task_queue=queue)
            for _ in range(3)
        ]
        assert [await each.query("attribute") for each in (first, second, third)] == [0, 0, 0]
        await first.signal("go", "class_attribute")
        assert await first.result() == 1
        # Both were there before the change, on the import that it was made to.
        assert await second.query("attribute") == 0
        await second.signal("go", "class_attribute")
        assert await second.result() == 1
        await third.signal("stop")
        assert await third.result() == 0
    assert [len(await _failures(each)) for each in (first, second, third)] == [1, 1, 0]


async def test_a_change_while_a_run_is_evicted_does_not_hold_up_the_worker(
    client: Client, steps: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    leaving = steps("stateful_steps").Leaving
    # A run is thrown out after each of its tasks, and what it changes then is all there is to be found.
    async with running(client, [leaving], sharing_runner(), max_cached_workflows=0) as queue:
        handle = await client.start_workflow("Leaving", id=f"state-{uuid.uuid4()}", task_queue=queue)
        assert await handle.query("waits") is True
        await handle.signal("stop")
        await handle.result()
    (warning,) = [record.message for record in caplog.records if record.name == _LOGGER]
    assert "stateful_steps.Leaving.left" in warning
    # An eviction that fails is logged by the SDK, and tried again after two seconds.
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert await _failures(handle) == []


@pytest.mark.parametrize("cached", [0, 100])
async def test_evicted_runs_are_replayed_to_the_same_result(client: Client, stateful: Any, cached: int) -> None:
    async with running(client, [stateful.Steady], sharing_runner(), max_cached_workflows=cached) as queue:
        handles = [
            await client.start_workflow("Steady", number, id=f"steady-{uuid.uuid4()}", task_queue=queue)
            for number in range(4)
        ]
        assert [await handle.result() for handle in handles] == [[number] * 5 for number in range(4)]
    assert [await _failures(handle) for handle in handles] == [[]] * 4
    histories = [await handle.fetch_history() for handle in handles]
    replayer = Replayer(workflows=[stateful.Steady], plugins=[ContextWorkerPlugin()])
    for history in histories:
        await replayer.replay_workflow(history)
    other = Replayer(workflows=[stateful.Unsteady], plugins=[ContextWorkerPlugin()])
    with pytest.raises(workflow.NondeterminismError):
        await other.replay_workflow(histories[1])


async def test_modules_with_state_are_imported_for_each_run(
    client: Client, written: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, _LOGGER)
    module = written(
        """
        from temporalio import workflow

        SEEN = []

        @workflow.defn(name="Collecting")
        class Collecting:
            def __init__(self) -> None:
                self._over = False

            @workflow.run
            async def run(self, name: str) -> list[str]:
                SEEN.append(name)
                await workflow.wait_condition(lambda: self._over)
                SEEN.append(name)
                return SEEN

            @workflow.signal
            def stop(self) -> None:
                self._over = True

            @workflow.query
            def seen(self) -> list[str]:
                return SEEN
        """
    )
    async with running(client, [module.Collecting]) as queue:
        first, second = [
            await client.start_workflow("Collecting", name, id=f"state-{uuid.uuid4()}", task_queue=queue)
            for name in "ab"
        ]
        assert [await each.query("seen") for each in (first, second)] == [["a"], ["b"]]
        await first.signal("stop")
        await second.signal("stop")
        assert [await each.result() for each in (first, second)] == [["a", "a"], ["b", "b"]]
    assert module.SEEN == []
    assert f"workflow module {module.__name__}: imported again for each run, because" in caplog.text
    assert f"{module.__name__}.SEEN is a list, which a run could change" in caplog.text
