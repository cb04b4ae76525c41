"""The contracts' own services over gRPC: their messages go in and come out, and metadata says what else there is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from contextunity.gen.contextunity.worker import FailureCause, FailureCauseKind, TaskState
from contextunity.gen.contextunity.worker import TaskStatus as TaskStatusData
from contextunity.gen.contextunity.worker.tasks_pb2 import TaskStatus
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from temporalio.client import Client

from contextunity.core import codec
from contextunity.worker.auth import authenticator_for
from contextunity.worker.grpc_errors import Reason, ServiceError, to_status
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.quotas import Quotas
from contextunity.worker.server import running_server
from contextunity.worker.service import WorkerService, contract_methods, results, watch
from contextunity.worker.service.contract_methods import CallOptions, ContractMethods
from contextunity.worker.settings import Settings, TenantQuotas
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

from .conftest import Desk, Refusal, refusal_of, serving

_Metadata = list[tuple[str, str | bytes]]


class Started:
    """A call under way. It is made as one of a stream, since grpcio's threads tell of a single answer all at once."""

    def __init__(self, call: Any) -> None:
        self._call = call

    @property
    def ids(self) -> dict[str, Any]:
        return {key: value for key, value in self._call.initial_metadata() if key.startswith("contextunity-")}

    @property
    def workflow_id(self) -> str:
        return str(self.ids["contextunity-workflow-id"])

    def result(self) -> bytes:
        try:
            (data,) = self._call
        except grpc.RpcError as error:
            raise refusal_of(error) from None
        return bytes(data)

    def error(self) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            list(self._call)
        return caught.value

    def done(self) -> bool:
        return bool(self._call.done())

    def cancel(self) -> None:
        self._call.cancel()


class Typed:
    """Calls methods of the desk's own service."""

    def __init__(self, desk: Desk, messages: SimpleNamespace) -> None:
        self.messages = messages
        self._channels = {target: grpc.insecure_channel(target) for target in (desk.target, desk.guarded_target)}
        self._desk = desk

    def begin(
        self, method: str, message: Any = None, *, token: str = "", timeout: float | None = 20, **metadata: str | bytes
    ) -> Started:
        """A call under way; keys of metadata are written without their prefix, with `_` for `-`."""
        channel = self._channels[self._desk.guarded_target if token else self._desk.target]
        entries: _Metadata = [(f"contextunity-{key.replace('_', '-')}", value) for key, value in metadata.items()]
        if token:
            entries.append(("authorization", f"Bearer {token}"))
        path = method if "/" in method else f"/acme.desk.v1.Desk/{method}"
        data = b"" if message is None else codec.encode(message)
        return Started(channel.unary_stream(path)(data, metadata=tuple(entries), timeout=timeout))

    def call(self, method: str, message: Any = None, answer: Any = None, **options: Any) -> Any:
        data = self.begin(method, message, **options).result()
        return data if answer is None else codec.decode(answer, data)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()


@pytest.fixture(scope="module")
def typed(desk: Desk, desk_messages: SimpleNamespace) -> Iterator[Typed]:
    typed = Typed(desk, desk_messages)
    yield typed
    typed.close()


def _work(typed: Typed, mode: str = "DONE", **fields: Any) -> Any:
    return typed.messages.WorkRequest(**{"name": "a", "mode": typed.messages.Mode[mode], **fields})


def _waiting(typed: Typed, **options: Any) -> tuple[Started, str]:
    """A call that waits for a task, and the id of that."""
    call = typed.begin("Work", _work(typed, "WAIT"), **options)
    return call, call.workflow_id


def test_a_workflow_is_called_as_what_it_is(typed: Typed, desk: Desk) -> None:
    call = typed.begin("Work", _work(typed, big=2**60, tenant_id="one"))
    assert codec.decode(typed.messages.WorkResponse, call.result()) == typed.messages.WorkResponse(
        text="a for one", big=2**60
    )
    ids = call.ids
    status = desk.status(ids["contextunity-workflow-id"])
    assert (status["status"], status["run_id"], status["tenant_id"]) == (
        "completed",
        ids["contextunity-run-id"],
        "one",
    )


