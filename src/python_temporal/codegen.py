"""The parts of the runtime for generated code; do not use this module elsewhere."""

from __future__ import annotations

from temporalio.client import WorkflowUpdateStage
from temporalio.common import (
    Priority,
    RetryPolicy,
    SearchAttributeKey,
    TypedSearchAttributes,
    VersioningBehavior,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.workflow import ParentClosePolicy

from ._deprecated import DeprecatedActivity, DeprecatedEmptyActivity, DeprecatedEmptyWorkflow, DeprecatedWorkflow
from .activities import Activity, ActivityBase, EmptyActivity
from .child_workflows import ChildHandle, EmptyWorkflow, ExternalHandle, Workflow
from .client import Handle, ServiceClient, UpdateHandle
from .contract import (
    ActivityContract,
    QueryBinding,
    QueryContract,
    ServiceContract,
    SignalBinding,
    SignalContract,
    UpdateBinding,
    UpdateContract,
    WorkflowContract,
)
from .expressions import optional, search_attributes, text
from .options import (
    QueryOptions,
    SignalOptions,
    StartOptions,
    UpdateOptions,
    UpdateWithStartOptions,
)
from .workflows import WorkflowBase

__all__ = [
    "Activity",
    "ActivityBase",
    "ActivityContract",
    "ChildHandle",
    "DeprecatedActivity",
    "DeprecatedEmptyActivity",
    "DeprecatedEmptyWorkflow",
    "DeprecatedWorkflow",
    "EmptyActivity",
    "EmptyWorkflow",
    "ExternalHandle",
    "Handle",
    "ParentClosePolicy",
    "Priority",
    "QueryBinding",
    "QueryContract",
    "QueryOptions",
    "RetryPolicy",
    "SearchAttributeKey",
    "ServiceClient",
    "ServiceContract",
    "SignalBinding",
    "SignalContract",
    "SignalOptions",
    "StartOptions",
    "TypedSearchAttributes",
    "UpdateBinding",
    "UpdateContract",
    "UpdateHandle",
    "UpdateOptions",
    "UpdateWithStartOptions",
    "VersioningBehavior",
    "Workflow",
    "WorkflowBase",
    "WorkflowContract",
    "WorkflowIDConflictPolicy",
    "WorkflowIDReusePolicy",
    "WorkflowUpdateStage",
    "optional",
    "search_attributes",
    "text",
]
