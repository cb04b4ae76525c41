"""Carries the context of the work at hand through Temporal: from client to workflow to activity, child and next run.

What is sent has the current context in a header. What is received has it as its current context, with its own step
added to the provenance. Nothing of it depends on time or chance, so a replay finds the same.
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

__all__ = ["ContextInterceptor", "context_headers", "fill_tenant"]

_LOG = logging.getLogger(__name__)
_CONVERTER = data_converter.payload_converter
_Headers = Mapping[str, Payload]


def context_headers(carried: TaskContext | None = None) -> dict[str, Payload]:
    """Temporal headers that carry a context, for what is started without a client of ours.

    Args:
        carried: the context; the current one unless given. One with nothing set makes no header.
    """
    carried = context.current() if carried is None else carried
    payload = _CONVERTER.to_payload(carried)
    return {HEADER: payload} if payload.data else {}


class ContextInterceptor(client.Interceptor, worker.Interceptor):
    """Puts the current context into what a client, a workflow or an activity sends, and takes it up where it arrives.

    - A workflow's context is the one it was started with, extended by `<task queue>:<workflow type>` once in a chain of
      runs. Where nobody gave a trace_id, the id of the chain's first run is it. The tenant that the workflow is bound
      to counts before the header's.
    - A signal, query or update with a context of its own is handled in that one, for the workflow's tenant; others in
      the workflow's.
    - An activity's is extended by `<task queue>:<activity type>`; an operation's of Nexus by its service and name.
    - A child workflow is bound to its parent's tenant, unless it is given another.
    - What a workflow schedules waits under the fairness key of the tenant that it is done for.
    """

    def __init__(self) -> None:
        context.fall_back_on(_of_running_workflow)

    def intercept_client(self, next: client.OutboundInterceptor) -> client.OutboundInterceptor:
        """Has the client send the current context."""
        return _ClientOutbound(next)

    def intercept_activity(self, next: worker.ActivityInboundInterceptor) -> worker.ActivityInboundInterceptor:
        """Has activities run in the context that they were started with."""
        return _ActivityInbound(next)

    def workflow_interceptor_class(
        self, input: worker.WorkflowInterceptorClassInput
    ) -> type[worker.WorkflowInboundInterceptor]:
        """Has workflows and their handlers run in the context that they were called with."""
        return _WorkflowInbound

    def intercept_nexus_operation(
        self, next: worker.NexusOperationInboundInterceptor
    ) -> worker.NexusOperationInboundInterceptor:
        """Has operations of Nexus run in the context that they were called with."""
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
            # Each run is a chain of work of its own: neither the trace nor the unit of the registration is its.
            lasting = dataclasses.replace(context.current(), trace_id="", unit_id="")
            action = copy.copy(action)
            action.headers = {**context_headers(lasting), **(action.headers or {})}
            input.schedule = dataclasses.replace(input.schedule, action=action)
        return await super().create_schedule(input)


class _WorkflowInbound(worker.WorkflowInboundInterceptor):
    def init(self, outbound: worker.WorkflowOutboundInterceptor) -> None:
        # The SDK's own functions do not work before this is over.
        self._context = _of_workflow(outbound.info())
        super().init(_WorkflowOutbound(outbound, self._context))

    async def execute_workflow(self, input: worker.ExecuteWorkflowInput) -> Any:
        context.adopt(self._context)
        _received(input.headers)  # Tells where the header cannot be read.
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
        # Whoever asks, what a workflow does it does for its own tenant.
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
        # Nexus has texts for headers.
        sent = base64.b64encode(codec.encode(context.current())).decode()
        input.headers = {HEADER: sent, **(input.headers or {})}
        return await super().start_nexus_operation(input)

    def continue_as_new(self, input: worker.ContinueAsNewInput) -> NoReturn:
        input.headers = {**context_headers(self._context), **input.headers}
        super().continue_as_new(input)


class _ActivityInbound(worker.ActivityInboundInterceptor):
    async def execute_activity(self, input: worker.ExecuteActivityInput) -> Any:
        info = activity.info()
        # Until the end of the task, so that what the SDK logs about the outcome has the context too.
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
    """Headers with the current context; one that the caller put there himself stays."""
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
        # What the work itself is about is not harmed by it.
        _LOG.warning("the header %s cannot be read, so the work goes on without its context: %s", HEADER, error)
        return None


def _of_nexus(headers: Mapping[str, str]) -> TaskContext | None:
    text = headers.get(HEADER)
    if text is None:
        return None
    try:
        return codec.decode(TaskContext, base64.b64decode(text, validate=True))
    except (CodecError, binascii.Error) as error:
        _LOG.warning("the header %s cannot be read, so the operation goes on without its context: %s", HEADER, error)
        return None


def _of_workflow(info: workflow.Info) -> TaskContext:
    try:
        sent = _read(info.headers) or TaskContext()
    except CodecError:
        sent = TaskContext()
    label = _label(info)
    # A chain of runs may go through several types of workflows again and again.
    come_by_before = info.continued_run_id is not None and label in sent.provenance
    own = dataclasses.replace(sent) if come_by_before else context.extended(sent, label)
    own.trace_id = own.trace_id or info.first_execution_run_id
    own.tenant_id = tenant_of(info.typed_search_attributes) or own.tenant_id
    return own


def _of_running_workflow() -> TaskContext | None:
    """The context of workflow code outside of tasks; None elsewhere."""
    if not workflow.in_workflow():
        return None
    try:
        return _of_workflow(workflow.info())
    except AttributeError:
        return None  # The SDK is still making the workflow; an interceptor that logs meanwhile gets here.


_TENANT_FIELD = "tenant_id"
_FILLED = "contextunity-tenant"
"""Marks runs whose tenant was filled in: those that began before it was have none in a replay either."""


def fill_tenant(argument: object) -> None:
    """Fills in the tenant of a workflow's input that says none, as the service does where a start comes through it.

    Called in a workflow, before its code sees the input: what people start at Temporal's command line or in its web UI
    has not been through the service.
    """
    if not isinstance(argument, betterproto2.Message) or not workflow.in_workflow():
        return
    if getattr(argument, _TENANT_FIELD, None) == "" and workflow.patched(_FILLED):
        # The class is generated, so its fields are not known here.
        setattr(argument, _TENANT_FIELD, _of_workflow(workflow.info()).tenant_id or DEFAULT_TENANT)


def _label(info: workflow.Info) -> str:
    return f"{info.task_queue}:{info.workflow_type}"


def _fair(priority: Priority, tenant_id: str) -> Priority:
    """The priority of what a workflow schedules for a tenant.

    What says nothing inherits the workflow's, so a key is sent only where that is another: a contract has its own, a
    child is another tenant's, or the workflow was started past the service.
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
    # Only what the server accepted for the parent: a namespace that lacks the attribute would refuse the child.
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