def test_what_takes_and_gives_nothing_is_called_with_nothing(typed: Typed) -> None:
    assert typed.call("Ping") == b""


def test_ids_come_at_once_and_queries_signals_and_updates_go_by_them(typed: Typed) -> None:
    messages = typed.messages
    call, workflow_id = _waiting(typed)
    to = {"workflow_id": workflow_id}
    typed.call("Note", messages.NoteRequest(text="seen"), **to)
    assert typed.call("GetProgress", None, messages.Progress, **to).noted == 1
    assert typed.call("Recall", messages.RecallRequest(index=0), messages.RecallResponse, **to).text == "seen"
    assert typed.call("Rename", messages.RenameRequest(name="b"), messages.RenameResponse, **to).before == "a"
    assert not call.done()
    typed.call("Finish", **to)
    assert codec.decode(messages.WorkResponse, call.result()).text == "b for default"


def test_a_run_that_goes_on_as_another_is_followed(typed: Typed, desk: Desk) -> None:
    call = typed.begin("Work", _work(typed, "HOP", hops=1))
    first = call.ids["contextunity-run-id"]
    desk.wait_until(call.workflow_id, lambda status: bool(status["run_id"] != first))
    typed.call("Finish", workflow_id=call.workflow_id)
    assert codec.decode(typed.messages.WorkResponse, call.result()).text == "a for default"


def test_the_same_call_again_attaches_by_its_request_id(typed: Typed) -> None:
    request = {"request_id": str(uuid.uuid4())}
    first, workflow_id = _waiting(typed, **request)
    second, same = _waiting(typed, **request)
    assert first.ids == second.ids
    assert same == workflow_id
    typed.call("Finish", workflow_id=workflow_id)
    answer = first.result()
    assert answer == second.result() == typed.call("Work", _work(typed, "WAIT"), **request)


def test_without_an_id_each_call_is_a_task_of_its_own(typed: Typed) -> None:
    assert len({typed.begin("Ping").workflow_id for _ in range(2)}) == 2


def test_a_contract_that_joins_has_calls_join(typed: Typed) -> None:
    message = typed.messages.NamedRequest(name=f"é{uuid.uuid4()}")
    calls = [typed.begin("Join", message) for _ in range(2)]
    (first, second) = (call.ids for call in calls)
    assert first == second
    # Metadata holds no other letters than those of ASCII.
    workflow_id: Any = first["contextunity-workflow-id-bin"]
    assert workflow_id.decode() == f"join/{message.name}"
    typed.call("Finish", workflow_id_bin=workflow_id)
    assert [codec.decode(typed.messages.WorkResponse, call.result()).text for call in calls] == [message.name] * 2


def test_a_contract_that_allows_one_refuses_another(typed: Typed) -> None:
    message = typed.messages.NamedRequest(name=str(uuid.uuid4()))
    call = typed.begin("Single", message)
    workflow_id = call.workflow_id
    with pytest.raises(Refusal) as caught:
        typed.call("Single", message)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TASK_EXISTS")
    typed.call("Finish", workflow_id=workflow_id)
    call.result()


def test_a_call_that_detaches_returns_after_the_start(typed: Typed, desk: Desk) -> None:
    call = typed.begin("Work", _work(typed, "WAIT"), detach="true")
    assert call.result() == b""
    workflow_id = call.workflow_id
    assert desk.status(workflow_id)["status"] == "running"
    desk.call("TerminateTask", {"workflow_id": workflow_id})


def test_a_deadline_ends_the_call_and_leaves_the_task(typed: Typed, desk: Desk) -> None:
    request = {"request_id": str(uuid.uuid4())}
    call = typed.begin("Work", _work(typed, "WAIT"), timeout=1, on_cancel="cancel", **request)
    assert call.error().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    workflow_id = call.workflow_id
    again, _ = _waiting(typed, **request)
    typed.call("Finish", workflow_id=workflow_id)
    again.result()
    assert desk.status(workflow_id)["status"] == "completed"


