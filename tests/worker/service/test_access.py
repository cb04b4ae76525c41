"""The table of who may do what, walked whole: every method, across permissions, tenants, projects and scopes."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.code.v1 import code_temporal
from contextunity.gen.contextunity.core import SecurityScopes
from pydantic import SecretStr

from contextunity.core import ContextUnit, codec, worker_pb2, worker_pb2_grpc
from contextunity.core.tokens import ContextToken, ProjectBinding, mint
from contextunity.modules.code.plugin import module as code_module
from contextunity.worker.auth import authenticator_for
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.quotas import Quotas
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService
from contextunity.worker.service.code import runs_code
from contextunity.worker.settings import Settings, TenantQuotas
from contextunity.worker.temporal import connect

from .conftest import Desk, Refusal, raw_unit, refusal_of

_ROOT = Path(__file__).parents[3]
_SECRET = "a secret of more than thirty-two bytes, for tests"
_PROJECT, _OTHER_PROJECT = "acme", "globex"
_EVERYTHING = frozenset({"worker:execute", "worker:read", "worker:schedule"})

# What is decided of each method, beside what the table says: a method that is new is to be put into both.
_WRITE = {
    *("StartWorkflow", "ExecuteCode", "CancelTask", "TerminateTask", "SignalTask", "UpdateTask"),
    *("RegisterSchedules", "PauseSchedule", "ResumeSchedule", "TriggerSchedule", "DeleteSchedule"),
}
_READ = {
    *("GetTaskStatus", "WatchTask", "QueryTask", "ListTasks"),
    *("ListSchedules", "DescribeContracts"),
}
_STARTS_CODE_BY_SCHEDULE = {"RegisterSchedules", "ResumeSchedule", "TriggerSchedule"}
_TASK: dict[str, dict[str, Any]] = {
    "GetTaskStatus": {},
    "WatchTask": {},
    "QueryTask": {"query": "progress"},
    "SignalTask": {"signal": "note", "args": {"text": "x"}},
    "UpdateTask": {"update": "rename", "args": {"name": "mine"}},
    "CancelTask": {},
    "TerminateTask": {},
}
_SCHEDULE = ("PauseSchedule", "ResumeSchedule", "TriggerSchedule", "DeleteSchedule")
_NIGHTLY = {"schedule_id": "nightly", "workflow_type": "ping", "cron": "0 3 * * *"}
_CODE = {"schedule_id": "code", "workflow_type": "execute_code", "cron": "0 3 * * *", "args": {"code": "1"}}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of docs/reference/access.md."""

    permissions: frozenset[str]
    scopes: str
    other_tenant: str
    named_tenant: str
    no_tenant: str
    other_project: str
    code: frozenset[str]


