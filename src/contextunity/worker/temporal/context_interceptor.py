"""Propagates the context of a request through Temporal: from client to workflow, activity, child and next run.

Outgoing requests have the current context in a header. Incoming ones set the current context from it, with their own
step added to the provenance. Nothing depends on time or randomness, so a replay has the same result.
"""

from __future__ import annotations

import base64
import binascii
import copy
import dataclasses
import logging
from collections.abc import Mapping
from typing import Any, NoReturn

import betterproto2
import nexusrpc.handler
from temporalio import activity, client, nexus, worker, workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import Priority, SearchAttributePair, TypedSearchAttributes

from contextunity.core import codec, context
from contextunity.core.context import HEADER, TaskContext
from contextunity.core.errors import CodecError

from .converter import data_converter
from .search_attributes import TENANT_ATTRIBUTE, tenant_of
from .tenancy import DEFAULT_TENANT, fair_priority, fairness_key

__all__ = ["ContextInterceptor", "context_headers", "fill_tenant", "workflow_context"]

_LOG = logging.getLogger(__name__)
_CONVERTER = data_converter.payload_converter
_Headers = Mapping[str, Payload]


def context_headers(carried: TaskContext | None = None) -> dict[str, Payload]:
    """Return the Temporal headers of a context, for starts without a client of ours.

    Args:
        carried: the context; default: the current one. An empty context has no header.
    """
    carried = context.current() if carried is None else carried
    payload = _CONVERTER.to_payload(carried)
    return {HEADER: payload} if payload.data else {}


class ContextInterceptor(client.Interceptor, worker.Interceptor):
    """Sends the current context with outgoing requests, and restores it for incoming ones.

    - A workflow has the context of its start, plus `<task queue>:<workflow type>` once per chain of runs. Without a
      trace_id, the id of the chain's first run is used. The tenant that the workflow is bound to overrides the
      header's.
    - A signal, query or update runs in its own context if it has one, otherwise in the workflow's, and always for the
      workflow's tenant.
    - An activity adds `<task queue>:<activity type>`; a Nexus operation adds its service and name.
    - A child workflow is bound to its parent's tenant, unless it is given another.
    - What a workflow schedules waits under the fairness key of its tenant.
    """

    def __init__(self) -> None:
        context.fall_back_on(_of_running_workflow)

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        """Make the client send the current context."""
        return _ClientOutbound(next)

    def intercept_activity(self, next: worker.ActivityInboundInterceptor) -> worker.ActivityInboundInterceptor:
        """Run activities in the context of their start."""
        return _ActivityInbound(next)

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[worker.WorkflowInboundInterceptor]:
        """Run workflows and their handlers in the context of their caller."""
        return _WorkflowInbound

    def intercept_nexus_operation(
        self, next: worker.NexusOperationInboundInterceptor
    ) -> worker.NexusOperationInboundInterceptor:
        """Run Nexus operations in the context of their caller."""
        return _NexusInbound(next)


class _ClientOutbound(client.OutboundInterceptor):
    async def start_workflow(self, input: client.StartWorkflowInput) -> client.WorkflowHandle[Any, Any]:
        input.headers = _with_context(input.headers)
        return await super().start_workflow(input)

    async def signal_workflow(self, input: client.SignalWorkflowInput) -> None:
        input.headers = _with_context(input.headers)
        await super().signal_workflow(input)

    async def query_workflow(self, input: client.QueryWorkflowInput) -> Any:
        input.headers = _with_context(input.headers)
        return await super().query_workflow(input)

    async def start_workflow_update(self, input: client.StartWorkflowUpdateInput) -> client.WorkflowUpdateHandle[Any]:
        input.headers = _with_context(input.headers)
        return await super().start_workflow_update(input)

    async def start_update_with_start_workflow(
        self, input: client.StartWorkflowUpdateWithStartInput
    ) -> client.WorkflowUpdateHandle[Any]:
        for part in (input.start_workflow_input, input.update_workflow_input):
            part.headers = _with_context(part.headers)
        return await super().start_update_with_start_workflow(input)

    async def start_activity(self, input: client.StartActivityInput) -> client.ActivityHandle[Any]:
        input.headers = _with_context(input.headers)
        return await super().start_activity(input)

    async def create_schedule(self, input: client.CreateScheduleInput) -> client.ScheduleHandle:
        action = input.schedule.action
        if isinstance(action, client.ScheduleActionStartWorkflow):
            # Each run has its own trace and unit, not those of the registration.
            lasting = dataclasses.replace(context.current(), trace_id="", unit_id="")
            action = copy.copy(action)
            action.headers = {**context_headers(lasting), **(action.headers or {})}
            input.schedule = dataclasses.replace(input.schedule, action=action)
        return await super().create_schedule(input)