@pytest.mark.parametrize(("options", "ends"), [({}, "terminated"), ({"on_cancel": "cancel"}, "cancelled")])
def test_a_cancelled_call_leaves_the_task_unless_told_otherwise(
    typed: Typed, desk: Desk, options: dict[str, str], ends: str
) -> None:
    call, workflow_id = _waiting(typed, **options)
    call.cancel()
    # Whatever the call does by its end, the service has heard of that before it answers the next one.
    statuses = (
        [answer.payload["status"] for answer in desk.watch({"workflow_id": workflow_id}, timeout=3)]
        if options
        else ["running"]
    )
    if not options:
        assert desk.status(workflow_id)["status"] == "running"
        desk.call("TerminateTask", {"workflow_id": workflow_id})
        statuses.append(desk.wait(workflow_id)["status"])
    assert statuses[-1] == ends


@pytest.mark.parametrize(
    ("mode", "code", "reason", "type_", "kinds"),
    [
        ("FAIL", grpc.StatusCode.FAILED_PRECONDITION, "TASK_FAILED", "CannotBeDone", ["APPLICATION"]),
        ("FAIL_ACTIVITY", grpc.StatusCode.ALREADY_EXISTS, "TASK_FAILED", "StepBroke", ["ACTIVITY", "APPLICATION"]),
    ],
)
def test_a_task_that_fails_tells_why_with_the_whole_chain(
    typed: Typed, mode: str, code: grpc.StatusCode, reason: str, type_: str, kinds: list[str]
) -> None:
    call = typed.begin("Work", _work(typed, mode))
    error = call.error()
    refusal = refusal_of(error)
    assert (refusal.code, refusal.reason, refusal.metadata["type"]) == (code, reason, type_)
    assert refusal.metadata["workflow_id"] == call.workflow_id
    (status,) = _details(error, TaskStatus)
    assert [status.failure[0].Kind.Name(each.kind).removeprefix("KIND_") for each in status.failure] == kinds


def _details(error: Any, message_class: Any) -> list[Any]:
    status = rpc_status.from_call(error)
    assert status is not None
    return [message_class.FromString(each.value) for each in status.details if each.Is(message_class.DESCRIPTOR)]


@pytest.mark.parametrize(
    ("method", "code", "reason"),
    [
        ("CancelTask", grpc.StatusCode.CANCELLED, "TASK_CANCELLED"),
        ("TerminateTask", grpc.StatusCode.ABORTED, "TASK_TERMINATED"),
    ],
)
def test_a_task_that_somebody_ends_tells_so(
    typed: Typed, desk: Desk, method: str, code: grpc.StatusCode, reason: str
) -> None:
    call, workflow_id = _waiting(typed)
    desk.call(method, {"workflow_id": workflow_id, "reason": "no need any more"})
    refusal = refusal_of(call.error())
    assert (refusal.code, refusal.reason) == (code, reason)
    assert "no need any more" in refusal.message


@pytest.mark.parametrize(
    ("method", "fields", "metadata", "violations"),
    [
        pytest.param("Work", {"name": "", "count": 101}, {}, {"name", "count"}, id="rules"),
        pytest.param("Work", {"tenant_id": "one"}, {"tenant": "two"}, {"tenant_id"}, id="two_tenants"),
        pytest.param("Work", {}, {"detatch": "true"}, {"contextunity-detatch"}, id="unknown_key"),
        pytest.param("Work", {}, {"detach": "yes"}, {"contextunity-detach"}, id="wrong_value"),
        pytest.param("Work", {}, {"on_cancel": "terminate"}, {"contextunity-on-cancel"}, id="wrong_word"),
        pytest.param("Work", {}, {"workflow_id": "mine"}, {"contextunity-workflow-id"}, id="id_of_a_start"),
        pytest.param("Work", {}, {"request_id": "x" * 201}, {"contextunity-request-id"}, id="long_request_id"),
        pytest.param("Join", {}, {"tenant": "x" * 201}, {"contextunity-tenant"}, id="no_tenant"),
        pytest.param("GetProgress", None, {}, {"contextunity-workflow-id"}, id="no_task"),
        pytest.param("/acme.desk.v1.Sealed/Chain", {"steps": 3}, {}, {"steps"}, id="internal_field"),
    ],
)
def test_what_is_wrong_is_named_as_callers_know_it(
    typed: Typed, method: str, fields: dict[str, Any] | None, metadata: dict[str, str], violations: set[str]
) -> None:
    kinds = {"Work": "WorkRequest", "Join": "NamedRequest", "/acme.desk.v1.Sealed/Chain": "ChainRequest"}
    message = None
    if fields is not None:
        message = getattr(typed.messages, kinds[method])(**{"name": "a", **fields})
    with pytest.raises(Refusal) as caught:
        typed.call(method, message, **metadata)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID")
    assert set(caught.value.violations) == violations


