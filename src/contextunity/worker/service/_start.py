"""Starts workflows, so that the same request sent again gives the run that it started before.

The request goes to the Temporal server by its own API, because the SDK makes up a new request id for each start. With
the unit's id in that place the server itself knows a repetition, also of ten at once, and also where the run that it
started has ended. A run that only joined another's, by the contract's conflict policy, is remembered the same way.
"""

from __future__ import annotations

import functools
import re

from contextunity.gen.contextunity.worker.tasks_pb2 import TASK_STATE_STARTED, StartWorkflowResult
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy as Conflict
from temporalio.api.enums.v1 import WorkflowIdReusePolicy as Reuse
from temporalio.api.errordetails.v1 import WorkflowExecutionAlreadyStartedFailure
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    ListWorkflowExecutionsRequest,
    StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
)
from temporalio.service import RPCError, RPCStatusCode

from contextunity.worker.status import Reason, ServiceError, from_rpc_error
from contextunity.worker.tenancy import (
    ATTRIBUTES,
    TENANT_ATTRIBUTE,
    UNIT_ATTRIBUTE,
    register_attributes,
    tenant_in,
)
from python_temporal.contract import WorkflowContract

from ._blanks import Blanks
from ._call import Call, Engine
from ._inputs import StartRequest, read_start
from ._seen import Seen

__all__ = ["Starting", "quoted"]

_RELAXED = (
    Reuse.WORKFLOW_ID_REUSE_POLICY_UNSPECIFIED,
    Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
    Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
)


# Looked up once: the enums' wrappers do it in Python, each time.
_REJECT = Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
_TERMINATE_IF_RUNNING = Reuse.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING
_USE_EXISTING = Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
_TERMINATE_EXISTING = Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
_PROGRAMS = "execute_code"
"""The workflow of programs, whichever way they are started."""
_TENANT_PATH = re.compile(r"\$\{!\s*(this\.)?tenantId(\.string\(\))?\s*\}")


