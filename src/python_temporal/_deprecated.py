"""Activities and workflows that their proto marks as deprecated: type checkers and editors report calls of them.

At run time a call only logs, because a warning turned into an error would fail the workflow task again and again.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from temporalio import workflow
from typing_extensions import Unpack, deprecated

from .activities import Activity, EmptyActivity
from .child_workflows import ChildHandle, EmptyWorkflow, ExternalHandle, Workflow
from .options import ActivityOptions, ChildOptions, LocalActivityOptions

__all__ = ["DeprecatedActivity", "DeprecatedEmptyActivity", "DeprecatedEmptyWorkflow", "DeprecatedWorkflow"]

InT = TypeVar("InT")
OutT = TypeVar("OutT")
ChildT = TypeVar("ChildT", bound="ChildHandle[Any]")
ExternalT = TypeVar("ExternalT", bound="ExternalHandle")

# Spelled out each time, because type checkers require a literal.


class DeprecatedActivity(Activity[InT, OutT]):
    """An activity with an input whose calls are deprecated. Implementing it is not: old workflows still call it."""

    @deprecated("its proto marks this activity as deprecated", category=None)
    async def __call__(self, request: InT, **options: Unpack[ActivityOptions]) -> OutT:
        """Run the activity, and return its result."""
        return await super().__call__(request, **options)

    @deprecated("its proto marks this activity as deprecated", category=None)
    def start(self, request: InT, **options: Unpack[ActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity, and return an asyncio task with its result."""
        return super().start(request, **options)

    @deprecated("its proto marks this activity as deprecated", category=None)
    async def local(self, request: InT, **options: Unpack[LocalActivityOptions]) -> OutT:
        """Run the activity in the workflow's own worker, and return its result."""
        return await super().local(request, **options)

    @deprecated("its proto marks this activity as deprecated", category=None)
    def start_local(self, request: InT, **options: Unpack[LocalActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity in the workflow's own worker."""
        return super().start_local(request, **options)


class DeprecatedEmptyActivity(EmptyActivity[OutT]):
    """An activity without input whose calls are deprecated."""

    @deprecated("its proto marks this activity as deprecated", category=None)
    async def __call__(self, **options: Unpack[ActivityOptions]) -> OutT:
        """Run the activity, and return its result."""
        return await super().__call__(**options)

    @deprecated("its proto marks this activity as deprecated", category=None)
    def start(self, **options: Unpack[ActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity, and return an asyncio task with its result."""
        return super().start(**options)

    @deprecated("its proto marks this activity as deprecated", category=None)
    async def local(self, **options: Unpack[LocalActivityOptions]) -> OutT:
        """Run the activity in the workflow's own worker, and return its result."""
        return await super().local(**options)

    @deprecated("its proto marks this activity as deprecated", category=None)
    def start_local(self, **options: Unpack[LocalActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity in the workflow's own worker."""
        return super().start_local(**options)


class DeprecatedWorkflow(Workflow[InT, OutT, ChildT, ExternalT], Generic[InT, OutT, ChildT, ExternalT]):
    """A workflow with an input whose starts are deprecated. Running ones accept signals, and may continue as new."""

    @deprecated("its proto marks this workflow as deprecated", category=None)
    async def start_child(self, request: InT, **options: Unpack[ChildOptions]) -> ChildT:
        """Start it as a child, and return as soon as it runs."""
        return await super().start_child(request, **options)

    @deprecated("its proto marks this workflow as deprecated", category=None)
    async def execute_child(self, request: InT, **options: Unpack[ChildOptions]) -> OutT:
        """Run it as a child, and return its result."""
        return await super().execute_child(request, **options)


class DeprecatedEmptyWorkflow(EmptyWorkflow[OutT, ChildT, ExternalT], Generic[OutT, ChildT, ExternalT]):
    """A workflow without input whose starts are deprecated."""

    @deprecated("its proto marks this workflow as deprecated", category=None)
    async def start_child(self, **options: Unpack[ChildOptions]) -> ChildT:
        """Start it as a child, and return as soon as it runs."""
        return await super().start_child(**options)

    @deprecated("its proto marks this workflow as deprecated", category=None)
    async def execute_child(self, **options: Unpack[ChildOptions]) -> OutT:
        """Run it as a child, and return its result."""
        return await super().execute_child(**options)
