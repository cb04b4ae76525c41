"""Requests of a start that are filled in already, as far as the contract fills them in."""

from __future__ import annotations

import json
from typing import Any

from contextunity.gen.contextunity.worker import TaskContext
from temporalio import common, converter
from temporalio.api.common.v1 import Payload, Priority
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy as Conflict
from temporalio.api.workflow.v1 import OnConflictOptions
from temporalio.api.workflowservice.v1 import StartWorkflowExecutionRequest

from contextunity.core import codec
from contextunity.core.context import HEADER
from contextunity.worker.tenancy import TENANT_ATTRIBUTE, UNIT_ATTRIBUTE, bound_attributes, fairness_key
from python_temporal.codegen import text
from python_temporal.contract import WorkflowContract

from ._call import Call, Engine
from ._inputs import StartRequest

__all__ = ["Blanks"]

_CONTEXT = codec.full_name(TaskContext)
_TEXT = json.encoder.encode_basestring_ascii
"""A text as JSON, without the search for an encoder."""


class Blanks:
    """Makes requests of starts.

    Args:
        engine: whose client they are for.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._client = engine, engine.client
        # Bytes, because reading a message takes half the time of copying one.
        self._blanks = dict[WorkflowContract, bytes]()

    async def filled(self, call: Call, request: StartRequest, request_id: str) -> StartWorkflowExecutionRequest:
        """The request that starts what a call asks for.

        Args:
            call: that asks.
            request: what it asks for.
            request_id: what the Temporal server knows a repetition by.
        """
        contract = request.contract
        blank = self._blanks.get(contract)
        if blank is None:
            blank = self._blanks[contract] = self._blank(contract)
        wanted = StartWorkflowExecutionRequest.FromString(blank)
        # Units choose their own ids; with the tenant in it, none of them can take the id of another tenant's task.
        wanted.workflow_id = request.workflow_id or (
            f"{contract.name}/{text(request.tenant_id, 'tenant_id', contract.name, '/')}/{call.request_id}"
        )
        wanted.request_id = request_id
        wanted.task_queue.name = request.task_queue
        if request.execution_timeout is not None:
            wanted.workflow_execution_timeout.FromTimedelta(request.execution_timeout)
        if request.tenant_id:
            # Activities, children and the runs that it continues as inherit it. As in `fair_priority`.
            wanted.priority.fairness_key = fairness_key(request.tenant_id)
        wanted.header.fields[HEADER].data = call.context_message(request.tenant_id).SerializeToString()
        if contract.search_attributes is None:
            fields = wanted.search_attributes.indexed_fields
            for name, value in ((TENANT_ATTRIBUTE.name, request.tenant_id), (UNIT_ATTRIBUTE.name, call.unit_id)):
                if value:
                    fields[name].data = _TEXT(value).encode()
                else:
                    del fields[name]
        else:
            others = contract.search_attributes(request.input)
            attributes = bound_attributes(request.tenant_id, call.unit_id, others)
            converter.encode_search_attributes(attributes, wanted.search_attributes)
        if request.message is not None:
            if self._engine.has_plain_payloads:
                wanted.input.payloads[0].data = codec.serialize(request.message)
            else:
                del wanted.input.payloads[:]
                wanted.input.payloads.extend(await self._client.data_converter.encode([request.input]))
        return wanted

    def _blank(self, contract: WorkflowContract) -> bytes:
        """What all starts of a workflow have in common; where each has data of its own, it is left out."""
        blank = StartWorkflowExecutionRequest(
            namespace=self._client.namespace,
            identity=self._client.identity,
            workflow_id_reuse_policy=_number(contract.id_reuse_policy),
            workflow_id_conflict_policy=_number(contract.id_conflict_policy),
        )
        blank.workflow_type.name = contract.name
        if contract.input_type is not None:
            _write_metadata(
                blank.input.payloads.add(), "binary/protobuf", messageType=codec.full_name(contract.input_type)
            )
        for name, timeout in (
            ("workflow_execution_timeout", contract.execution_timeout),
            ("workflow_run_timeout", contract.run_timeout),
            ("workflow_task_timeout", contract.task_timeout),
        ):
            if timeout is not None:
                getattr(blank, name).FromTimedelta(timeout)
        if contract.retry_policy is not None:
            contract.retry_policy.apply_to_proto(blank.retry_policy)
        if contract.priority is not None:
            blank.priority.CopyFrom(_priority(contract.priority))
        if contract.search_attributes is None:
            fields = blank.search_attributes.indexed_fields
            for key in (TENANT_ATTRIBUTE, UNIT_ATTRIBUTE):
                _write_metadata(fields[key.name], "json/plain", type="Keyword")
        _write_metadata(blank.header.fields[HEADER], "binary/protobuf", messageType=_CONTEXT)
        if blank.workflow_id_conflict_policy == Conflict.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING:
            blank.on_conflict_options.CopyFrom(OnConflictOptions(attach_request_id=True))
        return blank.SerializeToString()


def _write_metadata(payload: Payload, encoding: str, **others: str) -> None:
    for name, value in {"encoding": encoding, **others}.items():
        payload.metadata[name] = value.encode()


def _number(policy: Any) -> Any:
    """The SDK's enums have the numbers of the API's."""
    return 0 if policy is None else int(policy)


def _priority(priority: common.Priority) -> Priority:
    return Priority(
        priority_key=priority.priority_key or 0,
        fairness_key=priority.fairness_key or "",
        fairness_weight=priority.fairness_weight or 0.0,
    )
