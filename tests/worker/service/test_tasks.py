"""The life of a task as callers see it: status, result, failures, watching, steering, lists, contracts."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.worker import (
    DescribeContractsResult,
    QueryTaskRequest,
    SignalTaskRequest,
    TaskState,
    UpdateTaskRequest,
    WatchTaskRequest,
)
from contextunity.gen.google.protobuf import Any as AnyMessage
from google.protobuf import descriptor_pb2, descriptor_pool

from contextunity.core import ContextUnit, codec, worker_pb2

from .conftest import Desk, Refusal


def _refused(desk: Desk, method: str, payload: dict[str, Any], **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        desk.call(method, payload, **options)
    return caught.value


def test_a_completed_task_tells_its_result_as_a_structure_and_as_a_message(
    desk: Desk, desk_messages: SimpleNamespace
) -> None:
    task = desk.start(name="done", tenant_id="one")
    status = desk.wait(task)
    assert status["status"] == "completed"
    assert status["workflow_type"] == "work"
    assert status["tenant_id"] == "one"
    assert status["task_queue"] == "desk"
    assert status["result"] == {"text": "done for one"}
    assert status["started_at"] <= status["closed_at"]
    assert not status.keys() & {"error", "failure", "progress", "pending_activities", "notice"}
    body = desk.body(desk.call("GetTaskStatus", {"workflow_id": task}))
    assert body.status is TaskState.COMPLETED
    assert codec.unpack_any(body.result) == desk_messages.WorkResponse(text="done for one")


def test_a_running_task_tells_its_progress(desk: Desk, desk_messages: SimpleNamespace) -> None:
    task = desk.start(name="busy", mode="MODE_WAIT")
    for text in ("one", "two"):
        desk.call("SignalTask", {"workflow_id": task, "signal": "note", "args": {"text": text}})
    status = desk.wait_until(task, lambda status: status.get("progress", {}).get("noted") == 2)
    assert status["status"] == "running"
    assert status["progress"] == {"noted": 2, "name": "busy"}
    assert "closed_at" not in status
    body = desk.body(desk.call("GetTaskStatus", {"workflow_id": task}))
    assert codec.unpack_any(body.progress) == desk_messages.Progress(noted=2, name="busy")


def test_a_failure_tells_its_whole_chain(desk: Desk) -> None:
    status = desk.wait(desk.start(name="weak", mode="MODE_FAIL_ACTIVITY"))
    assert status["status"] == "failed"
    assert status["error"] == "StepBroke: the step of weak broke"
    activity, cause = status["failure"]
    assert activity["kind"] == "activity"
    assert activity["activity_type"] == "step"
    assert activity["attempt"] == 3
    assert activity["retry_state"] == "MAXIMUM_ATTEMPTS_REACHED"
    assert cause == {"kind": "application", "type": "StepBroke", "message": "the step of weak broke"}
    (only,) = desk.wait(desk.start(name="bad", mode="MODE_FAIL"))["failure"]
    assert only == {
        "kind": "application",
        "type": "CannotBeDone",
        "message": "bad cannot be done",
        "non_retryable": True,
    }


def test_a_pending_activity_tells_its_last_failure_and_when_it_goes_on(desk: Desk) -> None:
    task = desk.start(name="late", mode="MODE_RETRY")
    status = desk.wait_until(
        task, lambda status: any(each.get("last_failure") for each in status.get("pending_activities", ()))
    )
    (pending,) = status["pending_activities"]
    assert pending["activity_type"] == "step"
    assert pending["state"] == "scheduled"
    assert pending["attempt"] == 2
    assert pending["maximum_attempts"] == 3
    assert pending["last_failure"] == "NotYet: not yet"
    assert pending["next_attempt_at"] > status["started_at"]
    assert "notice" not in status
    desk.call("TerminateTask", {"workflow_id": task})


@pytest.mark.parametrize("urgent", [pytest.param(False, id="long message"), pytest.param(True, id="long detail")])
def test_why_an_activity_is_repeated_is_told_of_long_failures_too(desk: Desk, urgent: bool) -> None:
    task = desk.start(name="long", mode="MODE_RETRY", big=1000, urgent=urgent)
    status = desk.wait_until(
        task, lambda status: any(each.get("last_failure") for each in status.get("pending_activities", ()))
    )
    (pending,) = status["pending_activities"]
    assert pending["last_failure"].startswith("NotYet: not yet")
    assert len(pending["last_failure"]) == (len("NotYet: not yet") if urgent else 1000)
    desk.call("TerminateTask", {"workflow_id": task})


def test_that_no_worker_polls_is_told(desk: Desk) -> None:
    status = desk.status(desk.start("idle", name="x"))
    assert status["status"] == "running"
    assert "no worker polls the task queue 'away' for workflows and activities" in status["notice"]


def test_that_the_code_of_a_workflow_fails_is_told(desk: Desk) -> None:
    task = desk.start("join", name="broken")
    status = desk.wait_until(task, lambda status: "notice" in status)
    assert status["status"] == "running"
    assert status["notice"] == (
        "the code of its workflow failed with KeyError: 'a slip in the code'; its task is retried until the "
        "worker's code is fixed, or the workflow is terminated"
    )
    assert desk.status(task)["notice"] == status["notice"]
    desk.call("TerminateTask", {"workflow_id": task})


def test_cancelled_and_terminated_tell_why(desk: Desk) -> None:
    cancelled, terminated = (desk.start(name="x", mode="MODE_WAIT") for _ in range(2))
    answer = desk.call("CancelTask", {"workflow_id": cancelled, "reason": "not wanted"})
    assert answer.payload["workflow_id"] == cancelled
    status = desk.wait(cancelled)
    assert (status["status"], status["reason"]) == ("cancelled", "not wanted")
    desk.call("TerminateTask", {"workflow_id": terminated, "reason": "stuck"})
    status = desk.wait(terminated)
    assert (status["status"], status["reason"]) == ("terminated", "stuck")
    assert status["error"] == "it was terminated: stuck"
    for method in ("CancelTask", "TerminateTask"):
        refusal = _refused(desk, method, {"workflow_id": terminated})
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TASK_ENDED")


def test_a_run_that_went_on_as_another_is_followed(desk: Desk) -> None:
    started = desk.call("StartWorkflow", {"workflow_type": "work", "name": "h", "mode": "MODE_HOP", "hops": 2}).payload
    task = str(started["workflow_id"])
    status = desk.wait_until(task, lambda status: status["run_id"] != started["run_id"] and "progress" in status)
    assert status["status"] == "running"
    first = {"workflow_id": task, "run_id": started["run_id"]}
    assert desk.call("GetTaskStatus", first).payload["status"] == "running"
    desk.call("SignalTask", {"workflow_id": task, "signal": "finish"})
    assert desk.wait(task)["status"] == "completed"
    followed = desk.call("GetTaskStatus", first).payload
    assert followed["status"] == "completed"
    assert followed["run_id"] != started["run_id"]


def test_an_unknown_task_is_not_found_by_any_method(desk: Desk) -> None:
    for method, more in (
        ("GetTaskStatus", {}),
        ("CancelTask", {}),
        ("TerminateTask", {}),
        ("SignalTask", {"signal": "finish"}),
        ("QueryTask", {"query": "progress"}),
        ("UpdateTask", {"update": "rename"}),
    ):
        refusal = _refused(desk, method, {"workflow_id": "nobody", **more})
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_UNKNOWN"), method
        assert refusal.metadata["workflow_id"] == "nobody"
        for run_id in ("no-run", str(uuid.uuid4())):
            refusal = _refused(desk, method, {"workflow_id": "nobody", "run_id": run_id, **more})
            assert refusal.reason == "TASK_UNKNOWN"
        assert _refused(desk, method, more).violations.keys() == {"payload.workflow_id"}
        assert _refused(desk, method, {"workflow_id": "x", "workflow": "y", **more}).violations.keys() == {
            "payload.workflow"
        }


def test_signals_queries_and_updates_are_checked_against_the_contract(
    desk: Desk, desk_messages: SimpleNamespace
) -> None:
    task = desk.start(name="steered", mode="MODE_WAIT")
    for method, key, known in (
        ("SignalTask", "signal", "finish, note"),
        ("QueryTask", "query", "progress, recall"),
        ("UpdateTask", "update", "rename"),
    ):
        refusal = _refused(desk, method, {"workflow_id": task, key: "nothing"})
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "HANDLER_UNKNOWN")
        assert refusal.metadata["known"] == known
    refusal = _refused(desk, "SignalTask", {"workflow_id": task, "signal": "note", "args": {"txt": "x"}})
    assert refusal.violations.keys() == {"args.txt"}
    refusal = _refused(desk, "SignalTask", {"workflow_id": task, "signal": "note", "args": {}})
    assert refusal.violations.keys() == {"args.text"}
    refusal = _refused(desk, "SignalTask", {"workflow_id": task, "signal": "finish", "args": {"now": True}})
    assert refusal.violations == {"args.now": "'finish' takes no parameters"}
    typed = {"@type": "type.googleapis.com/acme.desk.v1.NoteRequest", "text": "typed"}
    desk.call("SignalTask", {"workflow_id": task, "signal": "Note", "input": typed})
    answer = desk.call("QueryTask", {"workflow_id": task, "query": "recall", "args": {"index": 0}})
    assert answer.payload["result"] == {"text": "typed"}
    assert codec.unpack_any(desk.body(answer).result) == desk_messages.RecallResponse(text="typed")
    failed = _refused(desk, "QueryTask", {"workflow_id": task, "query": "recall", "args": {"index": 7}})
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "QUERY_FAILED")
    renamed = desk.call("UpdateTask", {"workflow_id": task, "update": "rename", "args": {"name": "new"}})
    assert renamed.payload["result"] == {"before": "steered"}
    rejected = _refused(desk, "UpdateTask", {"workflow_id": task, "update": "rename"})
    assert (rejected.code, rejected.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UPDATE_REJECTED")
    assert rejected.metadata["type"] == "NameMissing"
    assert "a task needs a name" in rejected.message
    desk.call("SignalTask", {"workflow_id": task, "signal": "finish"})
    assert desk.wait(task)["result"]["text"] == "new for default"
    for method, key in (("SignalTask", "signal"), ("UpdateTask", "update")):
        name = "finish" if key == "signal" else "rename"
        assert _refused(desk, method, {"workflow_id": task, key: name}).reason == "TASK_ENDED"
    assert desk.call("QueryTask", {"workflow_id": task, "query": "progress"}).payload["result"]["name"] == "new"


def test_the_same_signal_or_update_again_happens_once(desk: Desk) -> None:
    task = desk.start(name="first", mode="MODE_WAIT")
    note = ContextUnit(payload={"workflow_id": task, "signal": "note", "args": {"text": "once"}})
    rename = ContextUnit(payload={"workflow_id": task, "update": "rename", "args": {"name": "second"}})
    for _ in range(3):
        desk.call("SignalTask", unit=note)
        assert desk.call("UpdateTask", unit=rename).payload["result"] == {"before": "first"}
    assert desk.status(task)["progress"] == {"noted": 1, "name": "second"}
    desk.call("TerminateTask", {"workflow_id": task})


def test_a_query_that_no_worker_answers_is_unavailable(desk: Desk) -> None:
    refusal = _refused(desk, "QueryTask", {"workflow_id": desk.start("idle", name="x"), "query": "progress"})
    assert refusal.reason == "HANDLER_UNKNOWN"


def test_a_watch_tells_each_change_once_and_ends_with_the_task(desk: Desk) -> None:
    task = desk.start(name="seen", mode="MODE_WAIT")
    answers = desk.watch({"workflow_id": task})
    seen = [next(answers).payload]
    for text in ("one", "two"):
        desk.call("SignalTask", {"workflow_id": task, "signal": "note", "args": {"text": text}})
        seen.append(next(answers).payload)
        while not seen[-1].get("progress", {}).get("noted"):  # Its first workflow task may show as a change.
            seen.append(next(answers).payload)
    desk.call("SignalTask", {"workflow_id": task, "signal": "finish"})
    seen += [answer.payload for answer in answers]
    tokens = [status["resume_token"] for status in seen]
    assert len(set(tokens)) == len(tokens)
    assert [status["status"] for status in seen[:-1]] == ["running"] * (len(seen) - 1)
    assert seen[-1]["status"] == "completed"
    assert list(desk.watch({"workflow_id": task, "after": tokens[-1]})) == [], "all of it was seen"
    (again,) = desk.watch({"workflow_id": task, "after": tokens[-2]})
    assert again.payload["resume_token"] == tokens[-1]


def test_a_watch_tells_an_attempt_that_failed_without_an_event(desk: Desk) -> None:
    # By then the last event, that the activity was scheduled, has long been told.
    task = desk.start(name="slow", mode="MODE_RETRY", ratio=1.5)
    pending = [answer["pending_activities"][0] for answer in _statuses_until_a_failure(desk, task)]
    assert (pending[0]["attempt"], pending[0].get("last_failure", "")) == (1, "")
    assert (pending[-1]["attempt"], pending[-1]["last_failure"]) == (2, "NotYet: not yet")
    desk.call("TerminateTask", {"workflow_id": task})


def _statuses_until_a_failure(desk: Desk, task: str) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for answer in desk.watch({"workflow_id": task}):
        if answer.payload.get("pending_activities"):
            found.append(dict(answer.payload))
            if found[-1]["pending_activities"][0].get("last_failure"):
                return found
    raise AssertionError(f"{task} ended")


def test_a_watch_ends_when_its_client_goes_away(desk: Desk) -> None:
    task = desk.start(name="alone", mode="MODE_WAIT")
    unit = ContextUnit(body=WatchTaskRequest(workflow_id=task))
    stream = desk.send("WatchTask", unit.to_protobuf(worker_pb2))
    next(stream)
    ended = threading.Event()
    stream.add_done_callback(lambda _: ended.set())
    stream.cancel()
    assert ended.wait(10)
    with pytest.raises(Refusal) as caught:
        list(desk.watch({"workflow_id": "nobody"}))
    assert caught.value.reason == "TASK_UNKNOWN"
    desk.call("TerminateTask", {"workflow_id": task})


def test_tasks_are_listed_by_what_they_are(desk: Desk) -> None:
    tenant = f"lister-{uuid.uuid4()}"
    before = datetime.now(UTC)
    done = {desk.start(name=str(number), tenant_id=tenant) for number in range(3)}
    waiting = desk.start(name="w", mode="MODE_WAIT", tenant_id=tenant)
    ping = desk.start("ping", tenant_id=tenant)
    for task in (*done, ping):
        desk.wait(task)

    def listed(**conditions: Any) -> set[str]:
        answer = desk.call("ListTasks", {"tenant_id": tenant, **conditions})
        return {str(task["workflow_id"]) for task in answer.payload.get("tasks", ())}

    desk.eventually(listed, {*done, waiting, ping})
    assert listed(workflow_type=["ping"]) == {ping}
    desk.eventually(lambda: listed(status=["running"]), {waiting})
    desk.eventually(lambda: listed(status=["completed", "failed"], workflow_type=["work"]), done)
    assert listed(started_after=before.isoformat()) == {*done, waiting, ping}
    assert listed(started_before=before.isoformat()) == set()
    assert listed(started_after=(before + timedelta(hours=1)).isoformat()) == set()
    assert listed(workflow_type=['it\'s "quoted" \\']) == set()
    found, token = list[str](), ""
    while True:
        page = desk.body(desk.call("ListTasks", {"tenant_id": tenant, "page_size": 2, "page_token": token}))
        assert len(page.tasks) <= 2
        found += [task.workflow_id for task in page.tasks]
        token = page.next_page_token
        if not token:
            break
    assert sorted(found) == sorted({*done, waiting, ping})
    page = desk.call("ListTasks", {"tenant_id": tenant, "page_size": 2}).payload
    for wrong in ("x", "AAAA", "é", page["next_page_token"]):
        refusal = _refused(desk, "ListTasks", {"page_size": 2, "page_token": wrong})
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
    assert _refused(desk, "ListTasks", {"page_size": 1001}).violations.keys() == {"payload.page_size"}
    assert _refused(desk, "ListTasks", {"status": ["sleeping"]}).violations.keys() == {"payload.status[0]"}
    desk.call("TerminateTask", {"workflow_id": waiting})


def test_contracts_are_described_with_all_that_a_caller_needs(desk: Desk) -> None:
    everything = desk.body(desk.call("DescribeContracts"))
    assert [each.workflow_type for each in everything.contracts] == [
        "bounded",
        "chain",
        "idle",
        "join",
        "once",
        "patient",
        "ping",
        "replace",
        "single",
        "work",
    ]
    answer = desk.call("DescribeContracts", {"workflow_type": ["work"]})
    assert "file_descriptor_set" not in answer.payload
    result: DescribeContractsResult = desk.body(answer)
    (work,) = result.contracts
    assert (work.module, work.task_queue, work.description) == ("desk", "desk", "Does as it is told.")
    assert (work.input_type, work.output_type) == ("acme.desk.v1.WorkRequest", "acme.desk.v1.WorkResponse")
    assert {each.name: each.input_type for each in work.signals} == {"note": "acme.desk.v1.NoteRequest", "finish": ""}
    assert {each.name: each.output_type for each in work.queries} == {
        "progress": "acme.desk.v1.Progress",
        "recall": "acme.desk.v1.RecallResponse",
    }
    assert [each.name for each in work.updates] == ["rename"]
    fields = {each.name: each for each in work.fields}
    assert fields["name"].description == "What it is called."
    assert fields["name"].rules == ["string.min_len: 1", "string.max_len: 50"]
    assert fields["mode"].type == "acme.desk.v1.Mode"
    assert "MODE_WAIT" in fields["mode"].enum_values
    assert (fields["marks"].type, fields["tags"].repeated) == ("map<string, int32>", True)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(result.file_descriptor_set).file:
        pool.Add(file)
    assert pool.FindMessageTypeByName("acme.desk.v1.RenameResponse").fields_by_name.keys() == ["before"]
    (join,) = desk.body(desk.call("DescribeContracts", {"workflow_type": ["join"]})).contracts
    assert (join.id_expression, join.id_conflict_policy) == ("join/${! name }", "USE_EXISTING")
    (single,) = desk.body(desk.call("DescribeContracts", {"workflow_type": ["lone"]})).contracts
    assert single.aliases == ["lone"]
    assert _refused(desk, "DescribeContracts", {"workflow_type": ["nothing"]}).reason == "WORKFLOW_TYPE_UNKNOWN"


@pytest.mark.parametrize("method", ["SignalTask", "UpdateTask", "QueryTask"])
def test_input_is_given_as_args_or_packed_and_of_the_type_of_the_contract(
    desk: Desk, desk_messages: SimpleNamespace, method: str
) -> None:
    task = desk.start("work", name="packed", mode="MODE_WAIT")
    desk.call("SignalTask", {"workflow_id": task, "signal": "note", "args": {"text": "a"}})
    kind, name, message, args = {
        "SignalTask": ("signal", "note", desk_messages.NoteRequest(text="a"), {"text": "a"}),
        "UpdateTask": ("update", "rename", desk_messages.RenameRequest(name="b"), {"name": "b"}),
        "QueryTask": ("query", "recall", desk_messages.RecallRequest(), {"index": 0}),
    }[method]
    request_class = {"SignalTask": SignalTaskRequest, "UpdateTask": UpdateTaskRequest, "QueryTask": QueryTaskRequest}

    def call(**given: Any) -> Any:
        request: Any = request_class[method](**{"workflow_id": task, kind: name, **given})
        return desk.call(method, body=codec.pack_any(request))

    def refused(**given: Any) -> Refusal:
        with pytest.raises(Refusal) as caught:
            call(**given)
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        return caught.value

    call(input=codec.pack_any(message))
    both = refused(input=codec.pack_any(message), args=codec.dict_to_struct(args))
    assert both.violations == {"args": "is set together with input; set one of the two"}
    other = refused(input=codec.pack_any(desk_messages.Progress()))
    assert list(other.violations) == ["input"]
    assert f"is a acme.desk.v1.Progress; {name!r} takes a acme.desk.v1." in other.violations["input"]
    unknown = refused(input=AnyMessage(type_url="type.googleapis.com/no.Such"))
    assert "'no.Such'" in unknown.violations["input"]
    desk.call("TerminateTask", {"workflow_id": task})
