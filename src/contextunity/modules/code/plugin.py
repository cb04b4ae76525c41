"""Register the code module with the worker."""

from __future__ import annotations

from contextunity.gen.contextunity.code.v1.code_temporal import EXECUTE_WORKFLOW_NAME

from contextunity.worker.core.registry import ModuleConfig

from .activities import call_tool, run_program
from .checks import check_kernel, check_programs
from .resources import lifespan
from .settings import CodeSettings
from .workflows import ExecuteWorkflow

__all__ = ["module"]

module = ModuleConfig(
    name="code",
    description="Runs small untrusted programs in a sandbox with hard limits.",
    workflows=[ExecuteWorkflow],
    activities=[run_program, call_tool],
    settings=CodeSettings,
    lifespan=lifespan,
    waiting_slots=lambda settings: settings.parallel_tools,
    example={"workflow_type": EXECUTE_WORKFLOW_NAME, "code": "sum(range(10))"},
    statuses=dict.fromkeys(("LanguageUnknown", "LimitExceeded", "RequestInvalid", "ToolUnknown"), "INVALID_ARGUMENT"),
    checks={"kernel": check_kernel, "programs": check_programs},
)