def test_what_is_no_message_is_told_so(typed: Typed, desk: Desk) -> None:
    with grpc.insecure_channel(desk.target) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/acme.desk.v1.Desk/Work")(b"\xff\xff", timeout=10)
    refusal = refusal_of(caught.value)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BODY_INVALID")


@pytest.mark.parametrize(
    ("method", "word"),
    [("Step", "activity"), ("/acme.desk.v1.Sealed/Hidden", "workflows"), ("/acme.desk.v1.Sealed/Nudge", "workflows")],
)
def test_what_is_not_for_callers_is_refused_with_a_sentence(typed: Typed, method: str, word: str) -> None:
    options = {"workflow_id": "x"} if method.endswith("Nudge") else {}
    with pytest.raises(Refusal) as caught:
        typed.call(method, **options)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_FOR_CALLERS")
    assert word in caught.value.message


def test_a_query_of_another_contract_is_refused(typed: Typed) -> None:
    call = typed.begin("Single", typed.messages.NamedRequest(name=str(uuid.uuid4())))
    workflow_id = call.workflow_id
    with pytest.raises(Refusal) as caught:
        typed.call("GetProgress", workflow_id=workflow_id)
    assert caught.value.reason == "HANDLER_UNKNOWN"
    typed.call("Finish", workflow_id=workflow_id)


def test_the_tenant_is_the_fields_or_the_metadatas_or_the_tokens(typed: Typed, desk: Desk) -> None:
    text = typed.messages.WorkResponse
    assert typed.call("Work", _work(typed), text, token=Desk.token("one")).text == "a for one"
    both = Desk.token("one", "two")
    assert typed.call("Work", _work(typed), text, token=both, tenant="two").text == "a for two"
    assert typed.call("Work", _work(typed, tenant_id="two"), text, token=both, tenant="two").text == "a for two"
    for options, reason in (({}, "TENANT_UNCLEAR"), ({"tenant": "three"}, "TENANT_REFUSED")):
        with pytest.raises(Refusal) as caught:
            typed.call("Work", _work(typed), token=both, **options)
        assert caught.value.reason == reason


def test_another_tenants_task_is_unknown(typed: Typed, desk: Desk) -> None:
    workflow_id = desk.start(name="a", mode="MODE_WAIT", token=Desk.token("one"))
    with pytest.raises(Refusal) as caught:
        typed.call("GetProgress", workflow_id=workflow_id, token=Desk.token("two"))
    assert caught.value.reason == "TASK_UNKNOWN"
    assert typed.call("Finish", workflow_id=workflow_id, token=Desk.token("one")) == b""


async def test_strangers_are_refused_by_their_headers(registry: WorkerRegistry) -> None:
    async with serving(registry) as server, grpc.aio.insecure_channel(server.target) as channel:
        client = await Client.connect("127.0.0.1:1", lazy=True, plugins=[ContextWorkerPlugin()])
        for path in WorkerService(client, registry).contracts.methods:
            with pytest.raises(grpc.RpcError) as caught:
                await channel.stream_unary(path)(_never(), timeout=10)
            assert refusal_of(caught.value).reason == "TOKEN_REFUSED", path
            token = Desk.token("one", permissions=("worker:none",))
            with pytest.raises(grpc.RpcError) as caught:
                await channel.stream_unary(path)(_never(), metadata=[("authorization", f"Bearer {token}")], timeout=10)
            assert refusal_of(caught.value).reason == "PERMISSION_MISSING", path


