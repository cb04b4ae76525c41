"""The same cases by all doors: the envelope over gRPC, the contract's own service over gRPC, and JSON over HTTP."""

from __future__ import annotations

import base64
import json
import uuid
from types import SimpleNamespace
from typing import Any, Protocol

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2

from contextunity.core import ContextUnit, codec

from .conftest import Desk, Refusal, refusal_of

_Fields = dict[str, Any]


class Door(Protocol):
    """Calls the workflow `work` and its handlers; what is refused is raised as a Refusal."""

    def start(self, fields: dict[str, Any], token: str | None = None, request_id: str = "") -> tuple[str, str]: ...

    def result(self, workflow_id: str) -> dict[str, Any]: ...

    def ask(self, kind: str, name: str, workflow_id: str, fields: dict[str, Any], token: str | None = None) -> Any: ...


class Envelope:
    def __init__(self, desk: Desk, messages: SimpleNamespace) -> None:
        self._desk = desk

    def start(self, fields: dict[str, Any], token: str | None = None, request_id: str = "") -> tuple[str, str]:
        unit = ContextUnit(payload={"workflow_type": "work", **fields}, unit_id=request_id or str(uuid.uuid4()))
        answer = self._desk.call("StartWorkflow", unit=unit, token=token).payload
        return answer["workflow_id"], answer["run_id"]

    def result(self, workflow_id: str) -> dict[str, Any]:
        return dict(self._desk.wait(workflow_id)["result"])

    def ask(self, kind: str, name: str, workflow_id: str, fields: dict[str, Any], token: str | None = None) -> Any:
        payload = {"workflow_id": workflow_id, kind: name, "args": fields}
        answer = self._desk.call(f"{kind.capitalize()}Task", payload, token=token).payload
        return answer.get("result") or {}


class Typed:
    def __init__(self, desk: Desk, messages: SimpleNamespace) -> None:
        self._desk, self._messages = desk, messages
        self._kinds = {
            "Work": (messages.WorkRequest, messages.WorkResponse),
            "Note": (messages.NoteRequest, None),
            "Recall": (messages.RecallRequest, messages.RecallResponse),
            "Rename": (messages.RenameRequest, messages.RenameResponse),
            "Finish": (None, None),
        }

    def _call(
        self, name: str, fields: dict[str, Any], token: str | None, **metadata: str
    ) -> tuple[dict[str, Any], Any]:
        request, response = self._kinds[name]
        data = b"" if request is None else codec.encode(codec.from_dict(request, fields))
        entries = [(f"contextunity-{key.replace('_', '-')}", value) for key, value in metadata.items() if value]
        entries += [("authorization", f"Bearer {token}")] if token else []
        with grpc.insecure_channel(self._desk.guarded_target if token else self._desk.target) as channel:
            call: Any = channel.unary_unary(f"/acme.desk.v1.Desk/{name}")
            try:
                answer, done = call.with_call(data, metadata=entries, timeout=20)
            except grpc.RpcError as error:
                raise refusal_of(error) from None
            return (codec.to_dict(codec.decode(response, answer)) if response else {}), dict(done.initial_metadata())

    def start(self, fields: dict[str, Any], token: str | None = None, request_id: str = "") -> tuple[str, str]:
        _, ids = self._call("Work", fields, token, detach="true", request_id=request_id)
        return ids["contextunity-workflow-id"], ids["contextunity-run-id"]

    def result(self, workflow_id: str) -> dict[str, Any]:
        return dict(self._desk.wait(workflow_id)["result"])

    def ask(self, kind: str, name: str, workflow_id: str, fields: dict[str, Any], token: str | None = None) -> Any:
        return self._call(name.capitalize(), fields, token, workflow_id=workflow_id)[0]


class Json(Typed):
    def _call(
        self, name: str, fields: dict[str, Any], token: str | None, **metadata: str
    ) -> tuple[dict[str, Any], Any]:
        headers = {f"contextunity-{key.replace('_', '-')}": value for key, value in metadata.items() if value}
        headers |= {"content-type": "application/json"}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        url = f"{self._desk.guarded_http if token else self._desk.http}/acme.desk.v1.Desk/{name}"
        answer = httpx.post(url, content=json.dumps(fields), headers=headers, timeout=20)
        if answer.status_code != 200:
            raise _refusal(answer.json())
        return answer.json(), answer.headers


def _refusal(error: dict[str, Any]) -> Refusal:
    code = grpc.StatusCode[error["code"].upper().replace("CANCELED", "CANCELLED")]
    refusal = Refusal(code, "", error["message"], {})
    for detail in error["details"]:
        data = base64.b64decode(detail["value"] + "==")
        if detail["type"] == "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo.FromString(data)
            refusal.reason, refusal.metadata = info.reason, dict(info.metadata)
        elif detail["type"] == "google.rpc.BadRequest":
            request = error_details_pb2.BadRequest.FromString(data)
            refusal.violations = {each.field: each.description for each in request.field_violations}
    return refusal


