"""How a contract and an input become the arguments of a start."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from temporalio import common, workflow
from typing_extensions import Unpack

from ._model import MethodContract, WorkflowContract
from .errors import ContractError
from .options import ChildOptions, StartOptions

__all__ = ["arguments", "child_arguments", "result_type", "start_arguments"]


def arguments(contract: MethodContract, request: object) -> list[Any]:
    """The input as the SDK's list of arguments: empty for google.protobuf.Empty, which other SDKs do not pass either.

    Raises:
        ContractError: the input is not of the contract's type.
    """
    expected = contract.input_type
    if expected is None:
        if request is not None:
            raise ContractError(f"it takes no input, but was given {type(request).__name__}", contract=contract.name)
        return []
    if not isinstance(request, expected):
        raise ContractError(
            f"its input is a {expected.__name__}, but was given {type(request).__name__}", contract=contract.name
        )
    return [request]


def result_type(contract: MethodContract) -> type[Any]:
    """The type hint for the result. An empty result is left undecoded, so that any peer's way to write it will do."""
    return contract.output_type or common.RawValue


def start_arguments(contract: WorkflowContract, request: object, **options: Unpack[StartOptions]) -> dict[str, Any]:
    """Keyword arguments for `temporalio.client.Client.start_workflow`, all but the workflow's name.

    Args:
        contract: the workflow.
        request: its input; None where the input is google.protobuf.Empty.
        options: explicit options. One that is left out has the contract's value, else the SDK's; None and zero are
            values like any other. Without an `id` and without an expression for it, the id is a new UUID.

    Raises:
        ContractError: the input is of another type, the id expression names a field that is not set, or there is no
            task queue.

    Example:
        handle = await client.start_workflow(contract.name, **start_arguments(contract, request))
    """
    defaults = _workflow_defaults(contract, request, options)
    _put(defaults, "id_conflict_policy", contract.id_conflict_policy)
    if contract.enable_eager_start:
        defaults["request_eager_start"] = True
    merged = {**defaults, **options}
    merged.setdefault("id", str(uuid.uuid4()))
    merged.setdefault("task_queue", contract.task_queue)
    if not merged["task_queue"]:
        raise ContractError("neither it nor its service names a task queue; give task_queue=", contract=contract.name)
    return {"args": arguments(contract, request), "result_type": result_type(contract), **merged}


def child_arguments(
    contract: WorkflowContract, request: object, options: ChildOptions, task_queue: str | None
) -> dict[str, Any]:
    """Keyword arguments for `temporalio.workflow.start_child_workflow`, all but the workflow's name.

    Args:
        contract: the workflow.
        request: its input; None where the input is google.protobuf.Empty.
        options: explicit options.
        task_queue: where it runs unless the options say so; None means on its parent's.
    """
    defaults = _workflow_defaults(contract, request, options)
    _put(defaults, "task_queue", task_queue)
    _put(defaults, "parent_close_policy", contract.parent_close_policy)
    if contract.wait_for_cancellation:
        defaults["cancellation_type"] = workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED
    return {"args": arguments(contract, request), "result_type": result_type(contract), **defaults, **options}


def _workflow_defaults(contract: WorkflowContract, request: object, options: Mapping[str, object]) -> dict[str, Any]:
    """What the contract says about any start. Expressions are evaluated only where their value is wanted."""
    arguments(contract, request)
    defaults = dict[str, Any]()
    if contract.workflow_id is not None and "id" not in options:
        defaults["id"] = contract.workflow_id(request)
    if contract.search_attributes is not None and "search_attributes" not in options:
        defaults["search_attributes"] = contract.search_attributes(request)
    for name in ("execution_timeout", "run_timeout", "task_timeout", "id_reuse_policy", "retry_policy", "priority"):
        _put(defaults, name, getattr(contract, name))
    return defaults


def _put(defaults: dict[str, Any], name: str, value: object) -> None:
    if value is not None:
        defaults[name] = value
