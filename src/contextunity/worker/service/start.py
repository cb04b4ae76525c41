"""StartWorkflow: fills in Temporal's request from the contract, sends it, and tells what runs."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

from contextunity.gen.contextunity.worker import StartWorkflowResult, TaskContext, TaskState
from temporalio import common, converter
from temporalio.api.common.v1 import Payload, Priority, WorkflowExecution
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy as Conflict
from temporalio.api.enums.v1 import WorkflowIdReusePolicy as Reuse
from temporalio.api.errordetails.v1 import WorkflowExecutionAlreadyStartedFailure
from temporalio.api.workflow.v1 import OnConflictOptions
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    ListWorkflowExecutionsRequest,
    StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
)
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.core.context import HEADER
from contextunity.worker.fair_gate import FairGate
from contextunity.worker.grpc_errors import Reason, ServiceError, from_rpc_error, too_large
from contextunity.worker.temporal.errors import is_not_found
from contextunity.worker.temporal.search_attributes import (
    TENANT_ATTRIBUTE,
    UNIT_ATTRIBUTE,
    bound_attributes,
    quoted,
    register_attributes,
    tenant_in,
)
from contextunity.worker.temporal.tenancy import fairness_key
from python_temporal.codegen import text
from python_temporal.contract import WorkflowContract

from .call import Call, Engine, KnownTask, run_in_thread
from .inputs import StartRequest, read_start
from .programs import Programs, Running

__all__ = ["StartRequestBuilder", "StartWorkflowHandler"]

_CONTEXT = codec.full_name(TaskContext).encode()


class StartRequestBuilder:
    """Makes requests of starts.

    Args:
        engine: whose client they are for.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._client = engine, engine.client

    async def build(self, call: Call, request: StartRequest, request_id: str) -> StartWorkflowExecutionRequest:
        """The request that starts what a call asks for.

        Args:
            call: that asks.
            request: what it asks for.
            request_id: what the Temporal server knows a repetition by.
        """
        contract = request.contract
        wanted = StartWorkflowExecutionRequest(
            namespace=self._client.namespace,
            identity=self._client.identity,
            request_id=request_id,
            # Units choose their own ids; with the tenant in it, none of them can take the id of another tenant's task.
            workflow_id=request.workflow_id
            or f"{contract.name}/{text(request.tenant_id, 'tenant_id', contract.name, '/')}/{call.request_id}",
            workflow_id_reuse_policy=_number(contract.id_reuse_policy),
            workflow_id_conflict_policy=_number(contract.id_conflict_policy),
        )
        wanted.workflow_type.name = contract.name
        wanted.task_queue.name = request.task_queue
        for name, timeout in (
            ("workflow_execution_timeout", request.execution_timeout or contract.execution_timeout),
            ("workflow_run_timeout", contract.run_timeout),
            ("workflow_task_timeout", contract.task_timeout),
        ):
            if timeout is not None:
                getattr(wanted, name).FromTimedelta(timeout)
        if contract.retry_policy is not None:
            contract.retry_policy.apply_to_proto(wanted.retry_policy)
        if contract.priority is not None:
            wanted.priority.CopyFrom(_priority(contract.priority))
        if request.tenant_id:
            # Activities, children and the runs that it continues as inherit it. As in `fair_priority`.
            wanted.priority.fairness_key = fairness_key(request.tenant_id)
        context = call.context_message(request.tenant_id).SerializeToString()
        _write(wanted.header.fields[HEADER], context, encoding=b"binary/protobuf", messageType=_CONTEXT)
        if contract.search_attributes is None:
            fields = wanted.search_attributes.indexed_fields
            for name, value in ((TENANT_ATTRIBUTE.name, request.tenant_id), (UNIT_ATTRIBUTE.name, call.unit_id)):
                if value:
                    _write(fields[name], json.dumps(value).encode(), encoding=b"json/plain", type=b"Keyword")
        else:
            others = contract.search_attributes(request.input)
            attributes = bound_attributes(request.tenant_id, call.unit_id, others)
            converter.encode_search_attributes(attributes, wanted.search_attributes)
        if request.input is not None and request.message is not None and self._engine.has_plain_payloads:
            kind = codec.full_name(request.input).encode()
            data = codec.serialize(request.message)
            _write(wanted.input.payloads.add(), data, encoding=b"binary/protobuf", messageType=kind)
        elif request.input is not None:
            wanted.input.payloads.extend(await self._client.data_converter.encode([request.input]))
        if wanted.workflow_id_conflict_policy == Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING:
            wanted.on_conflict_options.CopyFrom(OnConflictOptions(attach_request_id=True))
        return wanted


def _write(payload: Payload, data: bytes, **metadata: bytes) -> None:
    payload.data = data
    for name, value in metadata.items():
        payload.metadata[name] = value


def _number(policy: Any) -> Any:
    """The SDK's enums have the numbers of the API's."""
    return 0 if policy is None else int(policy)


def _priority(priority: common.Priority) -> Priority:
    return Priority(
        priority_key=priority.priority_key or 0,
        fairness_key=priority.fairness_key or "",
        fairness_weight=priority.fairness_weight or 0.0,
    )


_RELAXED = (
    Reuse.WORKFLOW_ID_REUSE_POLICY_UNSPECIFIED,
    Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
    Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
)