class _WorkflowInbound(worker.WorkflowInboundInterceptor):
    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        # The SDK's own functions do not work before this has returned.
        self._context = workflow_context(outbound.info())
        super().init(_WorkflowOutbound(outbound, self._context))

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:
        context.adopt(self._context)
        _received(input.headers)  # Log a header that cannot be decoded.
        return await super().execute_workflow(input)

    async def handle_signal(self, input: worker.HandleSignalInput) -> None:
        context.adopt(self._of_caller(input.headers))
        await super().handle_signal(input)

    async def handle_query(self, input: worker.HandleQueryInput) -> Any:
        context.adopt(self._of_caller(input.headers))
        return await super().handle_query(input)

    def handle_update_validator(self, input: worker.HandleUpdateInput) -> None:
        context.adopt(self._of_caller(input.headers))
        super().handle_update_validator(input)

    async def handle_update_handler(self, input: worker.HandleUpdateInput) -> Any:
        context.adopt(self._of_caller(input.headers))
        return await super().handle_update_handler(input)

    def _of_caller(self, headers: _Headers) -> TaskContext:
        sent = _received(headers)
        if sent is None:
            return self._context
        handled = context.extended(sent, _label(workflow.info()))
        # Whoever the caller is, a workflow works for its own tenant.
        handled.tenant_id = self._context.tenant_id or sent.tenant_id
        return handled


