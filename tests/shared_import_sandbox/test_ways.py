"""All ways to run workflows: programs of one file, debuggers, no sandbox, and an SDK that is not known."""

from __future__ import annotations

import importlib.metadata
import logging
import sys
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Interceptor, WorkflowInboundInterceptor, WorkflowInterceptorClassInput, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

import shared_import_sandbox
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from tests.conftest import Spawn
from tests.shared_import_sandbox.conftest import result_of, running, sharing_runner

_LOGGER = "shared_import_sandbox"

_PROGRAM = """
import asyncio, logging, sys, uuid
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker
from contextunity.worker.plugin import ContextWorkerPlugin

@workflow.defn
class Alone:
    runs = 0

    @workflow.run
    async def run(self) -> str:
        return f"{__name__} {workflow.unsafe.in_sandbox()}"

async def main():
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    client = await Client.connect(sys.argv[1], plugins=[ContextWorkerPlugin()])
    queue = str(uuid.uuid4())
    async with Worker(client, task_queue=queue, workflows=[Alone]):
        print("gave", await client.execute_workflow(Alone.run, id=queue, task_queue=queue))

if __name__ == "__main__":
    asyncio.run(main())
"""


def _told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith(_LOGGER)]


def test_a_program_of_one_file(temporal_server: EmbeddedServer, spawn: Spawn, tmp_path: Any) -> None:
    (tmp_path / "alone.py").write_text(_PROGRAM)
    process = spawn("alone.py", temporal_server.address)
    assert "workflow module __temporal_main__: imported once" in process.wait_for("workflow module")
    assert "gave __temporal_main__ True" in process.wait_for("gave")
    assert process.wait() == 0


async def test_debug_mode(client: Client, steps: Callable[[str], Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, _LOGGER)
    hostile = steps("hostile_steps")
    async with running(client, [hostile.Hostile], debug_mode=True) as queue:
        assert (await result_of(client, queue, "Hostile", "random_random")).startswith("refused: ")
        assert (await result_of(client, queue, "Hostile", "is_a_datetime")) == "allowed: True"
    assert _told(caplog) == ["workflow module hostile_steps: imported once, for all runs"]


async def test_workflows_without_a_sandbox(
    client: Client, written: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, _LOGGER)
    module = written(
        """
        import time
        from temporalio import workflow

        @workflow.defn(name="Free", sandboxed=False)
        class Free:
            @workflow.run
            async def run(self) -> bool:
                return time.time() > 0 and not workflow.unsafe.in_sandbox()
        """
    )
    async with running(client, [module.Free]) as queue:
        assert await result_of(client, queue, "Free") is True
    assert _told(caplog) == []


async def test_exceptions_that_fail_workflows_are_the_same_inside(
    client: Client, written: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, _LOGGER)
    module = written(
        """
        from temporalio import workflow

        class Bad(Exception): ...

        @workflow.defn(name="Failing")
        class Failing:
            @workflow.run
            async def run(self) -> None:
                raise Bad("no")
        """
    )
    other = written("class Other(Exception): ...")
    options = {"workflow_failure_exception_types": [module.Bad, other.Other]}
    async with running(client, [module.Failing], **options) as queue:
        with pytest.raises(WorkflowFailureError) as failed:
            await result_of(client, queue, "Failing")
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == "Bad"
    assert _told(caplog) == [f"workflow module {module.__name__}: imported once, for all runs"]


async def test_an_interceptor_that_imports_ends_the_sharing_before_the_run_begins(
    client: Client, written: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    module, imported = written("A = 1"), written("B = 2")

    class Importing(Interceptor):
        def workflow_interceptor_class(
            self, input: WorkflowInterceptorClassInput
        ) -> type[WorkflowInboundInterceptor] | None:
            class Inbound(WorkflowInboundInterceptor):
                def init(self, outbound: Any) -> None:
                    __import__(imported.__name__)
                    super().init(outbound)

            return Inbound

    async with running(client, [module.Flow], interceptors=[Importing()]) as queue:
        for _ in range(2):
            handle = await client.start_workflow("Flow", id=f"sandbox-{queue}", task_queue=queue)
            assert await handle.result() == "done"
            assert not [
                event
                async for event in handle.fetch_history_events()
                if event.HasField("workflow_task_failed_event_attributes")
            ]
    (warning,) = _told(caplog)
    assert f"sys.modules.{imported.__name__}" in warning


def test_a_runner_of_somebody_elses_stays_his() -> None:
    class Theirs(SandboxedWorkflowRunner):
        pass

    runner: WorkflowRunner = ContextWorkerPlugin()._workflow_runner(Theirs())
    assert type(runner) is Theirs
    assert "betterproto2" in runner.restrictions.passthrough_modules


class TestUnprovedSdk:
    """A version of the SDK that the package was not proved with."""

    @pytest.fixture(autouse=True)
    def _anew(self) -> Iterator[None]:
        shared_import_sandbox._is_proved.cache_clear()
        yield
        shared_import_sandbox._is_proved.cache_clear()

    async def test_the_stock_sandbox_takes_over_with_one_warning(
        self,
        client: Client,
        steps: Callable[[str], Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(shared_import_sandbox, "PROVED_SDK_VERSIONS", ("1.2.3", "1.2.4"))
        steady = steps("stateful_steps").Steady
        for number in range(2):
            async with running(client, [steady]) as queue:
                assert await result_of(client, queue, "Steady", number) == [number] * 5
        (warning,) = _told(caplog)
        assert "proved with temporalio 1.2.3, 1.2.4, and " in warning
        assert importlib.metadata.version("temporalio") in warning
        assert type(shared_import_sandbox.sandboxed_runner(SandboxRestrictions.default)) is SandboxedWorkflowRunner

    def test_the_installed_version_is_proved(self) -> None:
        assert importlib.metadata.version("temporalio") in shared_import_sandbox.PROVED_SDK_VERSIONS


async def test_a_time_zone_is_no_change_on_a_machine_without_zone_files(
    client: Client, written: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = written("""
        from zoneinfo import ZoneInfo

        from temporalio import workflow

        @workflow.defn(name="Zoned")
        class Zoned:
            @workflow.run
            async def run(self) -> str:
                return str(ZoneInfo("Europe/Berlin").key)
    """)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        zoneinfo.reset_tzpath(to=())
        zoneinfo.ZoneInfo.clear_cache()
        async with running(client, [module.Zoned], sharing_runner()) as queue:
            handle = await client.start_workflow("Zoned", id=f"zoned-{uuid.uuid4()}", task_queue=queue)
            assert await handle.result() == "Europe/Berlin"
            types = [event.event_type async for event in handle.fetch_history_events()]
    finally:
        zoneinfo.reset_tzpath()
        zoneinfo.ZoneInfo.clear_cache()
    assert EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED not in types