@pytest.fixture(params=[Envelope, Typed, Json], ids=["envelope", "typed", "json"])
def door(request: pytest.FixtureRequest, desk: Desk, desk_messages: SimpleNamespace) -> Door:
    made: Door = request.param(desk, desk_messages)
    return made


def _last(fields: set[str]) -> set[str]:
    """Fields without the place of the message in the request, which is the envelope's alone."""
    return {field.removeprefix("payload.").removeprefix("args.") for field in fields}


def test_a_task_is_started_steered_and_ends(door: Door, desk: Desk) -> None:
    workflow_id, run_id = door.start({"name": "a", "mode": "MODE_WAIT", "tenant_id": "one"})
    status = desk.status(workflow_id)
    assert (status["run_id"], status["status"], status["tenant_id"]) == (run_id, "running", "one")
    door.ask("signal", "note", workflow_id, {"text": "seen"})
    assert door.ask("query", "recall", workflow_id, {"index": 0}) == {"text": "seen"}
    assert door.ask("update", "rename", workflow_id, {"name": "b"}) == {"before": "a"}
    door.ask("signal", "finish", workflow_id, {})
    assert door.result(workflow_id) == {"text": "b for one", "notes": ["seen"]}


def test_a_repetition_gives_the_same_run(door: Door, desk: Desk) -> None:
    request_id = str(uuid.uuid4())
    first = door.start({"name": "a", "mode": "MODE_DONE"}, request_id=request_id)
    desk.wait(first[0])
    assert door.start({"name": "a", "mode": "MODE_DONE"}, request_id=request_id) == first


@pytest.mark.parametrize(
    ("fields", "violations"),
    [
        ({"name": "", "count": 101}, {"name", "count"}),
        ({"name": "a", "tags": ["x" * 11]}, {"tags[0]"}),
        ({"name": "a", "inner": {"level": 10}}, {"inner.level"}),
        ({"name": "a", "tenant_id": "a b"}, {"tenant_id"}),
    ],
)
def test_what_is_wrong_is_named(door: Door, fields: dict[str, Any], violations: set[str]) -> None:
    _check_violations(door, fields, violations)


@pytest.mark.parametrize("door", [Envelope, Json], ids=["envelope", "json"], indirect=True)
@pytest.mark.parametrize(("fields", "violations"), [({"nmae": "a"}, {"nmae"}), ({"name": 3}, {"name"})])
def test_what_is_no_message_is_named(door: Door, fields: dict[str, Any], violations: set[str]) -> None:
    """Of a message in bytes there is no such thing."""
    _check_violations(door, fields, violations)


def _check_violations(door: Door, fields: dict[str, Any], violations: set[str]) -> None:
    with pytest.raises(Refusal) as caught:
        door.start(fields)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID")
    assert _last(set(caught.value.violations)) == violations


@pytest.mark.parametrize(
    ("tenants", "permissions", "fields", "code", "reason"),
    [
        (("one",), ("worker:read",), {}, grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING"),
        (("one",), ("worker:execute",), {"tenant_id": "two"}, grpc.StatusCode.PERMISSION_DENIED, "TENANT_REFUSED"),
        (("one", "two"), ("worker:execute",), {}, grpc.StatusCode.INVALID_ARGUMENT, "TENANT_UNCLEAR"),
        ((), ("worker:execute",), {}, grpc.StatusCode.PERMISSION_DENIED, "TENANT_REFUSED"),
    ],
)
def test_what_a_caller_may_not_is_refused(
    door: Door,
    tenants: tuple[str, ...],
    permissions: tuple[str, ...],
    fields: dict[str, Any],
    code: grpc.StatusCode,
    reason: str,
) -> None:
    with pytest.raises(Refusal) as caught:
        door.start({"name": "a", **fields}, token=Desk.token(*tenants, permissions=permissions))
    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_another_tenants_task_is_unknown(door: Door) -> None:
    workflow_id, _ = door.start({"name": "a", "mode": "MODE_WAIT"}, token=Desk.token("one"))
    with pytest.raises(Refusal) as caught:
        door.ask("query", "recall", workflow_id, {"index": 0}, token=Desk.token("two"))
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "TASK_UNKNOWN")
    door.ask("signal", "finish", workflow_id, {}, token=Desk.token("one"))


def test_what_a_workflow_rejects_is_told(door: Door) -> None:
    workflow_id, _ = door.start({"name": "a", "mode": "MODE_WAIT"})
    with pytest.raises(Refusal) as caught:
        door.ask("update", "rename", workflow_id, {"name": ""})
    assert (caught.value.reason, caught.value.metadata["type"]) == ("UPDATE_REJECTED", "NameMissing")
    with pytest.raises(Refusal) as caught:
        door.ask("query", "recall", workflow_id, {"index": 7})
    assert caught.value.reason == "QUERY_FAILED"
    door.ask("signal", "finish", workflow_id, {})