class _WorkflowOutbound(worker.WorkflowOutboundInterceptor):
    def __init__(self, next: worker.WorkflowOutboundInterceptor, of_workflow: TaskContext) -> None:
        super().__init__(next)
        self._context = of_workflow

    def start_activity(self, input: worker.StartActivityInput) -> workflow.ActivityHandle[Any]:
        input.headers = _with_context(input.headers)
        input.priority = _fair(input.priority, self._context.tenant_id)
        return super().start_activity(input)

    def start_local_activity(self, input: worker.StartLocalActivityInput) -> workflow.ActivityHandle[Any]:
        input.headers = _with_context(input.headers)
        return super().start_local_activity(input)

    async def start_child_workflow(
        self, input: worker.StartChildWorkflowInput
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        input.headers = _with_context(input.headers)
        _inherit_tenant(input)
        input.priority = _fair(input.priority, _tenant_of_child(input) or self._context.tenant_id)
        return await super().start_child_workflow(input)

    async def signal_child_workflow(self, input: worker.SignalChildWorkflowInput) -> None:
        input.headers = _with_context(input.headers)
        await super().signal_child_workflow(input)

    async def signal_external_workflow(self, input: worker.SignalExternalWorkflowInput) -> None:
        input.headers = _with_context(input.headers)
        await super().signal_external_workflow(input)

    async def start_nexus_operation(self, input: Any) -> Any:
        # Nexus headers are text.
        sent = base64.b64encode(codec.encode(context.current())).decode()
        input.headers = {HEADER: sent, **(input.headers or {})}
        return await super().start_nexus_operation(input)

    def continue_as_new(self, input: worker.ContinueAsNewInput) -> NoReturn:
        input.headers = {**context_headers(self._context), **input.headers}
        super().continue_as_new(input)


class _ActivityInbound(worker.ActivityInboundInterceptor):
    async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
        info = activity.info()
        # Keep the context until the task ends, so that the SDK's logs of the outcome have it too.
        sent = _received(input.headers) or TaskContext()
        context.adopt(context.extended(sent, f"{info.task_queue}:{info.activity_type}"))
        return await super().execute_activity(input)


class _NexusInbound(worker.NexusOperationInboundInterceptor):
    async def execute_nexus_operation_start(
        self, input: worker.ExecuteNexusOperationStartInput
    ) -> nexusrpc.handler.StartOperationResultSync[Any] | nexusrpc.handler.StartOperationResultAsync:
        sent = _of_nexus(input.ctx.headers) or TaskContext()
        label = f"{nexus.info().task_queue}:{input.ctx.service}/{input.ctx.operation}"
        context.adopt(context.extended(sent, label))
        return await super().execute_nexus_operation_start(input)


def _with_context(headers: _Headers) -> _Headers:
    """Return the headers with the current context, unless the caller set that header."""
    return {**context_headers(), **headers}


def _read(headers: _Headers) -> TaskContext | None:
    payload = headers.get(HEADER)
    if payload is None:
        return None
    found: TaskContext = _CONVERTER.from_payload(payload, TaskContext)
    return found


def _received(headers: _Headers) -> TaskContext | None:
    try:
        return _read(headers)
    except CodecError as error:
        # The work itself does not need the header.
        _LOG.warning("the header %s cannot be decoded, so the work continues without its context: %s", HEADER, error)
        return None


def _of_nexus(headers: Mapping[str, str]) -> TaskContext | None:
    text = headers.get(HEADER)
    if text is None:
        return None
    try:
        return codec.decode(TaskContext, base64.b64decode(text, validate=True))
    except (CodecError, binascii.Error) as error:
        _LOG.warning("the header %s cannot be decoded, so the operation runs without its context: %s", HEADER, error)
        return None


def workflow_context(info: workflow.Info) -> TaskContext:
    """Return the context that a workflow's code runs in; see `ContextInterceptor`."""
    try:
        sent = _read(info.headers) or TaskContext()
    except CodecError:
        sent = TaskContext()
    label = _label(info)
    # A chain of runs may repeat several workflow types.
    come_by_before = info.continued_run_id is not None and label in sent.provenance
    own = dataclasses.replace(sent) if come_by_before else context.extended(sent, label)
    own.trace_id = own.trace_id or info.first_execution_run_id
    own.tenant_id = tenant_of(info.typed_search_attributes) or own.tenant_id
    return own


def _of_running_workflow() -> TaskContext | None:
    """Return the context of workflow code outside of asyncio tasks; None elsewhere."""
    if not workflow.in_workflow():
        return None
    try:
        return workflow_context(workflow.info())
    except AttributeError:
        return None  # The SDK is still creating the workflow, and an interceptor logs meanwhile.


_TENANT_FIELD = "tenant_id"
_FILLED = "contextunity-tenant"
"""Patch id of runs whose tenant is filled in; older runs have no tenant in a replay either."""


def fill_tenant(argument: object) -> None:
    """Fill in the tenant of a workflow's input if it is empty, as the service does for starts.

    Called in a workflow before its code runs: starts from Temporal's command line or web UI do not pass the
    service.
    """
    if not isinstance(argument, betterproto2.Message) or not workflow.in_workflow():
        return
    if getattr(argument, _TENANT_FIELD, None) == "" and workflow.patched(_FILLED):
        # The class is generated, so type checkers do not know the field.
        setattr(argument, _TENANT_FIELD, workflow_context(workflow.info()).tenant_id or DEFAULT_TENANT)


def _label(info: workflow.Info) -> str:
    return f"{info.task_queue}:{info.workflow_type}"


def _fair(priority: Priority, tenant_id: str) -> Priority:
    """Return the priority of what a workflow schedules for a tenant.

    Without a priority, Temporal inherits the workflow's, so a key is only sent if it differs: the contract has its own,
    a child has another tenant, or the workflow was started without the service.
    """
    if not tenant_id:
        return priority
    inherited = workflow.info().priority.fairness_key
    key = fairness_key(tenant_id)
    if (priority.fairness_key or inherited) == key:
        return priority
    return fair_priority(tenant_id, priority) or priority


def _tenant_of_child(input: worker.StartChildWorkflowInput) -> str:
    given = input.search_attributes
    if isinstance(given, TypedSearchAttributes):
        return tenant_of(given)
    values = (given or {}).get(TENANT_ATTRIBUTE.name) or ()
    return str(next(iter(values), ""))


def _inherit_tenant(input: worker.StartChildWorkflowInput) -> None:
    # Only if the server accepted it for the parent: a namespace without the attribute would reject the child.
    tenant = tenant_of(workflow.info().typed_search_attributes)
    given = input.search_attributes
    if not tenant:
        return
    if given is None or isinstance(given, TypedSearchAttributes):
        pairs: list[SearchAttributePair[Any]] = list(given or ())
        if all(pair.key.name != TENANT_ATTRIBUTE.name for pair in pairs):
            input.search_attributes = TypedSearchAttributes([*pairs, SearchAttributePair(TENANT_ATTRIBUTE, tenant)])
    else:
        input.search_attributes = {TENANT_ATTRIBUTE.name: [tenant], **given}
