"""The SDK plugin that makes a Temporal client or worker speak the generated contracts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from temporalio.plugin import SimplePlugin
from temporalio.worker import WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from .converter import data_converter
from .heartbeat import HeartbeatInterceptor

__all__ = ["PASSTHROUGH_MODULES", "ContextWorkerPlugin"]

PASSTHROUGH_MODULES = (
    "betterproto2",
    "contextunity.core",
    "contextunity.gen",
    "dateutil",
    "google.protobuf",
    "grpc",
    "pydantic",
    "pydantic_core",
    "python_temporal",
    "typing_extensions",
)
"""Modules that the workflow sandbox shares with the process instead of importing them anew for each run.

Generated classes must be the same ones on both sides: a message decoded outside is otherwise no instance of the class
that the workflow's code names. The rest is here because it holds no state that a workflow could depend on, and to
import it again costs several milliseconds a run.
"""


class ContextWorkerPlugin(SimplePlugin):
    """Data converter, sandbox settings and heartbeats in one, for any Temporal client or worker of yours.

    Args:
        passthrough_modules: further modules to share with the sandbox, such as the package of your own generated code.

    Example:
        client = await Client.connect("localhost:7233", plugins=[ContextWorkerPlugin()])
    """

    def __init__(self, *, passthrough_modules: Iterable[str] = ()) -> None:
        self._passthrough = (*PASSTHROUGH_MODULES, *passthrough_modules)
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # the SDK leaves some of its parameters open
            "contextunity.ContextWorkerPlugin",
            data_converter=data_converter,
            interceptors=[HeartbeatInterceptor()],
            workflow_runner=self._workflow_runner,
        )

    def _workflow_runner(self, existing: WorkflowRunner | None) -> WorkflowRunner:
        runner = existing or SandboxedWorkflowRunner()
        if not isinstance(runner, SandboxedWorkflowRunner):
            return runner
        restrictions = runner.restrictions.with_passthrough_modules(*self._passthrough)
        return dataclasses.replace(runner, restrictions=restrictions)