# Looked up once: the enums' wrappers do it in Python, each time.
_REJECT = Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
_TERMINATE_IF_RUNNING = Reuse.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING
_TERMINATE_EXISTING = Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
_PROGRAMS = "execute_code"
"""The workflow of programs, whichever way they are started."""


_AT_ONCE, _SHARE = 16, 1
"""Starts that are on their way to Temporal at once, in all, and of a tenant while others start something too. They cost
the server the most; one after the other they slow down as it does, and leave it time for the others'."""
_MOMENT = 1.0
"""Seconds after which a start makes room for others."""
_LARGEST_INPUT = 4 * 1024 * 1024
"""Bytes of a request that a Temporal server takes, whatever is configured; most take half as much input."""
_LARGEST_ID = 64 * 1024
"""Characters of an id; the server says of shorter ones itself whether they are too long."""


class StartWorkflowHandler:
    """StartWorkflow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._builder = StartRequestBuilder(engine)
        self._gate = FairGate(_AT_ONCE, seconds=_MOMENT)
        self.programs = Programs(engine.client, engine.quotas)
        """Programs on their way."""

    async def start_workflow(self, call: Call) -> StartWorkflowResult:
        """Starts the workflow of a workflow_type; see StartWorkflow in worker.proto."""
        request = await call.run_off_loop_if_large(read_start, call, self._engine.registry)
        if call.is_large:
            await run_in_thread(_check_size, request)
        if request.contract.name == _PROGRAMS:
            # Whoever asked may go away, and its program still counts until it has ended.
            workflow_id, run_id = await asyncio.shield((await self.send(call, request)).started)
        else:
            workflow_id, run_id = await self.start(call, request)
        seen = KnownTask(run_id=run_id, tenant_id=request.tenant_id, contract=request.contract)
        self._engine.known_tasks.keep(workflow_id, seen)
        return StartWorkflowResult(workflow_id=workflow_id, run_id=run_id, status=TaskState.STARTED)

    async def send(self, call: Call, request: StartRequest) -> Running:
        """Starts a program when it is its turn; see `Programs`."""
        return await self.programs.send(call, request.tenant_id, functools.partial(self.start, call, request))

    async def start(self, call: Call, request: StartRequest) -> tuple[str, str]:
        """Starts what was asked for, or finds the run that the same unit started.

        Returns:
            The workflow id and the run id.

        Raises:
            ServiceError: the id is taken and the contract allows no second task under it; or Temporal does not answer.
        """
        if call.caller.tenants is None:
            return await self._start(call, request)
        await self._count(call, request)
        turn = self._gate.try_enter(request.tenant_id, _AT_ONCE, _SHARE)
        if turn is None:
            call.rest()
            turn = await self._gate.enter(request.tenant_id, _AT_ONCE, _SHARE)
        try:
            return await self._start(call, request)
        finally:
            turn.leave()

    async def _start(self, call: Call, request: StartRequest) -> tuple[str, str]:
        # With the tenant in it, a unit id that two tenants happen to share is no repetition.
        request_id = f"{request.tenant_id}/{call.request_id}"
        wanted = await self._builder.build(call, request, request_id)
        policy = wanted.workflow_id_reuse_policy
        if _ends_others(wanted):
            # The server takes no stricter policy together with this one, so what it would end is looked at before.
            await self._guard_others(call, request, wanted)
            earlier = await self._earlier(call, request, wanted.workflow_id)
            if earlier:
                return wanted.workflow_id, earlier
        elif policy in _RELAXED:
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

    async def _count(self, call: Call, request: StartRequest) -> None:
        """Holds a start against what its tenant may take. Where callers are not asked, tenants are but labels."""
        tenant, name = request.tenant_id, request.contract.name
        quotas = self._engine.quotas.of(tenant)
        await self._engine.quotas.take_start(tenant, call.method)
        is_program = name == _PROGRAMS
        quota, limit = ("programs", quotas.programs) if is_program else ("open_tasks", quotas.open_tasks)
        await self._engine.open_tasks.take(tenant, name, quota, limit, call.method)

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
            if may_register and any(name in error.message for name in wanted.search_attributes.indexed_fields):
                # The server came back without what it knew; what a start needs is registered again.
                await register_attributes(
                    self._engine.client, [self._engine.registry.workflows[wanted.workflow_type.name]]
                )
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
            if is_not_found(error):
                return None
            raise from_rpc_error(error, workflow_id=workflow_id) from error
        return tenant_in(description.workflow_execution_info.search_attributes)


def _check_size(request: StartRequest) -> None:
    """Refuses what no Temporal server takes, before it is sent there.

    Raises:
        ServiceError: the id or the input is larger.
    """
    size = 0 if request.message is None else request.message.ByteSize()
    if len(request.workflow_id) > _LARGEST_ID or size > _LARGEST_INPUT:
        raise too_large({})


def _ends_others(wanted: StartWorkflowExecutionRequest) -> bool:
    """Whether the contract has a start end the task that runs under its id."""
    return (
        wanted.workflow_id_conflict_policy == _TERMINATE_EXISTING
        or wanted.workflow_id_reuse_policy == _TERMINATE_IF_RUNNING
    )


def _exists(contract: WorkflowContract, workflow_id: str) -> ServiceError:
    return ServiceError(
        Reason.TASK_EXISTS,
        # The same for a task of the caller's and for one that it does not see.
        f"the workflow_id {workflow_id!r} is taken, and the contract of {contract.name!r} does not allow another task "
        "under it",
        metadata={"workflow_id": workflow_id},
    )