async def _never() -> AsyncIterator[bytes]:
    """Sends nothing for longer than the call lasts."""
    await asyncio.Event().wait()
    yield b""


def test_all_who_wait_for_a_run_share_one_poll(typed: Typed, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = list[str]()
    follow = results.Results._follow

    async def counted(self: Any, tenant: str, workflow_id: str, run_id: str) -> Any:
        followed.append(run_id)
        return await follow(self, tenant, workflow_id, run_id)

    monkeypatch.setattr(results.Results, "_follow", counted)
    message = typed.messages.NamedRequest(name=str(uuid.uuid4()))
    calls = [typed.begin("Join", message) for _ in range(50)]
    workflow_id = {call.workflow_id for call in calls}
    typed.call("Finish", workflow_id=workflow_id.pop())
    assert len({call.result() for call in calls}) == 1
    assert len(followed) == 1


def test_tasks_beyond_the_polls_of_a_tenant_are_looked_at_by_and_by(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_POLLS_OF_A_TENANT", 0)
    monkeypatch.setattr(results, "_LOOK_AGAIN", 0.05)
    call, workflow_id = _waiting(typed)
    typed.call("Finish", workflow_id=workflow_id)
    assert codec.decode(typed.messages.WorkResponse, call.result()).text == "a for default"


def test_the_services_are_in_reflection(desk: Desk) -> None:
    with grpc.insecure_channel(desk.target) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asks = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="acme.desk.v1.Desk.Work"),
        ]
        listed, file = stub.ServerReflectionInfo(iter(asks), timeout=10)
    names = {each.name for each in listed.list_services_response.service}
    assert names >= {"acme.desk.v1.Desk", "acme.desk.v1.Sealed", "contextunity.worker.WorkerService"}
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(each)
        for each in file.file_descriptor_response.file_descriptor_proto
    ]
    methods = {method.name for each in files for service in each.service for method in service.method}
    assert methods >= {"Work", "Join", "GetProgress"}


async def test_a_start_past_the_service_gets_the_default_tenant(desk: Desk, desk_messages: SimpleNamespace) -> None:
    """As people start one at Temporal's command line: ProtoJSON as json/plain."""
    client = await Client.connect(desk.temporal.address, plugins=[ContextWorkerPlugin()])
    result: Any = await client.execute_workflow(
        "work", {"name": "a"}, id=f"by-hand-{uuid.uuid4()}", task_queue="desk", result_type=desk_messages.WorkResponse
    )
    assert result.text == "a for default"


async def test_a_task_ends_with_the_status_of_its_errors_type() -> None:
    def ended(kind: FailureCauseKind, type_: str, state: TaskState = TaskState.FAILED) -> grpc.StatusCode:
        cause = FailureCause(kind=kind, type=type_, message="x" * 5000)
        wrapped = [FailureCause(kind=FailureCauseKind.ACTIVITY, message="failed")] * 20
        status = TaskStatusData(workflow_id="a", status=state, failure=[*wrapped, cause], error="x" * 5000)
        error = contract_methods._ended(status, {"Taken": "ALREADY_EXISTS"})
        # Trailers of gRPC hold 8 KiB.
        assert len(to_status(error, "t").SerializeToString()) < 4500
        return error.code

    application = FailureCauseKind.APPLICATION
    assert ended(application, "NotFound") is grpc.StatusCode.NOT_FOUND
    assert ended(application, "InvalidInput") is grpc.StatusCode.INVALID_ARGUMENT
    assert ended(application, "Taken") is grpc.StatusCode.ALREADY_EXISTS
    # Clients call again by themselves where something is unavailable.
    assert ended(application, "Unavailable") is grpc.StatusCode.FAILED_PRECONDITION
    assert ended(FailureCauseKind.TIMEOUT, "NotFound") is grpc.StatusCode.FAILED_PRECONDITION
    assert ended(application, "", TaskState.TIMED_OUT) is grpc.StatusCode.FAILED_PRECONDITION


