"""The SDK plugin with which a Temporal client or worker supports the generated contracts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Iterable

from temporalio import worker
from temporalio.converter import ExternalStorage, PayloadCodec
from temporalio.plugin import SimplePlugin
from temporalio.worker import WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from contextunity.core import validation
from contextunity.core.context import TaskContext
from python_temporal.contract import ActivityContract, ServiceContract, WorkflowContract
from python_temporal.workflows import check_inputs_by
from shared_import_sandbox import sandboxed_runner

from .. import tracing
from ..internal_fields import clear_internal
from .context_interceptor import ContextInterceptor, fill_tenant
from .converter import encoding_converter
from .failure_interceptor import FailureInterceptor
from .heartbeats import HeartbeatInterceptor
from .metrics_interceptor import MetricsInterceptor
from .validation_interceptor import ValidationInterceptor

__all__ = ["PASSTHROUGH_MODULES", "ContextWorkerPlugin"]

PASSTHROUGH_MODULES = (
    "betterproto2",
    "betterproto2_codec",
    "contextunity.core",
    "contextunity.gen",
    "contextunity.worker",
    "dateutil",
    "google.protobuf",
    "grpc",
    "opentelemetry",
    "protobuf",
    "protobuf_ext",
    "protovalidate",
    "pydantic",
    "pydantic_core",
    "python_temporal",
    "typing_extensions",
    # zoneinfo imports it for the first time zone on machines without zone files.
    "tzdata",
)
"""Modules that the workflow sandbox shares with the process instead of importing them again for each run.

Generated classes must be the same on both sides: otherwise a message decoded outside is not an instance of the
class in the workflow's code. The others have no state that a workflow could depend on, and importing them again
takes several milliseconds per run.
"""

_FIXED_TYPES = (ActivityContract, ServiceContract, WorkflowContract)
"""Modules of workflows contain contracts, which are created by generated modules and never changed."""


class ContextWorkerPlugin(SimplePlugin):
    """Everything that your Temporal client or worker needs: the data converter, the sandbox's settings, the context in
    headers, the rules for input, and heartbeats.

    Args:
        passthrough_modules: further modules to share with the sandbox, such as the package of your generated code.
        payload_codec: encodes payloads and the texts of failures, such as
            `contextunity.worker.temporal.encryption.EncryptionCodec`; default: none.
        external_storage: keeps large payloads outside of Temporal, such as
            `contextunity.worker.temporal.storage.folder_storage`; default: none.

    Example:
        client = await Client.connect("localhost:7233", plugins=[ContextWorkerPlugin()])
    """

    def __init__(
        self,
        *,
        passthrough_modules: Iterable[str] = (),
        payload_codec: PayloadCodec | None = None,
        external_storage: ExternalStorage | None = None,
    ) -> None:
        self._passthrough = (*PASSTHROUGH_MODULES, *passthrough_modules)
        check_inputs_by(_prepare_input)
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # the SDK leaves some of its parameters open
            "contextunity.ContextWorkerPlugin",
            data_converter=encoding_converter(payload_codec, external_storage),
            # What the first one brings, the next ones label by; what the last one makes of errors, they count.
            interceptors=[
                ContextInterceptor(),
                *_tracing(),
                MetricsInterceptor(),
                ValidationInterceptor(),
                HeartbeatInterceptor(),
                FailureInterceptor(),
            ],
            workflow_runner=self._workflow_runner,
            run_context=_prepared,
        )

    def _workflow_runner(self, existing: WorkflowRunner | None) -> WorkflowRunner:
        runner = existing or SandboxedWorkflowRunner()
        if not isinstance(runner, SandboxedWorkflowRunner):
            return runner
        restrictions = runner.restrictions.with_passthrough_modules(*self._passthrough)
        # A restricted ZoneInfo is a proxy, which datetime rejects. The restricted functions change the time zones of
        # the whole process, and nobody calls them in a workflow by mistake.
        members = restrictions.invalid_module_members.with_child_unrestricted("zoneinfo")
        restrictions = dataclasses.replace(restrictions, invalid_module_members=members)
        if type(runner) is SandboxedWorkflowRunner:
            return sandboxed_runner(restrictions, runner.runner_class, fixed_types=_FIXED_TYPES)
        return dataclasses.replace(runner, restrictions=restrictions)


def _tracing() -> list[worker.Interceptor]:
    """Return what records spans; nothing where traces are off."""
    if tracing.active is None:
        return []
    # Imported only here: it imports OpenTelemetry.
    from .tracing_interceptor import TracingInterceptor

    return [TracingInterceptor(tracing.active)]


def _prepare_input(argument: object) -> None:
    """Prepare a workflow's input like the service, for workflows that were started without it."""
    clear_internal(argument)
    fill_tenant(argument)


@contextlib.asynccontextmanager
async def _prepared() -> AsyncGenerator[None, None]:
    # Importing the validator takes a while, and a workflow that waits for it could be reported as deadlocked.
    await asyncio.to_thread(validation.check, TaskContext())
    yield