class Starting:
    """StartWorkflow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._blanks = Blanks(engine)

    async def start_workflow(self, call: Call) -> StartWorkflowResult:
        """Starts the workflow of a workflow_type; see StartWorkflow in worker.proto."""
        request = await call.read(read_start, call, self._engine.registry)
        workflow_id, run_id = await self.start(call, request)
        seen = Seen(run_id=run_id, tenant_id=request.tenant_id, contract=request.contract)
        self._engine.seen.keep(workflow_id, seen)
        return StartWorkflowResult(workflow_id=workflow_id, run_id=run_id, status=TASK_STATE_STARTED)

    async def start(self, call: Call, request: StartRequest) -> tuple[str, str]:
        """Starts what was asked for, or finds the run that the same unit started.

        Returns:
            The workflow id and the run id.

        Raises:
            ServiceError: the id is taken and the contract allows no second task under it; or Temporal does not answer.
        """
        if call.caller.tenants is not None:
            await self._count(request)
        # With the tenant in it, a unit id that two tenants happen to share is no repetition.
        request_id = f"{request.tenant_id}/{call.request_id}"
        wanted = await self._blanks.filled(call, request, request_id)
        policy = wanted.workflow_id_reuse_policy
        if _ends_others(wanted):
            # The server takes no stricter policy together with this one, so what it would end is looked at before.
            await self._guard_others(call, request, wanted)
            earlier = await self._earlier(call, request, wanted.workflow_id)
            if earlier:
                return wanted.workflow_id, earlier
        elif policy in _RELAXED:
            if _joins_others(request.contract, wanted) and call.caller.tenants is not None:
                # The server writes who joins into the history of the task, which is another tenant's own.
                await self._guard_others(call, request, wanted)
            # Refused at first where the id has been used before: only then can it be a repetition that is not the
            # newest under its id any more, and only then is it worth asking.
            wanted.workflow_id_reuse_policy = _REJECT
        answer = await self._send(wanted)
        if isinstance(answer, WorkflowExecutionAlreadyStartedFailure):
            if answer.start_request_id == request_id:
                return wanted.workflow_id, await self._own(call, request, wanted.workflow_id, answer.run_id)
            earlier = await self._earlier(call, request, wanted.workflow_id)
            if earlier:
                return wanted.workflow_id, earlier
            if policy == wanted.workflow_id_reuse_policy:
                raise _exists(request.contract, wanted.workflow_id)
            wanted.workflow_id_reuse_policy = policy
            answer = await self._send(wanted)
        if isinstance(answer, WorkflowExecutionAlreadyStartedFailure):
            raise _exists(request.contract, wanted.workflow_id)
        if not answer.started:
            return wanted.workflow_id, await self._own(call, request, wanted.workflow_id, answer.run_id)
        return wanted.workflow_id, answer.run_id

    async def _count(self, request: StartRequest) -> None:
        """Holds a start against what its tenant may take. Where callers are not asked, tenants are but labels."""
        tenant, name = request.tenant_id, request.contract.name
        quotas = self._engine.quotas.of(tenant)
        self._engine.quotas.take_start(tenant)
        is_program = name == _PROGRAMS
        quota, limit = ("programs", quotas.programs) if is_program else ("open_tasks", quotas.open_tasks)
        await self._engine.open_tasks.take(tenant, name, quota, limit)

    async def _send(
        self, wanted: StartWorkflowExecutionRequest, *, may_register: bool = True
    ) -> StartWorkflowExecutionResponse | WorkflowExecutionAlreadyStartedFailure:
        try:
            return await self._engine.client.workflow_service.start_workflow_execution(
                wanted, retry=True, timeout=self._engine.rpc_timeout
            )
        except RPCError as error:
            taken = WorkflowExecutionAlreadyStartedFailure()
            if error.status is RPCStatusCode.ALREADY_EXISTS and any(
                detail.Unpack(taken) for detail in error.grpc_status.details
            ):
                return taken
            if may_register and any(key.name in error.message for key in ATTRIBUTES):
                # The server came back without what it knew; what a start needs is registered again.
                await register_attributes(self._engine.client)
                return await self._send(wanted, may_register=False)
            raise from_rpc_error(error, workflow_id=wanted.workflow_id) from error

    async def _own(self, call: Call, request: StartRequest, workflow_id: str, run_id: str) -> str:
        """The run that is there already, where it is the tenant's own: others' are not to be joined.

        One that was started past the service belongs to nobody, and so only to those who may see everything.
        """
        tenant = await self._tenant(workflow_id, run_id)
        if tenant == request.tenant_id or (call.caller.tenants is None and not tenant):
            return run_id
        raise _exists(request.contract, workflow_id)

    async def _earlier(self, call: Call, request: StartRequest, workflow_id: str) -> str:
        """The run that this unit started, where others came after it under the same id; empty where there is none."""
        if not call.unit_id:
            return ""
        service, client = self._engine.client.workflow_service, self._engine.client
        conditions = {
            "WorkflowId": workflow_id,
            UNIT_ATTRIBUTE.name: call.unit_id,
            TENANT_ATTRIBUTE.name: request.tenant_id,
        }
        query = " AND ".join(f"{name} = {quoted(value)}" for name, value in conditions.items())
        try:
            found = await service.list_workflow_executions(
                ListWorkflowExecutionsRequest(namespace=client.namespace, query=query, page_size=100),
                retry=True,
                timeout=self._engine.rpc_timeout,
            )
        except RPCError as error:
            raise from_rpc_error(error, workflow_id=workflow_id) from error
        # A run that went on as another left both behind, with the same attributes; the first is what the start gave.
        first = min(found.executions, key=lambda each: each.start_time.ToNanoseconds(), default=None)
        return first.execution.run_id if first is not None else ""

    async def _guard_others(self, call: Call, request: StartRequest, wanted: StartWorkflowExecutionRequest) -> None:
        """Keeps a contract that ends or joins the task in its way from touching another tenant's."""
        tenant = await self._tenant(wanted.workflow_id, "")
        nobodys = tenant is None or (call.caller.tenants is None and not tenant)
        if not nobodys and tenant != request.tenant_id:
            raise _exists(request.contract, wanted.workflow_id)

    async def _tenant(self, workflow_id: str, run_id: str) -> str | None:
        """Tenant of a run; None where there is no run."""
        client = self._engine.client
        try:
            description = await client.workflow_service.describe_workflow_execution(
                DescribeWorkflowExecutionRequest(
                    namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id)
                ),
                retry=True,
                timeout=self._engine.rpc_timeout,
            )
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise from_rpc_error(error, workflow_id=workflow_id) from error
        return tenant_in(description.workflow_execution_info.search_attributes)


def quoted(text: str) -> str:
    """A text as a value in a list filter."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _ends_others(wanted: StartWorkflowExecutionRequest) -> bool:
    """Whether the contract has a start end the task that runs under its id."""
    return (
        wanted.workflow_id_conflict_policy == _TERMINATE_EXISTING
        or wanted.workflow_id_reuse_policy == _TERMINATE_IF_RUNNING
    )


def _joins_others(contract: WorkflowContract, wanted: StartWorkflowExecutionRequest) -> bool:
    """Whether the contract has a start join what runs under its id, and the id may be another tenant's as well."""
    return wanted.workflow_id_conflict_policy == _USE_EXISTING and not _names_tenant(contract)


@functools.cache
def _names_tenant(contract: WorkflowContract) -> bool:
    """Whether the ids of a contract have the tenant in them: those that are made of a unit's always do."""
    return contract.workflow_id is None or _TENANT_PATH.search(contract.id_expression) is not None


def _exists(contract: WorkflowContract, workflow_id: str) -> ServiceError:
    return ServiceError(
        Reason.TASK_EXISTS,
        # The same for a task of the caller's and for one that it does not see.
        f"the workflow_id {workflow_id!r} is taken, and the contract of {contract.name!r} does not allow another task "
        "under it",
        metadata={"workflow_id": workflow_id},
    )