def test_the_audit_log_has_a_call_when_its_task_begins(
    typed: Typed, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="contextunity.worker.audit")
    token, request_id = Desk.token("one"), str(uuid.uuid4())
    call, workflow_id = _waiting(typed, token=token, request_id=request_id)
    typed.call("GetProgress", workflow_id=workflow_id, token=token)
    typed.call("Finish", workflow_id=workflow_id, token=token)
    call.result()
    with pytest.raises(Refusal):
        typed.call("Work", _work(typed, name=""), token=token)
    lines = [json.loads(each.getMessage()) for each in caplog.records if each.name == "contextunity.worker.audit"]
    work, finish = "acme.desk.v1.Desk/Work", "acme.desk.v1.Desk/Finish"
    assert [(line["method"], line["outcome"]) for line in lines] == [
        (work, "OK"),
        (finish, "OK"),
        (work, "INVALID_ARGUMENT"),
    ]
    assert lines[0].items() >= {"workflow_id": workflow_id, "unit_id": request_id, "tenant_id": "one"}.items()


def test_calls_that_wait_count_as_watches(typed: Typed, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    few = TenantQuotas(watches=1, concurrent_calls=2)
    monkeypatch.setattr(Quotas, "of", lambda self, tenant: few)
    token = Desk.token("four")
    call, workflow_id = _waiting(typed, token=token)
    with pytest.raises(Refusal) as caught:
        typed.call("Work", _work(typed), token=token)
    assert (caught.value.reason, caught.value.metadata["quota"]) == ("QUOTA", "watches")
    typed.call("Finish", workflow_id=workflow_id, token=token)
    call.result()


async def test_calls_that_wait_are_told_that_the_service_stops(
    typed: Typed, desk: Desk, registry: WorkerRegistry
) -> None:
    client = await Client.connect(desk.temporal.address, plugins=[ContextWorkerPlugin()])
    settings = Settings(host="127.0.0.1", port=0)
    name = str(uuid.uuid4())
    async with contextlib.AsyncExitStack() as stack:
        service = WorkerService(client, registry)
        server = await stack.enter_async_context(running_server(service, settings, authenticator_for(settings)))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.target))
        sent = {"Join": typed.messages.NamedRequest(name=name), "Work": _work(typed, "WAIT")}
        # As calls of a stream: of a single answer, grpcio tells all at once.
        calls: list[Any] = [
            channel.unary_stream(f"/acme.desk.v1.Desk/{method}")(codec.encode(message), timeout=20)
            for method, message in sent.items()
        ]
        ids = [str(dict(await call.initial_metadata())["contextunity-workflow-id"]) for call in calls]
        service.stop()
        # Where a client would start another task by calling again, the status is not one that has it do so.
        codes = [await call.code() for call in calls]
        assert codes == [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED]
    for workflow_id in ids:
        desk.call("SignalTask", {"workflow_id": workflow_id, "signal": "finish"})


@pytest.mark.parametrize(
    ("reason", "request_id", "workflow_id", "code"),
    [
        pytest.param(Reason.TEMPORAL_UNAVAILABLE, "", None, grpc.StatusCode.ABORTED, id="another task"),
        pytest.param(Reason.TEMPORAL_UNAVAILABLE, "r", None, grpc.StatusCode.UNAVAILABLE, id="known by its request"),
        pytest.param(Reason.TEMPORAL_UNAVAILABLE, "", "w", grpc.StatusCode.UNAVAILABLE, id="known by its input"),
        pytest.param(Reason.TASK_FAILED, "", None, Reason.TASK_FAILED.code, id="no outage"),
    ],
)
def test_no_client_calls_again_by_itself_where_that_would_start_another_task(
    reason: Reason, request_id: str, workflow_id: str | None, code: grpc.StatusCode
) -> None:
    contract: Any = SimpleNamespace(workflow_id=workflow_id)
    error = ServiceError(reason, "it went wrong")
    told = ContractMethods._not_repeatable(cast("Any", None), error, contract, CallOptions(request_id=request_id))
    assert (told.code, told.reason) == (code, reason)
    assert told.message.startswith("it went wrong")
    assert ("ask for the task by its id" in told.message) == (code is not reason.code)
