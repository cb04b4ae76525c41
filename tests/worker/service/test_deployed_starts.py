"""StartWorkflow as deployed clients send it: args in a list, a timeout beside them, a task queue by tenant."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from temporalio.client import Client, WorkflowExecutionDescription

from .conftest import Desk, Refusal


def _described(desk: Desk, payload: dict[str, Any], **options: Any) -> WorkflowExecutionDescription:
    """What the Temporal server knows of the task that a request starts."""
    workflow_id = str(desk.call("StartWorkflow", payload, **options).payload["workflow_id"])

    async def describe() -> WorkflowExecutionDescription:
        client = await Client.connect(desk.temporal.address)
        return await client.get_workflow_handle(workflow_id).describe()

    return asyncio.run(describe())


def _execution_timeout(desk: Desk, payload: dict[str, Any], **options: Any) -> timedelta:
    config = _described(desk, payload, **options).raw_description.execution_config
    return config.workflow_execution_timeout.ToTimedelta()


def _refused(desk: Desk, payload: dict[str, Any], **options: Any) -> dict[str, str]:
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", payload, **options)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID")
    return caught.value.violations


@pytest.mark.parametrize(
    "payload",
    [
        {"workflow_type": "work", "args": [{"name": "a", "big": 7}], "tenant_id": "one"},
        {"workflow_type": "work", "args": [{"name": "a"}], "big": 7, "tenant_id": "one"},
        {"workflow_type": "work", "args": [], "name": "a", "big": 7, "tenant_id": "one"},
        {"workflow_type": "work", "args": [{}], "name": "a", "big": 7, "tenant_id": "one"},
        {"workflow_type": "work", "args": None, "name": "a", "big": 7, "tenant_id": "one"},
    ],
    ids=["one", "one and beside", "none", "an empty one", "null"],
)
def test_args_may_be_a_list_of_the_one_input(desk: Desk, payload: dict[str, Any]) -> None:
    done = desk.wait(str(desk.call("StartWorkflow", payload).payload["workflow_id"]))
    assert done["result"] == {"text": "a for one", "big": "7"}


@pytest.mark.parametrize(
    ("args", "violations"),
    [
        pytest.param(
            [{"name": "a"}, {}], {"payload.args": "has 2 elements; a workflow takes at most one input"}, id="two"
        ),
        pytest.param(["a"], {"payload.args[0]": "must be an object, not 'a'"}, id="a text in a list"),
        pytest.param([None], {"payload.args[0]": "must be an object, not None"}, id="null in a list"),
        pytest.param([[{"name": "a"}]], {"payload.args[0]": "must be an object, not [{'name': 'a'}]"}, id="nested"),
        pytest.param("a", {"payload.args": "must be an object, not 'a'"}, id="a text"),
        pytest.param(False, {"payload.args": "must be an object, not False"}, id="false"),
        pytest.param([{"name": "b"}], {"payload.name": "is set twice, here and in args"}, id="beside and in the list"),
    ],
)
def test_other_args_are_refused(desk: Desk, args: Any, violations: dict[str, str]) -> None:
    assert _refused(desk, {"workflow_type": "work", "name": "a", "args": args}) == violations


def test_a_workflow_without_input_is_started_with_an_empty_list(desk: Desk) -> None:
    assert desk.call("StartWorkflow", {"workflow_type": "bounded", "args": []}).payload["status"] == "started"
    assert _refused(desk, {"workflow_type": "bounded", "args": [{"name": "a"}]}) == {
        "payload.name": "'bounded' takes no parameters"
    }


@pytest.mark.parametrize(
    ("seconds", "workflow_type", "timeout"),
    [
        pytest.param(30, "bounded", timedelta(seconds=30), id="less than the contract's"),
        pytest.param(0.5, "bounded", timedelta(seconds=0.5), id="part of a second"),
        pytest.param(61, "bounded", timedelta(seconds=60), id="more than the contract's"),
        pytest.param(1e300, "bounded", timedelta(seconds=60), id="far more than the contract's"),
        pytest.param(90, "ping", timedelta(seconds=90), id="where the contract has none"),
        pytest.param(1e-9, "ping", timedelta(milliseconds=1), id="hardly any"),
        pytest.param(None, "bounded", timedelta(seconds=60), id="null"),
    ],
)
def test_timeout_seconds_is_the_execution_timeout(
    desk: Desk, seconds: float | None, workflow_type: str, timeout: timedelta
) -> None:
    assert _execution_timeout(desk, {"workflow_type": workflow_type, "timeout_seconds": seconds}) == timeout


def test_without_it_the_contract_decides(desk: Desk) -> None:
    assert _execution_timeout(desk, {"workflow_type": "bounded"}) == timedelta(seconds=60)
    assert _execution_timeout(desk, {"workflow_type": "ping"}) == timedelta(0)


def test_a_body_may_have_it_beside(desk: Desk, desk_messages: SimpleNamespace) -> None:
    named = desk_messages.WorkRequest(name="a")
    payload = {"workflow_type": "work", "timeout_seconds": 20, "tenant_id": "one"}
    assert _execution_timeout(desk, payload, body=named) == timedelta(seconds=20)


@pytest.mark.parametrize("seconds", [0, -1, -0.5, "30", True, [30], {}], ids=repr)
def test_no_time_is_refused(desk: Desk, seconds: Any) -> None:
    text = f"must be a number of seconds above zero, not {seconds!r}"
    assert _refused(desk, {"workflow_type": "ping", "timeout_seconds": seconds}) == {"payload.timeout_seconds": text}


def test_an_input_that_has_the_field_keeps_it(desk: Desk, desk_messages: SimpleNamespace) -> None:
    """Such as one whose own time is meant: its contract says what that is."""
    payload = {"workflow_type": "patient", "timeout_seconds": -5}
    assert _execution_timeout(desk, payload) == timedelta(0)
    body = desk_messages.PatientRequest(timeout_seconds=7)
    assert _refused(desk, {"timeout_seconds": 5}, body=body) == {
        "payload.timeout_seconds": "the parameters are in the body; remove them from the payload"
    }


@pytest.mark.parametrize("tenant", ["one", "acme/shop.de"])
def test_the_queue_of_a_deployed_tenant_is_the_contracts(desk: Desk, tenant: str) -> None:
    payload = {"workflow_type": "idle", "name": "a", "tenant_id": tenant, "task_queue": f"{tenant}-tasks"}
    assert _described(desk, payload).task_queue == "away"


def test_the_queue_of_another_tenant_is_refused(desk: Desk) -> None:
    violations = _refused(desk, {"workflow_type": "ping", "tenant_id": "one", "task_queue": "two-tasks"})
    assert violations.keys() == {"payload.task_queue"}


def test_the_default_tenant_has_one_too(desk: Desk) -> None:
    assert _described(desk, {"workflow_type": "idle", "name": "a", "task_queue": "default-tasks"}).task_queue == "away"
