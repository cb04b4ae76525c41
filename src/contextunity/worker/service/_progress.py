"""A task's progress, by the query that the contracts agree on for it, and payloads as packed messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from contextunity.gen.google.protobuf import Any as PackedMessage
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import QueryRejectCondition
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.workflowservice.v1 import QueryWorkflowRequest
from temporalio.service import RPCError, RPCStatusCode

from contextunity.core import codec
from contextunity.core.errors import CodecError
from python_temporal.contract import QueryContract, WorkflowContract

from ._call import Engine

__all__ = ["Progress", "ask_progress", "notice_in", "packed", "progress_query"]

_TIMEOUT = timedelta(seconds=2)
_NOTICE = "incomplete_detail"
_METHOD = "GetProgress"
"""Proto name of the query that tells a workflow's progress, by convention of the contracts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What came of asking.

    Attributes:
        answered: whether a worker answered in time, if only that it has nothing to tell.
        told: what it told.
    """

    answered: bool
    told: PackedMessage | None = None


def progress_query(contract: WorkflowContract | None) -> QueryContract[Any] | None:
    """The query that tells the progress of a contract's workflows; None where it has none."""
    binding = contract.queries.get(_METHOD) if contract else None
    query = binding.contract if binding else None
    return query if query is not None and query.input_type is None and query.output_type is not None else None


async def ask_progress(engine: Engine, workflow_id: str, run_id: str, query: QueryContract[Any]) -> Progress:
    """Asks a run for its progress; one that has ended is not asked, since its history would be replayed for that."""
    request = QueryWorkflowRequest(
        namespace=engine.client.namespace,
        execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        query=WorkflowQuery(query_type=query.name),
        query_reject_condition=QueryRejectCondition.QUERY_REJECT_CONDITION_NOT_OPEN,
    )
    try:
        answer = await engine.client.workflow_service.query_workflow(request, retry=True, timeout=_TIMEOUT)
        return Progress(answered=True, told=await packed(engine, answer.query_result.payloads, query.output_type))
    except CodecError:
        return Progress(answered=True)
    except RPCError as error:
        # The server says so where the workflow answered with an error.
        return Progress(answered=error.status is RPCStatusCode.INVALID_ARGUMENT)


async def packed(engine: Engine, payloads: Sequence[Payload], output_type: type[Any] | None) -> PackedMessage | None:
    """The message in the first of some payloads; None where there is none.

    Args:
        engine: whose client converts it.
        payloads: as Temporal has them.
        output_type: dataclass of the message; None where nothing is to be told.

    Raises:
        CodecError: it is no such message.
    """
    if output_type is None or not payloads:
        return None
    payload = payloads[0]
    name = codec.full_name(output_type)
    if engine.has_plain_payloads and _is_message(payload, name):
        # What is packed is the same bytes, once it is certain that they can be read.
        codec.decode(output_type, payload.data)
        return PackedMessage(type_url=codec.type_url(name), value=payload.data)
    (message, *_) = await engine.client.data_converter.decode(payloads, [output_type])
    return codec.pack_any(message)


def notice_in(told: PackedMessage | None, output_type: type[Any] | None) -> str:
    """What a progress or result has to say of being incomplete; empty where it has nothing.

    By convention of the contracts, as `GetProgress` is: a text field `incomplete_detail`.
    """
    if told is None or not hasattr(output_type, "__dataclass_fields__"):
        return ""
    assert output_type is not None
    if _NOTICE not in output_type.__dataclass_fields__:
        return ""
    text = getattr(codec.decode(output_type, told.value), _NOTICE)
    return f"incomplete: {text}" if isinstance(text, str) and text else ""


def _is_message(payload: Payload, name: str) -> bool:
    metadata = payload.metadata
    return metadata.get("encoding") == b"binary/protobuf" and metadata.get("messageType") == name.encode()
