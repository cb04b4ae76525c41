"""The methods about schedules, as the service admits and answers them: both shapes of requests, both forms, tenants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from contextunity.gen.contextunity.core import ContextUnit
from contextunity.gen.contextunity.worker import (
    ListSchedulesRequest,
    ListSchedulesResult,
    RegisterSchedulesRequest,
    RegisterSchedulesResult,
    ScheduleRequest,
    ScheduleResult,
)
from temporalio.client import Client

from contextunity.core import codec
from contextunity.worker.auth import EVERYBODY, Caller
from contextunity.worker.grpc_errors import Reason, ServiceError, to_status
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import Call, WorkerService

Ask = Callable[..., Awaitable[Any]]
Eventually = Callable[..., Awaitable[Any]]

_PLAIN = {"schedule_id": "nightly", "workflow_name": "report", "task_queue": "reports", "cron": "0 3 * * *"}
_MANIFEST = {"id": "nightly", "workflow_type": "sweep", "cron": "0 3 * * *", "timezone": "Europe/Berlin"}


@pytest.fixture
def ask(client: Client, registry: WorkerRegistry) -> Ask:
    """Asks a method with a payload or a typed body; answers the unit."""
    service = WorkerService(client, registry)

    async def ask(method: str, content: Any, caller: Caller = EVERYBODY) -> Any:
        if isinstance(content, dict):
            unit = ContextUnit(payload=codec.dict_to_struct(content))
        else:
            unit = ContextUnit(body=codec.pack_any(content))
        return await service.call(service.methods[method], Call(unit=unit, caller=caller))

    return ask


def _payload(unit: Any) -> dict[str, Any]:
    return dict(codec.struct_to_dict(unit.payload))


def _caller(*tenants: str, permissions: tuple[str, ...] = ("worker:schedule",), project: str = "") -> Caller:
    return Caller(permissions=frozenset(permissions), tenants=frozenset(tenants), project_id=project)


_CREATED = {
    "status": "ok",
    "registered_count": 1,
    "created": ["nightly"],
    "updated": [],
    "unchanged": [],
    "removed": [],
}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            {"project_id": "p", "schedules": [{**_PLAIN, "args": {"name": "n"}, "description": "d"}]}, id="published"
        ),
        pytest.param({"project_id": "p", "schedules": [_MANIFEST]}, id="manifest"),
        pytest.param({**_PLAIN, "args": {"name": "n"}, "project_id": "p"}, id="one-entry-alone"),
        pytest.param({**_MANIFEST, "projectId": "p"}, id="one-manifest-entry-alone"),
        pytest.param(
            {
                "project_id": "p",
                "schedules": [
                    {
                        "scheduleId": "nightly",
                        "workflowType": "sweep",
                        "cron": "@daily",
                        "overlap": "buffer_one",
                        "catchup_window": 90,
                        "jitter": "1.5s",
                    }
                ],
            },
            id="all-of-today's-names",
        ),
        pytest.param(
            {"project_id": "p", "schedules": [{**_MANIFEST, "schedule_id": "nightly"}]}, id="the-same-said-twice"
        ),
    ],
)
async def test_every_shape_that_clients_send_registers(ask: Ask, tenant: str, content: dict[str, Any]) -> None:
    unit = await ask("RegisterSchedules", {**content, "tenant_id": tenant})
    told = _payload(unit)
    assert {key: told[key] for key in _CREATED} == _CREATED
    assert isinstance(codec.unpack_any(unit.body), RegisterSchedulesResult)
    again = _payload(await ask("RegisterSchedules", {**content, "tenant_id": tenant}))
    assert (again["unchanged"], again["registered_count"]) == (["nightly"], 1)


async def test_typed_requests_get_typed_answers(
    ask: Ask, tenant: str, entry: Callable[..., Any], eventually: Eventually
) -> None:
    request = RegisterSchedulesRequest(tenant_id=tenant, project_id="p", schedules=[entry()])
    assert _payload(await ask("RegisterSchedules", request))["created"] == ["nightly"]
    named = ScheduleRequest(schedule_id="nightly", project_id="p", tenant_id=tenant, note="strike")
    unit = await ask("PauseSchedule", named)
    paused = codec.unpack_any(unit.body)
    assert paused == ScheduleResult(schedule_id="nightly", project_id="p", tenant_id=tenant, status="paused")
    assert _payload(unit)["status"] == "paused"

    async def listed() -> Any:
        return codec.unpack_any((await ask("ListSchedules", ListSchedulesRequest(tenant_id=tenant))).body)

    answer = await eventually(listed, lambda answer: answer.schedules)
    assert isinstance(answer, ListSchedulesResult)
    schedule: Any = answer.schedules[0].schedule
    assert (answer.schedules[0].note, schedule.paused) == ("strike", True)
    (status,) = _payload(await ask("ListSchedules", {"tenant_id": tenant}))["schedules"]
    assert status["schedule"]["overlap"] == "skip"
    assert status["schedule"]["catchup_window"] == 60
    assert status["schedule"]["args"] == {"name": "n", "tenant_id": tenant}
    # What is listed can be registered again just so.
    again = {"tenant_id": tenant, "project_id": "p", "schedules": [status["schedule"]]}
    assert _payload(await ask("RegisterSchedules", again))["unchanged"] == ["nightly"]
    for verb, word in (("ResumeSchedule", "active"), ("TriggerSchedule", "triggered"), ("DeleteSchedule", "deleted")):
        named = ScheduleRequest(schedule_id="nightly", project_id="p", tenant_id=tenant)
        told = _payload(await ask(verb, named))
        assert told["status"] == word
        assert told.get("workflow_id", "").startswith("schedule/") == (word == "triggered")


@pytest.mark.parametrize(
    ("content", "violations"),
    [
        pytest.param({"schedules": {}}, {"payload.schedules": "expected a list of schedules"}, id="no-list"),
        pytest.param({"schedule": []}, {"payload.schedule": "no such field; did you mean schedules?"}, id="misspelt"),
        pytest.param(
            {"schedules": ["nightly"]},
            {"payload.schedules[0]": "expected an object with schedule_id, workflow_type and cron"},
            id="no-object",
        ),
        pytest.param(
            {"schedules": [{**_MANIFEST, "cron": 5}]},
            {"payload.schedules[0].cron": "schedule 'nightly': expected text, got the number 5"},
            id="wrong-type",
        ),
        pytest.param(
            {"schedules": [_MANIFEST, {**_PLAIN, "schedule_id": "b", "crom": ""}]},
            {"payload.schedules[1].crom": "schedule 'b': no such field; did you mean cron?"},
            id="misspelt-key-of-one",
        ),
        pytest.param(
            {"schedules": [{**_MANIFEST, "workflow_name": "report"}]},
            {"payload.schedules[0].workflow_type": "differs from workflow_name; give only one of the two"},
            id="two-workflows",
        ),
        pytest.param(
            {**_PLAIN, "args": {"name": "n"}, "cron": "0 25 * * *"},
            {"payload.cron": "hour '25': 25 is not from 0 to 23"},
            id="alone",
        ),
        pytest.param(
            {"project_id": "x" * 201}, {"payload.project_id": "must be at most 200 characters, not 201"}, id="project"
        ),
    ],
)
async def test_what_does_not_fit_is_named_with_its_place(
    ask: Ask, tenant: str, content: dict[str, Any], violations: dict[str, str]
) -> None:
    with pytest.raises(ServiceError) as caught:
        await ask("RegisterSchedules", {**content, "tenant_id": tenant})
    assert caught.value.reason is Reason.PAYLOAD_INVALID
    assert {each.field: each.description for each in caught.value.violations} == violations


@pytest.mark.parametrize("args", [[{"name": "n"}], {"name": "n"}], ids=["list", "object"])
async def test_args_may_be_a_list_of_the_one_input(ask: Ask, tenant: str, args: Any) -> None:
    entry = {**_PLAIN, "args": args, "task_queue": f"{tenant}-tasks"}
    assert _payload(await ask("RegisterSchedules", {"tenant_id": tenant, "schedules": [entry]}))["created"] == [
        "nightly"
    ]
    # By today's names it is the same.
    entry = {**_PLAIN, "args": {"name": "n"}, "task_queue": "reports"}
    assert _payload(await ask("RegisterSchedules", {"tenant_id": tenant, "schedules": [entry]}))["unchanged"] == [
        "nightly"
    ]


async def test_an_empty_list_is_no_input(ask: Ask, tenant: str) -> None:
    entry = {"schedule_id": "sweep", "workflow_name": "sweep", "task_queue": "", "cron": "@daily", "args": []}
    assert _payload(await ask("RegisterSchedules", {"tenant_id": tenant, **entry}))["created"] == ["sweep"]


@pytest.mark.parametrize(
    ("args", "field", "text"),
    [
        ([{"name": "n"}, {}], "args", "has 2 elements; a workflow takes at most one input"),
        (["n"], "args[0]", "must be an object, not 'n'"),
        ([{"nam": "n"}], "args.nam", "no such field; did you mean name?"),
    ],
    ids=["two", "text", "misspelt"],
)
async def test_other_lists_are_refused(ask: Ask, tenant: str, args: Any, field: str, text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await ask("RegisterSchedules", {"tenant_id": tenant, "schedules": [{**_PLAIN, "args": args}]})
    told = {each.field: each.description for each in caught.value.violations}
    assert told == {f"payload.schedules[0].{field}": f"schedule 'nightly': {text}"}


async def test_manifest_entries_whose_workflow_needs_more_are_skipped_and_named(ask: Ask, tenant: str) -> None:
    needy = {"id": "weekly", "workflow_type": "report", "cron": "@weekly", "timezone": "UTC"}
    content = {"tenant_id": tenant, "project_id": "p", "schedules": [_MANIFEST, needy]}
    told = _payload(await ask("RegisterSchedules", content))
    assert (told["status"], told["registered_count"], told["skipped"]) == ("ok", 1, ["weekly"])
    assert (told["created"], told["faults"]) == (["nightly"], [])
    # What is there under the id stays, also where others are pruned.
    full = {"schedule_id": "weekly", "workflow_name": "report", "cron": "@weekly", "args": {"name": "n"}}
    assert _payload(await ask("RegisterSchedules", {**content, "schedules": [full]}))["created"] == ["weekly"]
    pruned = _payload(await ask("RegisterSchedules", {**content, "schedules": [needy], "prune": True}))
    assert (pruned["removed"], pruned["skipped"], pruned["registered_count"]) == (["nightly"], ["weekly"], 0)
    alone = _payload(await ask("RegisterSchedules", {**needy, "tenant_id": tenant, "dry_run": True}))
    assert (alone["status"], alone["skipped"]) == ("ok", ["weekly"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": "x"}, "cron"),
        ({"timezone": "Mars/North"}, "timezone"),
        ({"workflow_type": "none"}, "workflow_type"),
        ({"args": {"name": ""}}, "args.name"),
        ({"id": "nightly"}, "schedule_id"),
    ],
    ids=["cron", "zone", "unknown", "with args", "twice"],
)
async def test_a_manifest_entry_with_another_fault_refuses_all(
    ask: Ask, tenant: str, change: dict[str, Any], field: str
) -> None:
    needy = {"id": "weekly", "workflow_type": "report", "cron": "@weekly", **change}
    content = {"tenant_id": tenant, "schedules": [_MANIFEST, needy]}
    with pytest.raises(ServiceError) as caught:
        await ask("RegisterSchedules", content)
    assert f"payload.schedules[1].{field}" in {each.field for each in caught.value.violations}
    told = _payload(await ask("RegisterSchedules", {**content, "partial": True}))
    assert (told["status"], told["skipped"], len(told["faults"])) == ("partial", [], 2 if field == "schedule_id" else 1)


async def test_an_entry_of_the_published_shape_that_lacks_its_input_is_a_fault(ask: Ask, tenant: str) -> None:
    with pytest.raises(ServiceError) as caught:
        await ask("RegisterSchedules", {"tenant_id": tenant, "schedules": [_PLAIN]})
    assert [each.field for each in caught.value.violations] == ["payload.schedules[0].args.name"]


async def test_the_others_apply_where_partial_says_so(ask: Ask, tenant: str) -> None:
    content = {
        "tenant_id": tenant,
        "partial": True,
        "schedules": [
            _MANIFEST,
            {**_MANIFEST, "id": "typed", "cron": 5},
            {**_MANIFEST, "id": "cron", "cron": "x"},
            {"cron": "@daily"},
        ],
    }
    told = _payload(await ask("RegisterSchedules", content))
    assert (told["status"], told["created"]) == ("partial", ["nightly"])
    assert [fault["schedule_id"] for fault in told["faults"]] == ["typed", "cron", "schedules[3]"]
    assert told["faults"][0]["reasons"] == ["cron: expected text, got the number 5"]


async def test_an_error_about_very_many_fits_into_the_trailers(ask: Ask, tenant: str) -> None:
    content = {"tenant_id": tenant, "schedules": [{**_MANIFEST, "id": f"s{n}", "cron": "x"} for n in range(900)]}
    with pytest.raises(ServiceError) as caught:
        await ask("RegisterSchedules", content)
    assert caught.value.violations[-1].description == "and 884 more; `partial` lists them all"
    assert to_status(caught.value, "trace").ByteSize() < 6000


async def test_more_than_a_thousand_are_refused(ask: Ask, tenant: str) -> None:
    with pytest.raises(ServiceError, match=r"payload\.schedules: must contain no more than 1000 item"):
        await ask("RegisterSchedules", {"tenant_id": tenant, "schedules": [_MANIFEST] * 1001})


@pytest.mark.parametrize("verb", ["PauseSchedule", "ResumeSchedule", "TriggerSchedule", "DeleteSchedule"])
async def test_schedules_of_other_tenants_are_not_found(
    ask: Ask, tenant: str, verb: str, eventually: Eventually
) -> None:
    own, other = _caller(tenant), _caller(f"{tenant}.2")
    await ask("RegisterSchedules", {"schedules": [_MANIFEST]}, own)
    with pytest.raises(ServiceError) as caught:
        await ask(verb, {"schedule_id": "nightly"}, other)
    assert caught.value.reason is Reason.SCHEDULE_UNKNOWN
    with pytest.raises(ServiceError) as caught:
        await ask(verb, {"schedule_id": "nightly", "tenant_id": tenant}, other)
    assert caught.value.reason is Reason.TENANT_REFUSED
    assert _payload(await ask("RegisterSchedules", {"schedules": [_MANIFEST]}, other))["created"] == ["nightly"]

    async def tenants(caller: Caller) -> list[str]:
        listed = _payload(await ask("ListSchedules", {}, caller))
        return [each["tenant_id"] for each in listed.get("schedules", [])]

    for caller, expected in ((own, tenant), (other, f"{tenant}.2")):
        assert await eventually(lambda caller=caller: tenants(caller), bool) == [expected]


async def test_a_caller_of_several_tenants_says_which(ask: Ask, tenant: str) -> None:
    caller = _caller(tenant, f"{tenant}.2")
    with pytest.raises(ServiceError) as caught:
        await ask("RegisterSchedules", {"schedules": [_MANIFEST]}, caller)
    assert caught.value.reason is Reason.TENANT_UNCLEAR


async def test_the_project_is_that_of_the_token_where_none_is_named(ask: Ask, tenant: str) -> None:
    caller = _caller(tenant, project="shop")
    await ask("RegisterSchedules", {"schedules": [_MANIFEST]}, caller)
    assert _payload(await ask("PauseSchedule", {"schedule_id": "nightly"}, caller))["project_id"] == "shop"
    with pytest.raises(ServiceError, match="no schedule 'nightly' in the project 'default'"):
        await ask("PauseSchedule", {"schedule_id": "nightly", "project_id": "default"}, caller)


@pytest.mark.parametrize("method", ["RegisterSchedules", "PauseSchedule", "DeleteSchedule", "ListSchedules"])
@pytest.mark.parametrize(
    ("permission", "steers", "lists"),
    [
        pytest.param("worker:schedule", True, True, id="schedule"),
        pytest.param("worker:execute", True, True, id="execute"),
        pytest.param("worker:read", False, True, id="read"),
        pytest.param("admin:all", False, False, id="admin"),
    ],
)
async def test_permissions(ask: Ask, tenant: str, method: str, permission: str, steers: bool, lists: bool) -> None:
    caller = _caller(tenant, permissions=(permission,))
    reason = None
    try:
        await ask(method, {"schedule_id": "none"} if method.endswith("Schedule") else {}, caller)
    except ServiceError as error:
        reason = error.reason
    if lists if method == "ListSchedules" else steers:
        assert reason is (Reason.SCHEDULE_UNKNOWN if method.endswith("Schedule") else None)
    else:
        assert reason is Reason.PERMISSION_MISSING
