"""The whole life of a task through either client, on the real service."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import betterproto2
import pytest
from contextunity.gen.contextunity.harvest.v1 import (
    HarvestProgress,
    HarvestRequest,
    HarvestResponse,
    HarvestStage,
    SetPageSizeRequest,
    SetPageSizeResponse,
)
from contextunity.gen.contextunity.worker import ScheduleEntry, TaskState

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.worker.client import TaskFailedError, WorkerServiceError, plain_value

from .conftest import collect, settle

_HARVEST = {"supplier_code": "camping-trade", "max_products": 20}
_SLOW = {"supplier_code": "camping-trade", "page_size": 1}


async def test_a_task_is_started_watched_and_gives_its_result_plain_or_typed(client: Any, tenant: str) -> None:
    task = await settle(client.start("harvest", _HARVEST))
    assert task.workflow_id == f"harvest/{tenant}/camping-trade"
    assert task.run_id
    answers = await collect(task.watch())
    assert answers[-1].body.status is TaskState.COMPLETED
    assert answers[-1].payload["status"] == "completed"
    assert isinstance(answers[-1].body.result, HarvestResponse)
    assert all(answer.body.status is TaskState.RUNNING for answer in answers[:-1])
    plain = await settle(task.result())
    assert plain["counts"]["synced"] == str((await settle(task.result(HarvestResponse))).counts.synced)
    assert isinstance(await settle(task.result(betterproto2.Message)), HarvestResponse)
    with pytest.raises(CodecError, match=r"it is a contextunity\.harvest\.v1\.HarvestResponse, not a"):
        await settle(task.result(HarvestRequest))


async def test_the_units_of_a_task_are_one_chain_of_work(client: Any) -> None:
    task = await settle(client.start("harvest", _HARVEST))
    assert uuid.UUID(task.trace_id)
    answers = await collect(task.watch())
    assert {answer.unit.trace_id for answer in answers} == {task.trace_id}
    assert answers[0].unit.provenance == ["client:watch_task", "worker:watch_task"]


async def test_the_typed_message_alone_tells_what_to_start(client: Any, tenant: str) -> None:
    request = HarvestRequest(supplier_code="camping-trade", max_products=20)
    task = await settle(client.start(request))
    assert task.workflow_id == f"harvest/{tenant}/camping-trade"
    with pytest.raises(TypeError, match="takes the input once"):
        await settle(client.start(request, {}))
    await settle(task.result())


async def test_the_same_unit_gives_the_same_run(client: Any) -> None:
    unit_id = str(uuid.uuid4())
    first = await settle(client.start("harvest", _HARVEST, unit_id=unit_id))
    await settle(first.result())
    again = await settle(client.start("harvest", _HARVEST, unit_id=unit_id))
    other = await settle(client.start("harvest", _HARVEST))
    assert (again.workflow_id, again.run_id) == (first.workflow_id, first.run_id)
    assert other.run_id != first.run_id
    await settle(other.result())


async def test_a_task_is_asked_and_steered_with_plain_or_typed_input(client: Any) -> None:
    task = await settle(client.start("harvest", _SLOW))
    await settle(task.signal("pause"))
    plain = await settle(task.query("get_progress"))
    assert plain["page_size"] in (0, 1)
    typed = await settle(task.query("get_progress", result_type=HarvestProgress))
    assert typed.stage in (HarvestStage.OPENING, HarvestStage.PAUSED)
    assert (await settle(task.update("set_page_size", {"page_size": 7})))["previous_page_size"] in (0, 1)
    answer = await settle(
        task.update("set_page_size", SetPageSizeRequest(page_size=100), result_type=SetPageSizeResponse)
    )
    assert answer.previous_page_size == 7
    status = await settle(task.status())
    assert status.status is TaskState.RUNNING
    assert isinstance(status.progress, HarvestProgress)
    assert status.progress.page_size == 100
    await settle(task.signal("resume"))
    assert (await settle(task.result(HarvestResponse))).counts.fetched > 0


@pytest.mark.parametrize(
    ("way", "state"), [("cancel", TaskState.CANCELLED), ("terminate", TaskState.TERMINATED)], ids=["cancel", "kill"]
)
async def test_a_task_that_is_ended_has_no_result(client: Any, way: str, state: TaskState) -> None:
    task = await settle(client.start("harvest", _SLOW))
    await settle(task.signal("pause"))
    reference = await settle(getattr(task, way)(reason="not needed any more"))
    assert (reference.workflow_id, reference.run_id) == (task.workflow_id, task.run_id)
    with pytest.raises(TaskFailedError, match=f"task {task.workflow_id} {state.name.lower()}") as caught:
        await settle(task.result())
    assert caught.value.state is state
    assert caught.value.status.workflow_id == task.workflow_id
    with pytest.raises(WorkerServiceError) as refused:
        await settle(task.signal("resume"))
    assert refused.value.reason == "TASK_ENDED"


async def test_a_failure_has_its_whole_chain(client: Any) -> None:
    task = await settle(client.start("harvest", {"supplier_code": "no-such"}))
    with pytest.raises(TaskFailedError, match="SupplierUnknown: unknown supplier 'no-such'") as caught:
        await settle(task.result())
    kinds = [cause.type or cause.activity_type for cause in caught.value.status.failure]
    assert kinds[:2] == ["fetch_products", "SupplierUnknown"]


async def test_refusals_have_reason_violations_and_trace(client: Any) -> None:
    with pytest.raises(WorkerServiceError) as caught:
        await settle(client.start("harvest", {"supplier_code": "", "page_size": 5000}))
    error = caught.value
    assert (error.code.name, error.reason) == ("INVALID_ARGUMENT", "PAYLOAD_INVALID")
    assert [each.field for each in error.violations] == ["payload.supplier_code", "payload.page_size"]
    assert uuid.UUID(error.trace_id)
    assert not error.unreachable
    with pytest.raises(WorkerServiceError, match="NOT_FOUND WORKFLOW_TYPE_UNKNOWN") as unknown:
        await settle(client.start("harvst", {}))
    assert unknown.value.metadata["known"] == "enrich, execute_code, gardener, harvest, list_rejected"
    with pytest.raises(WorkerServiceError, match="TASK_UNKNOWN"):
        await collect(client.watch("nobody"))
    with pytest.raises(ValueError, match="is not a UUID"):
        await settle(client.start("harvest", _HARVEST, unit_id="7"))


async def test_tasks_are_listed_page_after_page(client: Any) -> None:
    began = datetime.now(UTC) - timedelta(minutes=1)
    runs = set()
    for _ in range(3):
        task = await settle(client.start("harvest", _HARVEST))
        await settle(task.result())
        runs.add(task.run_id)
    # The server's list lags, and nothing tells when it is up to date.
    while {each.run_id for each in await collect(client.list_tasks(page_size=1))} != runs:
        pass
    done = await collect(
        client.list_tasks(workflow_type="harvest", status=["completed"], started_after=began, page_size=2)
    )
    assert {each.run_id for each in done} == runs
    assert await collect(client.list_tasks(status=TaskState.FAILED)) == []
    with pytest.raises(ValueError, match="'asleep' is not a TaskState; known ones: started, running"):
        await collect(client.list_tasks(status="asleep"))


async def test_contracts_are_described(client: Any) -> None:
    result = await settle(client.describe_contracts("harvest"))
    (contract,) = result.contracts
    assert contract.input_type == "contextunity.harvest.v1.HarvestRequest"
    assert [each.name for each in contract.queries] == ["get_progress"]
    assert result.file_descriptor_set
    assert (contract.input_schema, contract.options, result.activities) == ("", None, [])
    asked = {"include_descriptors": True, "include_schemas": True, "include_options": True}
    full = await settle(client.describe_contracts("harvest", **asked))
    assert json.loads(full.contracts[0].input_schema)["title"] == "contextunity.harvest.v1.HarvestRequest"
    assert full.contracts[0].options.method == "contextunity.harvest.v1.HarvestService.Harvest"
    assert "fetch_products" in [each.name for each in full.activities]
    assert b"temporal/v1/temporal.proto" in full.file_descriptor_set
    assert {each.workflow_type for each in (await settle(client.describe_contracts())).contracts} == {
        "enrich",
        "execute_code",
        "gardener",
        "harvest",
        "list_rejected",
    }


async def test_programs_are_run(client: Any) -> None:
    result = await settle(
        client.execute_code("print('seen')\n{'twice': number * 2}", language="python", inputs={"number": 21})
    )
    assert (result.status, result.exit_code, result.stdout) == ("ok", 0, "seen\n")
    assert plain_value(result.result) == {"twice": 42}
    failed = await settle(client.execute_code("1 / 0", time_limit=5.0))
    assert (failed.status, failed.error_type) == ("exception", "ZeroDivisionError")
    with pytest.raises(ValueError, match="'cobol' is not a Language; known ones: python, monty, cpython"):
        await settle(client.execute_code("1", language="cobol"))


async def test_schedules_are_registered_and_steered(client: Any) -> None:
    args = codec.dict_to_struct(_HARVEST)
    typed = ScheduleEntry(schedule_id="nightly", workflow_type="harvest", cron="0 3 * * *", args=args)
    assert (await settle(client.register_schedules([typed], project_id="shop"))).created == ["nightly"]
    plain = {"id": "weekly", "workflow_type": "harvest", "cron": "0 6 * * MON", "args": _HARVEST}
    again = await settle(client.register_schedules([plain], project_id="shop"))
    assert (again.created, again.registered_count) == (["weekly"], 1)
    with pytest.raises(TypeError, match="entries of one form"):
        await settle(client.register_schedules([typed, plain]))
    paused = await settle(client.pause_schedule("nightly", project_id="shop", note="holidays"))
    assert paused.status == "paused"
    assert (await settle(client.resume_schedule("nightly", project_id="shop"))).status == "active"
    assert (await settle(client.trigger_schedule("nightly", project_id="shop"))).status == "triggered"
    # The server's list lags, and nothing tells when it is up to date.
    while len(listed := await settle(client.list_schedules(project_id="shop"))) != 2:
        pass
    assert {each.schedule.schedule_id for each in listed} == {"nightly", "weekly"}
    for name in ("nightly", "weekly"):
        assert (await settle(client.delete_schedule(name, project_id="shop"))).status == "deleted"
    with pytest.raises(WorkerServiceError, match="SCHEDULE_UNKNOWN"):
        await settle(client.delete_schedule("nightly", project_id="shop"))
