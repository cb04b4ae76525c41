"""Options of calls; an omitted one has the contract's value, or else the SDK's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

from temporalio import common, workflow
from temporalio.client import WorkflowUpdateStage

__all__ = [
    "ActivityOptions",
    "ChildOptions",
    "ContinueOptions",
    "LocalActivityOptions",
    "QueryOptions",
    "RpcOptions",
    "SignalOptions",
    "StartOptions",
    "UpdateOptions",
    "UpdateWithStartOptions",
]


class RpcOptions(TypedDict, total=False):
    """Options of any call to the Temporal server."""

    rpc_metadata: Mapping[str, str | bytes]
    rpc_timeout: timedelta | None


class _WorkflowOptions(TypedDict, total=False):
    """Common options of starting a workflow and starting a child."""

    id: str
    task_queue: str
    execution_timeout: timedelta | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    id_reuse_policy: common.WorkflowIDReusePolicy
    retry_policy: common.RetryPolicy | None
    memo: Mapping[str, Any] | None
    search_attributes: common.TypedSearchAttributes | None
    static_summary: str | None
    static_details: str | None
    priority: common.Priority
    versioning_override: common.VersioningOverride | None


class StartOptions(_WorkflowOptions, RpcOptions, total=False):
    """Options of a workflow's start by a client."""

    id_conflict_policy: common.WorkflowIDConflictPolicy
    start_delay: timedelta | None
    request_eager_start: bool


class UpdateWithStartOptions(_WorkflowOptions, RpcOptions, total=False):
    """Options of an update that starts its workflow if none is running."""

    id_conflict_policy: common.WorkflowIDConflictPolicy
    start_delay: timedelta | None
    update_id: str
    wait_for_stage: WorkflowUpdateStage


class ChildOptions(_WorkflowOptions, total=False):
    """Options of a child workflow."""

    cancellation_type: workflow.ChildWorkflowCancellationType
    parent_close_policy: workflow.ParentClosePolicy


class ContinueOptions(TypedDict, total=False):
    """Options of continue-as-new; omitted ones are those of the current run."""

    task_queue: str | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    backoff_start_interval: timedelta | None
    retry_policy: common.RetryPolicy | None
    memo: Mapping[str, Any] | None
    search_attributes: common.TypedSearchAttributes | None


class ActivityOptions(TypedDict, total=False):
    """Options of an activity call."""

    task_queue: str | None
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    retry_policy: common.RetryPolicy | None
    cancellation_type: workflow.ActivityCancellationType
    activity_id: str | None
    summary: str | None
    priority: common.Priority
    event_groups: Sequence[workflow.EventGroup] | None


class LocalActivityOptions(TypedDict, total=False):
    """Options of a local activity call."""

    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    retry_policy: common.RetryPolicy | None
    local_retry_threshold: timedelta | None
    cancellation_type: workflow.ActivityCancellationType
    activity_id: str | None
    summary: str | None
    event_groups: Sequence[workflow.EventGroup] | None


class QueryOptions(RpcOptions, total=False):
    """Options of a query."""

    reject_condition: common.QueryRejectCondition | None


class SignalOptions(RpcOptions, total=False):
    """Options of a signal by a client."""


class UpdateOptions(RpcOptions, total=False):
    """Options of an update."""

    update_id: str