def _rows() -> dict[str, Row]:
    text = (_ROOT / "docs/reference/access.md").read_text(encoding="utf-8")
    cells = [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return {
        each[0]: Row(
            permissions=frozenset(each[1].split(", ")),
            scopes=each[2].removeprefix("security."),
            other_tenant=each[4],
            named_tenant=each[5],
            no_tenant=each[6],
            other_project=each[7],
            code=frozenset(each[8].split(", ")) - {"as any"},
        )
        for each in cells
        if len(each) == 9 and each[1].startswith("worker:")
    }


def test_the_table_is_that_of_the_code() -> None:
    done = subprocess.run(
        [sys.executable, str(_ROOT / "tools/access_reference.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_method_is_decided_upon() -> None:
    rows = _rows()
    assert rows.keys() == set(worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].methods_by_name)
    assert {name for name, row in rows.items() if row.scopes == "write"} == _WRITE
    assert {name for name, row in rows.items() if row.scopes == "read"} == _READ
    assert {name for name, row in rows.items() if row.code} == _STARTS_CODE_BY_SCHEDULE
    assert all(row.code in (frozenset(), frozenset({"worker:execute"})) for row in rows.values())


def _token(
    permissions: Iterable[str], tenants: Iterable[str], project: str = _PROJECT, kind: Any = None, **more: Any
) -> str:
    binding = None if kind is None else ProjectBinding(kind=kind, project_id=project)
    token = ContextToken(
        token_id="for a test",
        permissions=tuple(permissions),
        allowed_tenants=tuple(tenants),
        project_binding=binding,
        **more,
    )
    return mint(token, kid=f"{project}:hmac-001", secret=_SECRET.encode())


@dataclass(kw_only=True)
class Guarded:
    """A service that asks for tokens and knows the code module, and the tenants of one test."""

    stub: Any
    own: str = field(default_factory=lambda: f"own-{uuid.uuid4().hex[:12]}")
    other: str = field(default_factory=lambda: f"other-{uuid.uuid4().hex[:12]}")
    tasks: dict[str, str] = field(default_factory=dict[str, str])
    """Ids of tasks that were started, with the tenant that can see them."""

    async def ask(
        self, method: str, payload: dict[str, Any], token: str, security: SecurityScopes | None = None
    ) -> tuple[str, Any]:
        """The reason of a refusal, empty where there is none; and the answer as plain data."""
        unit: Any = raw_unit(unit_id=str(uuid.uuid4()), payload=codec.dict_to_struct(payload))
        if security is not None:
            unit.security.SetInParent()
            unit.security.read.extend(security.read)
            unit.security.write.extend(security.write)
        call = getattr(self.stub, method)(unit, metadata=[("authorization", f"Bearer {token}")], timeout=60)
        try:
            answer = await (call.read() if method == "WatchTask" else call)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error)
            if refusal.reason == "SCOPE_MISSING":
                assert security is not None
                kind = "write" if method in _WRITE else "read"
                assert refusal.metadata["access"] == kind
                assert refusal.metadata["scopes"] == ",".join(getattr(security, kind))
            if refusal.reason.endswith(("_MISSING", "_REFUSED")):
                assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
            return refusal.reason, refusal
        call.cancel()
        assert answer.HasField("security") == (security is not None)
        if security is not None:
            assert (answer.security.read, answer.security.write) == (security.read, security.write)
        return "", dict(ContextUnit.from_protobuf(answer).payload)

    async def done(self, method: str, payload: dict[str, Any], token: str) -> dict[str, Any]:
        reason, told = await self.ask(method, payload, token)
        assert reason == "", (method, told)
        return dict(told)

    @property
    def owner(self) -> str:
        return _token(_EVERYTHING, [self.own])

    async def task(self) -> str:
        told = await self.done(
            "StartWorkflow", {"workflow_type": "work", "name": "mine", "mode": "MODE_WAIT"}, self.owner
        )
        self.tasks[told["workflow_id"]] = self.own
        return str(told["workflow_id"])

    async def schedule(self, **entry: Any) -> None:
        payload = {"project_id": _PROJECT, "schedules": [{**_NIGHTLY, **entry}]}
        await self.done("RegisterSchedules", payload, self.owner)

    async def payload(self, method: str, task: str) -> dict[str, Any]:
        """What asks the method about something of the own tenant's, and of the project."""
        if method in _TASK:
            return {"workflow_id": task, **_TASK[method]}
        if method in _SCHEDULE:
            return {"schedule_id": "nightly", "project_id": _PROJECT}
        return {
            "StartWorkflow": {"workflow_type": "ping"},
            "ExecuteCode": {"code": "1", "wait": False},
            "ListTasks": {},
            "DescribeContracts": {},
            "RegisterSchedules": {"project_id": _PROJECT, "schedules": [_NIGHTLY]},
            "ListSchedules": {"project_id": _PROJECT},
        }[method]

    async def listed(self, method: str, token: str) -> list[Any]:
        told = await self.done(method, {}, token)
        return list(told.get("tasks", []) + told.get("schedules", []))


Serve = Callable[..., Any]


@pytest.fixture
async def guarded(
    desk: Desk, temporal_server: EmbeddedServer, desk_messages: SimpleNamespace, tmp_path: Path
) -> AsyncIterator[Guarded]:
    """The desk's workers do the work; the code module has none, so that its programs stay where they are."""
    service = code_temporal.code_service
    # Copies: a contract knows the service that it was put into last.
    aliased = dataclasses.replace(
        service,
        workflows={name: dataclasses.replace(each, aliases=("old_code",)) for name, each in service.workflows.items()},
        activities={name: dataclasses.replace(each) for name, each in service.activities.items()},
    )
    registry = WorkerRegistry()
    registry.register_all([*desk_messages.modules, dataclasses.replace(code_module, contracts=[aliased])])
    settings = Settings(host="127.0.0.1", port=0, data_folder=tmp_path, auth="token", token_secret=SecretStr(_SECRET))
    client = await connect(settings, address=temporal_server.address)
    authenticator, quotas = authenticator_for(settings), Quotas(TenantQuotas(running_programs=1000))
    async with (
        running_server(WorkerService(client, registry, quotas=quotas), settings, authenticator) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        guarded = Guarded(stub=worker_pb2_grpc.WorkerServiceStub(channel))
        yield guarded
        for workflow_id, tenant in guarded.tasks.items():
            reason, _ = await guarded.ask("TerminateTask", {"workflow_id": workflow_id}, _token(_EVERYTHING, [tenant]))
            assert reason in ("", "TASK_ENDED")


_TENANTS = ("own", "several", "other", "refused", "none")
_PROJECTS: dict[str, tuple[str, Any]] = {
    "unbound": (_PROJECT, None),
    "platform": (_OTHER_PROJECT, "platform"),
    "this": (_PROJECT, "project"),
    "other": (_OTHER_PROJECT, "project"),
}
_SCOPES = ("absent", "empty", "held", "implied", "missing", "missing elsewhere")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of caller, and what it sends."""

    permission: str
    tenant: str
    project: str
    scopes: str

    def token(self, guarded: Guarded, row: Row) -> str:
        held = {"none": set[str](), "wrong": {"admin:all", "worker:*", *(_EVERYTHING - row.permissions)}}.get(
            self.permission, {self.permission}
        )
        if self.scopes == "implied":
            held = held | {"admin:all"}
        tenants = {
            "own": [guarded.own],
            "several": [guarded.own, guarded.other],
            "other": [guarded.other],
            "refused": [guarded.other],
            "none": [],
        }[self.tenant]
        return _token(held, tenants, *_PROJECTS[self.project])

    def payload(self, guarded: Guarded, payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "tenant_id": guarded.own} if self.tenant in ("several", "refused") else payload

    def security(self, row: Row) -> SecurityScopes | None:
        asked = {
            "absent": None,
            "empty": [],
            "held": ["nobody:has", self.permission],
            "implied": ["nobody:has", "memory:read"],
            "missing": ["nobody:has", "worker:*", "brain"],
            "missing elsewhere": [],
        }[self.scopes]
        if asked is None:
            return None
        beside = ["nobody:has"] if self.scopes == "missing elsewhere" else []
        return SecurityScopes(**{row.scopes: asked, "read" if row.scopes == "write" else "write": beside})

    def expected(self, row: Row) -> str:
        """What the table says: a reason, or in small letters what happens."""
        if self.permission not in row.permissions:
            return "PERMISSION_MISSING"
        if self.scopes == "missing":
            return "SCOPE_MISSING"
        by_tenant = {"other": row.other_tenant, "refused": row.named_tenant, "none": row.no_tenant}
        answer = by_tenant.get(self.tenant, "as any")
        if self.project == "other" and row.other_project != "as any" and not answer.isupper():
            return row.other_project
        return answer


def _kinds(row: Row) -> list[Kind]:
    permissions = ("none", "wrong", *sorted(row.permissions))
    return [
        Kind(permission=permission, tenant=tenant, project=project, scopes=scopes)
        for permission, tenant, project, scopes in itertools.product(permissions, _TENANTS, _PROJECTS, _SCOPES)
    ]


@pytest.mark.parametrize("method", sorted(_READ | _WRITE))
async def test_the_table_holds_for_every_kind_of_caller(guarded: Guarded, method: str) -> None:
    row = _rows()[method]
    kinds = _kinds(row)
    if method == "DescribeContracts":
        # Contracts are nobody's, and the request has no place for a tenant.
        kinds = [each for each in kinds if each.tenant not in ("several", "refused")]
    task = await guarded.task()
    await guarded.schedule()
    for listing in ("ListTasks", "ListSchedules"):
        async with asyncio.timeout(30):
            # The server's lists follow a moment behind, and there is no event to wait for.
            while not await guarded.listed(listing, guarded.owner):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    payload = await guarded.payload(method, task)
    slots = asyncio.Semaphore(8)

    async def refused(kind: Kind) -> None:
        async with slots:
            reason, _ = await guarded.ask(
                method, kind.payload(guarded, payload), kind.token(guarded, row), kind.security(row)
            )
            assert reason == kind.expected(row), kind

    await asyncio.gather(*(refused(kind) for kind in kinds if kind.expected(row).isupper()))
    status = await guarded.done("GetTaskStatus", {"workflow_id": task}, guarded.owner)
    assert (status["status"], status["progress"]) == ("running", {"name": "mine"}), "untouched"
    (only,) = await guarded.listed("ListSchedules", guarded.owner)
    assert (only["schedule"]["schedule_id"], only["schedule"].get("paused", False)) == ("nightly", False), "untouched"
    answered = [kind for kind in kinds if not kind.expected(row).isupper()]
    assert {(kind.permission, kind.project) for kind in answered} >= {
        (permission, project) for permission in row.permissions for project in ("unbound", "platform", "this")
    }
    for kind in answered:
        if method in ("CancelTask", "TerminateTask"):
            payload = await guarded.payload(method, await guarded.task())
        elif method in _SCHEDULE:
            await guarded.schedule()
        reason, told = await guarded.ask(
            method, kind.payload(guarded, payload), kind.token(guarded, row), kind.security(row)
        )
        assert reason == "", (kind, told)
        await _check_answer(guarded, method, kind, kind.expected(row), told)


async def _check_answer(guarded: Guarded, method: str, kind: Kind, expected: str, told: dict[str, Any]) -> None:
    if method in ("StartWorkflow", "ExecuteCode"):
        tenant = guarded.other if expected == "its own" else guarded.own
        guarded.tasks[told["workflow_id"]] = tenant
        for each in (guarded.own, guarded.other):
            reason, _ = await guarded.ask(
                "GetTaskStatus", {"workflow_id": told["workflow_id"]}, _token(["worker:read"], [each])
            )
            assert reason == ("" if each == tenant else "TASK_UNKNOWN"), kind
    elif method in ("ListTasks", "ListSchedules"):
        found = told.get("tasks", []) + told.get("schedules", [])
        assert bool(found) == (expected == "as any"), kind
        assert {each["tenant_id"] for each in found} <= {guarded.own}, kind
    elif method == "RegisterSchedules":
        assert told["registered_count"] == 1, kind
    elif method in _SCHEDULE:
        assert told["tenant_id"] == guarded.own, kind
        assert told["project_id"] == _PROJECT, kind


async def test_who_is_not_asked_may_do_everything_whatever_the_scopes(desk: Desk) -> None:
    refused = list[grpc.StatusCode]()
    for method in sorted(_READ | _WRITE):
        unit = raw_unit(security=SecurityScopes(read=["nobody:has"], write=["nobody:has"]))
        try:
            answer = desk.send(method, unit)
            answer = next(answer) if method == "WatchTask" else answer
        except grpc.RpcError as error:
            refused.append(refusal_of(error).code)
            continue
        assert answer.security.read == answer.security.write == ["nobody:has"], method
    assert set(refused) == {grpc.StatusCode.INVALID_ARGUMENT}, "for want of content"


async def test_scopes_bind_however_the_unit_is_written(guarded: Guarded) -> None:
    small = raw_unit(payload=codec.dict_to_struct({"workflow_type": "ping"}))
    large = raw_unit(payload=codec.dict_to_struct({"workflow_type": "ping", "args": {"x": "x" * 100_000}}))
    first, second = (worker_pb2.ContextUnit() for _ in range(2))
    first.security.write.append("nobody:has")
    # Of a message that stands twice on the wire, protobuf takes both.
    second.security.read.append("worker:execute")
    for unit in (small, large):
        data: bytes = b"".join(each.SerializeToString() for each in (first, unit, second))
        call = guarded.stub.StartWorkflow(
            worker_pb2.ContextUnit.FromString(data), metadata=[("authorization", f"Bearer {guarded.owner}")], timeout=30
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert refusal_of(caught.value).reason == "SCOPE_MISSING"


async def test_very_many_scopes_are_named_as_far_as_trailers_carry_them(guarded: Guarded) -> None:
    many = SecurityScopes(read=[f"team:{number}:" + "x" * 400 for number in range(2_000)])
    unit: Any = raw_unit(security=many)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await guarded.stub.ListTasks(unit, metadata=[("authorization", f"Bearer {guarded.owner}")], timeout=30)
    assert refusal_of(caught.value).metadata["scopes"].startswith("team:0:")


async def test_a_bound_token_has_its_own_project_unless_it_names_one(guarded: Guarded) -> None:
    bound = _token(["worker:schedule"], [guarded.own], _OTHER_PROJECT, "project")
    await guarded.schedule()
    told = await guarded.done("RegisterSchedules", {"schedules": [{**_NIGHTLY, "schedule_id": "theirs"}]}, bound)
    assert told["created"] == ["theirs"]
    for payload in ({}, {"project_id": _OTHER_PROJECT}):
        paused = await guarded.done("PauseSchedule", {"schedule_id": "theirs", **payload}, bound)
        assert paused["project_id"] == _OTHER_PROJECT
    async with asyncio.timeout(30):
        while len(await guarded.listed("ListSchedules", guarded.owner)) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)
    assert [each["project_id"] for each in await guarded.listed("ListSchedules", bound)] == [_OTHER_PROJECT]
    # Another project's looks like one that there is not, to the letter.
    seen = [
        (await guarded.ask("PauseSchedule", {"schedule_id": name, "project_id": _PROJECT}, bound))[1]
        for name in ("nightly", "nothing")
    ]
    assert seen[0].message.replace("nightly", "nothing") == seen[1].message
    _, refusal = await guarded.ask("RegisterSchedules", {"project_id": _PROJECT, "schedules": [_NIGHTLY]}, bound)
    assert refusal.metadata["bound_project"] == _OTHER_PROJECT
    assert "leave project_id out" in refusal.message
    # Pruning is of the own project alone.
    told = await guarded.done("RegisterSchedules", {"schedules": [], "prune": True}, bound)
    assert told["removed"] == ["theirs"]
    assert [each["project_id"] for each in await guarded.listed("ListSchedules", guarded.owner)] == [_PROJECT]


async def test_a_token_that_is_bound_to_a_project_without_a_name_has_none(guarded: Guarded) -> None:
    binding = ProjectBinding(kind="project")
    token = ContextToken(
        token_id="t", permissions=("worker:schedule",), allowed_tenants=(guarded.own,), project_binding=binding
    )
    # Its bearer may write any project into the kid, which is not signed.
    for project in (_PROJECT, "default"):
        nameless = mint(token, kid=f"{project}:hmac-001", secret=_SECRET.encode())
        await guarded.schedule()
        for payload in ({}, {"project_id": _PROJECT}, {"project_id": "default"}):
            asked = {**payload, "schedules": [_NIGHTLY]}
            assert (await guarded.ask("RegisterSchedules", asked, nameless))[0] == "PROJECT_REFUSED"
            asked = {**payload, "schedule_id": "nightly"}
            assert (await guarded.ask("DeleteSchedule", asked, nameless))[0] == "SCHEDULE_UNKNOWN"
            assert (await guarded.done("ListSchedules", payload, nameless)).get("schedules", []) == []


async def test_only_who_may_run_code_has_it_run_by_a_schedule(guarded: Guarded) -> None:
    scheduler = _token(["worker:schedule", "worker:read", "admin:all"], [guarded.own])
    runner = _token(["worker:execute"], [guarded.own])
    for workflow_type in ("execute_code", "old_code"):
        entry = {**_CODE, "workflow_type": workflow_type}
        for payload in ({"schedules": [_NIGHTLY, entry]}, {"schedules": [entry], "dry_run": True}, entry):
            reason, refusal = await guarded.ask("RegisterSchedules", payload, scheduler)
            assert reason == "PERMISSION_MISSING"
            assert refusal.metadata["permissions"] == "worker:execute"
            assert refusal.metadata["schedule_id"] == "code"
        partly = {"schedules": [_NIGHTLY, entry], "partial": True}
        told = await guarded.done("RegisterSchedules", partly, scheduler)
        assert (told["status"], told["registered_count"]) == ("partial", 1)
        (fault,) = told["faults"]
        assert fault["schedule_id"] == "code"
        assert fault["reasons"][0].startswith("workflow_type: the schedule 'code' starts 'execute_code'")
        assert "worker:execute" in fault["reasons"][0]
        # One that somebody else registered: paused, stopped and removed by either, begun only by who may run code.
        told = await guarded.done("RegisterSchedules", {"schedules": [entry]}, runner)
        assert (told["created"], told["status"]) == (["code"], "ok")
        named = {"schedule_id": "code"}
        assert (await guarded.done("PauseSchedule", named, scheduler))["status"] == "paused"
        for method in ("TriggerSchedule", "ResumeSchedule"):
            assert (await guarded.ask(method, named, scheduler))[0] == "PERMISSION_MISSING", method
        assert (await guarded.done("ResumeSchedule", named, runner))["status"] == "active"
        triggered = await guarded.done("TriggerSchedule", named, runner)
        guarded.tasks[triggered["workflow_id"]] = guarded.own
        # Asked for without permission, it is asked for all the same: what is there stays.
        told = await guarded.done("RegisterSchedules", {**partly, "prune": True}, scheduler)
        assert told["removed"] == []
        assert (await guarded.done("DeleteSchedule", named, scheduler))["status"] == "deleted"
    # What runs no code of callers' needs no more than before.
    for method in _SCHEDULE:
        await guarded.done(method, {"schedule_id": "nightly"}, scheduler)


async def test_what_a_service_does_not_know_may_run_code(guarded: Guarded, desk: Desk) -> None:
    """The guarded service of the desk has no code module, and keeps its schedules all the same."""
    await guarded.done("RegisterSchedules", {"project_id": _PROJECT, "schedules": [_CODE]}, guarded.owner)
    named = {"schedule_id": "code", "project_id": _PROJECT}
    scheduler = Desk.token(guarded.own, permissions=("worker:schedule",))
    for method in ("TriggerSchedule", "ResumeSchedule"):
        with pytest.raises(Refusal) as caught:
            desk.call(method, named, token=scheduler)
        assert (caught.value.reason, caught.value.metadata["workflow_type"]) == ("PERMISSION_MISSING", "execute_code")
    desk.call("DeleteSchedule", named, token=scheduler)


def test_a_workflow_that_takes_a_program_runs_code_whatever_its_name(desk_messages: SimpleNamespace) -> None:
    (contract,) = code_temporal.code_service.workflows.values()
    assert runs_code(contract)
    assert runs_code(dataclasses.replace(contract, name="snippet"))
    assert runs_code(dataclasses.replace(contract, input_type=None))
    registry = WorkerRegistry()
    registry.register_all(desk_messages.modules)
    assert not any(map(runs_code, registry.workflows.values()))
