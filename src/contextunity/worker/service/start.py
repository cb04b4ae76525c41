"""StartWorkflow: build Temporal's request from the contract, send it, and return the started run."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any

from contextunity.gen.contextunity.worker import StartWorkflowResult, TaskContext, TaskState
from temporalio import converter
from temporalio.api.common.v1 import Payload, WorkflowExecution
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
from contextunity.worker import tracing
from contextunity.worker.fair_gate import FairGate
from contextunity.worker.grpc_errors import Reason, ServiceError, from_rpc_error, too_large
from contextunity.worker.temporal.converter import for_workflow
from contextunity.worker.temporal.errors import is_not_found
from contextunity.worker.temporal.search_attributes import (
    TENANT_ATTRIBUTE,
    UNIT_ATTRIBUTE,
    bound_attributes,
    quoted,
    register_attributes,
    tenant_in,
)
from contextunity.worker.temporal.tenancy import write_priority
from python_temporal.codegen import text
from python_temporal.contract import WorkflowContract

from .call import Call, Engine, KnownTask, run_in_thread
from .inputs import StartRequest, read_start
from .programs import Programs, Running

__all__ = ["StartRequestBuilder", "StartWorkflowHandler"]

_CONTEXT = codec.full_name(TaskContext).encode()


class StartRequestBuilder:
    """Builds start requests.

    Args:
        engine: the engine whose Temporal client sends them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._client = engine, engine.client

    async def build(self, call: Call, request: StartRequest, request_id: str) -> StartWorkflowExecutionRequest:
        """Return Temporal's start request for a call.

        Args:
            call: the call that starts the workflow.
            request: the decoded request.
            request_id: the id by which the Temporal server recognizes retries.
        """
        contract = request.contract
        wanted = StartWorkflowExecutionRequest(
            namespace=self._client.namespace,
            identity=self._client.identity,
            request_id=request_id,
            # Units choose their own ids. With the tenant in it, an id cannot collide with another tenant's task.
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
        # Activities, children and continued runs inherit it.
        write_priority(wanted.priority, request.tenant_id, contract.priority)
        context = call.context_message(request.tenant_id).SerializeToString()
        _write(wanted.header.fields[HEADER], context, encoding=b"binary/protobuf", messageType=_CONTEXT)
        if tracing.active is not None:
            tracing.active.write_header(wanted.header.fields)
        if contract.search_attributes is None:
            fields = wanted.search_attributes.indexed_fields
            for name, value in ((TENANT_ATTRIBUTE.name, request.tenant_id), (UNIT_ATTRIBUTE.name, call.unit_id)):
                if value:
                    _write(fields[name], json.dumps(value).encode(), encoding=b"json/plain", type=b"Keyword")
        else:
            others = contract.search_attributes(request.input)
            attributes = bound_attributes(request.tenant_id, call.unit_id, others)
            converter.encode_search_attributes(attributes, wanted.search_attributes)
        if request.input is not None and not self._write_plainly(request, wanted):
            storing = for_workflow(
                self._client.data_converter, self._client.namespace, wanted.workflow_id, contract.name
            )
            wanted.input.payloads.extend(await storing.encode([request.input]))
        if wanted.workflow_id_conflict_policy == Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING:
            wanted.on_conflict_options.CopyFrom(OnConflictOptions(attach_request_id=True))
        return wanted

    def _write_plainly(self, request: StartRequest, wanted: StartWorkflowExecutionRequest) -> bool:
        """Write the input without the data converter; return False if it has to be encrypted or stored."""
        if request.input is None or request.message is None or not self._engine.has_plain_payloads:
            return False
        payload = wanted.input.payloads.add()
        kind, data = codec.full_name(request.input).encode(), codec.serialize(request.message)
        _write(payload, data, encoding=b"binary/protobuf", messageType=kind)
        stored_from = self._engine.stored_from
        if stored_from is not None and payload.ByteSize() >= stored_from:
            wanted.ClearField("input")
            return False
        return True


def _write(payload: Payload, data: bytes, **metadata: bytes) -> None:
    payload.data = data
    for name, value in metadata.items():
        payload.metadata[name] = value


def _number(policy: Any) -> Any:
    """Return the API's number of an SDK enum value; the two are equal."""
    return 0 if policy is None else int(policy)


_RELAXED = (
    Reuse.WORKFLOW_ID_REUSE_POLICY_UNSPECIFIED,
    Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
    Reuse.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY,
)


# Cached, because the enums' wrappers look values up in Python each time.
_REJECT = Reuse.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
_TERMINATE_IF_RUNNING = Reuse.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING
_TERMINATE_EXISTING = Conflict.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
_PROGRAMS = "execute_code"
"""The workflow that runs programs, however they are started."""


_AT_ONCE, _SHARE = 16, 1
"""Limits of concurrent starts at Temporal: in total, and per tenant while other tenants start too. Starts cost the
server the most; sequential starts slow down with the server and leave it time for other tenants."""
_MOMENT = 1.0
"""Seconds after which a running start no longer counts against these limits."""
_LARGEST_ID = 64 * 1024
"""Maximum characters of an id; the server itself rejects shorter ones that are still too long."""


class StartWorkflowHandler:
    """Handles StartWorkflow."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._builder = StartRequestBuilder(engine)
        self._gate = FairGate(_AT_ONCE, seconds=_MOMENT)
        self.programs = Programs(engine.client, engine.quotas)
        """Programs that are being started or run."""

    async def start_workflow(self, call: Call) -> StartWorkflowResult:
        """Start the workflow of a workflow_type; see StartWorkflow in worker.proto."""
        request = await call.run_off_loop_if_large(read_start, call, self._engine.registry)
        if call.is_large:
            await run_in_thread(_check_size, request, self._engine.largest_input)
        if request.contract.name == _PROGRAMS:
            # The caller may disconnect; its program still counts until it has ended.
            workflow_id, run_id = await asyncio.shield((await self.send(call, request)).started)
        else:
            workflow_id, run_id = await self.start(call, request)
        seen = KnownTask(run_id=run_id, tenant_id=request.tenant_id, contract=request.contract)
        self._engine.known_tasks.keep(workflow_id, seen)
        return StartWorkflowResult(workflow_id=workflow_id, run_id=run_id, status=TaskState.STARTED)

    async def send(self, call: Call, request: StartRequest) -> Running:
        """Start a program when it is its tenant's turn; see `Programs`."""
        return await self.programs.send(call, request.tenant_id, functools.partial(self.start, call, request))

    async def start(self, call: Call, request: StartRequest) -> tuple[str, str]:
        """Start the workflow, or return the run that the same unit started before.

        Returns:
            The workflow id and the run id.

        Raises:
            ServiceError: the id is taken and the contract allows no second task with it, or Temporal does not answer.
        """
        if call.caller.tenants is None:
            return await self._traced_start(call, request)
        await self._count(call, request)
        turn = self._gate.try_enter(request.tenant_id, _AT_ONCE, _SHARE)
        if turn is None:
            call.rest()
            turn = await self._gate.enter(request.tenant_id, _AT_ONCE, _SHARE)
        try:
            return await self._traced_start(call, request)
        finally:
            turn.leave(self._engine.quotas.pause_after_start(request.tenant_id))

    async def _traced_start(self, call: Call, request: StartRequest) -> tuple[str, str]:
        if tracing.active is None:
            return await self._start(call, request)
        with tracing.span(f"StartWorkflow:{request.contract.name}"):
            return await self._start(call, request)

    async def _start(self, call: Call, request: StartRequest) -> tuple[str, str]:
        # With the tenant in it, equal unit ids of two tenants are not treated as a retry.
        request_id = f"{request.tenant_id}/{call.request_id}"
        wanted = await self._builder.build(call, request, request_id)
        policy = wanted.workflow_id_reuse_policy
        if _ends_others(wanted):
            # The server accepts no stricter policy together with this one, so check first which task it would end.
            await self._guard_others(call, request, wanted)
            earlier = await self._earlier(call, request, wanted.workflow_id)
            if earlier:
                return wanted.workflow_id, earlier
        elif policy in _RELAXED:
            # First reject ids that were used before: only then can this be a retry whose run is no longer the newest
            # with the id, and only then is the extra request needed.
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
        """Count a start against the quotas of its tenant. Without tokens, tenants are only labels."""
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
                # The server was reset and lost its search attributes, so register those of the workflow again.
                await register_attributes(
                    self._engine.client, [self._engine.registry.workflows[wanted.workflow_type.name]]
                )
                return await self._send(wanted, may_register=False)
            raise from_rpc_error(error, workflow_id=wanted.workflow_id) from error

    async def _own(self, call: Call, request: StartRequest, workflow_id: str, run_id: str) -> str:
        """Return the existing run if it belongs to the tenant; reject joining another tenant's run.

        A run that was started without the service has no tenant, so only callers who see all tenants may join it.
        """
        tenant = await self._tenant(workflow_id, run_id)
        if tenant == request.tenant_id or (call.caller.tenants is None and not tenant):
            return run_id
        raise _exists(request.contract, workflow_id)

    async def _earlier(self, call: Call, request: StartRequest, workflow_id: str) -> str:
        """Return the earlier run that this unit started with the same id, or an empty string."""
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
        # If the run continued as new, both runs have the same attributes; the start returned the first one.
        first = min(found.executions, key=lambda each: each.start_time.ToNanoseconds(), default=None)
        return first.execution.run_id if first is not None else ""

    async def _guard_others(self, call: Call, request: StartRequest, wanted: StartWorkflowExecutionRequest) -> None:
        """Prevent a contract that ends or joins the task with its id from affecting another tenant's task."""
        tenant = await self._tenant(wanted.workflow_id, "")
        nobodys = tenant is None or (call.caller.tenants is None and not tenant)
        if not nobodys and tenant != request.tenant_id:
            raise _exists(request.contract, wanted.workflow_id)

    async def _tenant(self, workflow_id: str, run_id: str) -> str | None:
        """Return the tenant of a run, or None if there is no such run."""
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


def _check_size(request: StartRequest, largest_input: int) -> None:
    """Reject ids and inputs that are too large for any Temporal server or the storage, before sending them.

    Raises:
        ServiceError: the id or the input is too large.
    """
    size = 0 if request.message is None else request.message.ByteSize()
    if len(request.workflow_id) > _LARGEST_ID or size > largest_input:
        raise too_large({})


def _ends_others(wanted: StartWorkflowExecutionRequest) -> bool:
    """Return whether a start with this contract ends the running task with its id."""
    return (
        wanted.workflow_id_conflict_policy == _TERMINATE_EXISTING
        or wanted.workflow_id_reuse_policy == _TERMINATE_IF_RUNNING
    )


def _exists(contract: WorkflowContract, workflow_id: str) -> ServiceError:
    return ServiceError(
        Reason.TASK_EXISTS,
        # The same message for the caller's own tasks and for those that it cannot see.
        f"the workflow_id {workflow_id!r} is taken, and the contract of {contract.name!r} does not allow another task "
        "under it",
        metadata={"workflow_id": workflow_id},
    )
