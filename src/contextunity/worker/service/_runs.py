"""Finds the run that a request is about, where it is the caller's to see."""

from __future__ import annotations

import re
from dataclasses import dataclass

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowExecutionStatus as Status
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.service import RPCError

from contextunity.worker.status import from_rpc_error, task_unknown
from contextunity.worker.tenancy import tenant_in
from python_temporal.contract import WorkflowContract

from ._call import Call, Engine

__all__ = ["LAST_EVENTS", "Run", "check_ids", "find_run", "last_events"]

_RUN_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_MAX_WORKFLOW_ID = 1000
"""Bytes of the longest workflow id that the server gives out. Its answers about far longer ones cannot be read."""
LAST_EVENTS = 20
"""Events asked for at the end of a history: the last one, and with it the attempt that led there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run of a task.

    Attributes:
        workflow_id: id of the task.
        run_id: id of the run.
        tenant_id: whose it is; empty where it was started past the service.
        contract: what it does; None where no module here has it.
        description: what the server says about it.
    """

    workflow_id: str
    run_id: str
    tenant_id: str
    contract: WorkflowContract | None
    description: DescribeWorkflowExecutionResponse

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.description.workflow_execution_info.status == Status.WORKFLOW_EXECUTION_STATUS_RUNNING


async def find_run(call: Call, engine: Engine, workflow_id: str, run_id: str, tenant_id: str) -> Run:
    """Finds a run, or the newest of a task; one that went on as another is followed to where it is now.

    Raises:
        ServiceError: there is none, or it is another tenant's, which looks the same; or Temporal does not answer.
    """
    tenants = call.tenants(tenant_id)
    check_ids(workflow_id, run_id)
    while True:
        run = await _describe(engine, workflow_id, run_id)
        if tenants is not None and run.tenant_id not in tenants:
            raise task_unknown(workflow_id)
        info = run.description.workflow_execution_info
        if info.status != Status.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
            return run
        (event, *_) = await last_events(engine, workflow_id, run.run_id, count=1)
        run_id = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id


def check_ids(workflow_id: str, run_id: str) -> None:
    """Refuses ids that no task has, before the server is asked.

    Raises:
        ServiceError: one of them is such.
    """
    impossible = len(workflow_id.encode()) > _MAX_WORKFLOW_ID or "\0" in workflow_id
    if impossible or (run_id and not _RUN_ID.fullmatch(run_id)):
        raise task_unknown(workflow_id)


async def last_events(engine: Engine, workflow_id: str, run_id: str, *, count: int = LAST_EVENTS) -> list[HistoryEvent]:
    """The last events of a run's history, newest first; never empty.

    Raises:
        ServiceError: there is no such run; or Temporal does not answer.
    """
    request = GetWorkflowExecutionHistoryReverseRequest(
        namespace=engine.client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        maximum_page_size=count,
    )
    try:
        answer = await engine.client.workflow_service.get_workflow_execution_history_reverse(
            request, retry=True, timeout=engine.rpc_timeout
        )
    except RPCError as error:
        raise from_rpc_error(error, workflow_id=workflow_id) from error
    return list(answer.history.events)


async def _describe(engine: Engine, workflow_id: str, run_id: str) -> Run:
    request = DescribeWorkflowExecutionRequest(
        namespace=engine.client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
    )
    try:
        description = await engine.client.workflow_service.describe_workflow_execution(
            request, retry=True, timeout=engine.rpc_timeout
        )
    except RPCError as error:
        raise from_rpc_error(error, workflow_id=workflow_id) from error
    info = description.workflow_execution_info
    return Run(
        workflow_id=workflow_id,
        run_id=info.execution.run_id,
        tenant_id=tenant_in(info.search_attributes),
        contract=engine.registry.workflows.get(info.type.name),
        description=description,
    )
