"""Workflows and activities that tell the context they see. The sandbox imports this file anew for each run."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import nexusrpc
import nexusrpc.handler
from temporalio import activity, workflow
from temporalio.common import SearchAttributeKey

from contextunity.core import context

_SOON = timedelta(seconds=30)
_TENANT = SearchAttributeKey.for_keyword("ContextUnityTenant")


def _seen(where: str) -> dict[str, Any]:
    now = context.current()
    return {
        "where": where,
        "trace_id": now.trace_id,
        "tenant_id": now.tenant_id,
        "unit_id": now.unit_id,
        "principal": now.principal,
        "provenance": now.provenance,
    }


@activity.defn
async def look() -> dict[str, Any]:
    activity.logger.info("looking")
    return _seen("activity")


@activity.defn
def look_from_thread() -> dict[str, Any]:
    activity.logger.info("looking from a thread")
    return _seen("thread")


@activity.defn
async def start_another(workflow_id: str) -> dict[str, Any]:
    queue = activity.info().task_queue
    seen: dict[str, Any] = await activity.client().execute_workflow("Leaf", id=workflow_id, task_queue=queue)
    return seen


@workflow.defn(name="Leaf")
class Leaf:
    @workflow.run
    async def run(self) -> dict[str, Any]:
        workflow.logger.info("leaf")
        tenant = workflow.info().typed_search_attributes.get(_TENANT)
        return {**_seen("leaf"), "bound_to": tenant}


@workflow.defn(name="Chain")
class Chain:
    @workflow.init
    def __init__(self, runs: int, seen: list[Any]) -> None:
        self._in_constructor = _seen("constructor")
        self._in_condition: dict[str, Any] = {}

    @workflow.run
    async def run(self, runs: int, seen: list[Any]) -> list[Any]:
        workflow.logger.info("chain")
        await workflow.wait_condition(self._condition)
        seen += [self._in_constructor, self._in_condition, _seen("workflow")]
        for function in (look, look_from_thread):
            seen.append(await workflow.execute_activity(function, start_to_close_timeout=_SOON))
        seen.append(await workflow.execute_local_activity(look, start_to_close_timeout=_SOON))
        seen.append(await workflow.execute_child_workflow("Leaf", id=f"{workflow.info().run_id}/child"))
        if runs > 1:
            workflow.continue_as_new(args=[runs - 1, seen])
        tenant = workflow.info().typed_search_attributes.get(_TENANT)
        return [*seen, {**_seen("end"), "bound_to": tenant}]

    def _condition(self) -> bool:
        self._in_condition = _seen("condition")
        return True


@workflow.defn(name="Starter")
class Starter:
    @workflow.run
    async def run(self) -> dict[str, Any]:
        seen: dict[str, Any] = await workflow.execute_activity(
            "start_another", f"{workflow.info().run_id}/other", start_to_close_timeout=_SOON
        )
        return seen


@workflow.defn(name="Listener")
class Listener:
    def __init__(self) -> None:
        self._seen: list[dict[str, Any]] = []

    @workflow.run
    async def run(self) -> list[dict[str, Any]]:
        await workflow.wait_condition(lambda: self._seen[-1:] != [] and self._seen[-1]["where"] == "end")
        await workflow.wait_condition(workflow.all_handlers_finished)
        return [*self._seen, _seen("workflow")]

    @workflow.signal
    async def hear(self, where: str) -> None:
        self._seen.append(_seen(where))
        if where != "end":
            self._seen.append(await workflow.execute_activity(look, start_to_close_timeout=_SOON))

    @workflow.update
    async def ask(self) -> dict[str, Any]:
        return _seen("update")

    @workflow.query
    def peek(self) -> dict[str, Any]:
        return _seen("query")


@workflow.defn(name="Caller")
class Caller:
    @workflow.run
    async def run(self, workflow_id: str) -> None:
        await workflow.get_external_workflow_handle(workflow_id).signal("hear", "end")


@workflow.defn(name="Parent")
class Parent:
    @workflow.run
    async def run(self) -> list[dict[str, Any]]:
        child = await workflow.start_child_workflow("Listener", id=f"{workflow.info().run_id}/child")
        await child.signal("hear", "end")
        seen: list[dict[str, Any]] = await child
        return seen


@nexusrpc.service(name="Desk")
class Desk:
    look: nexusrpc.Operation[str, dict[str, Any]]


@nexusrpc.handler.service_handler(service=Desk)
class DeskHandler:
    @nexusrpc.handler.sync_operation
    async def look(self, _: nexusrpc.handler.StartOperationContext, where: str) -> dict[str, Any]:
        return _seen(where)


@workflow.defn(name="Visitor")
class Visitor:
    @workflow.run
    async def run(self, endpoint: str) -> dict[str, Any]:
        desk = workflow.create_nexus_client(service=Desk, endpoint=endpoint)
        return await desk.execute_operation(Desk.look, "desk")


WORKFLOWS = [Parent, Visitor, Caller, Chain, Leaf, Listener, Starter]
ACTIVITIES = [look, look_from_thread, start_another]
