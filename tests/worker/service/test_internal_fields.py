"""Fields and methods that only workflows use: callers are refused, and what goes past the service gains nothing."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from contextunity.gen.contextunity.harvest.v1 import HarvestRequest, HarvestState
from contextunity.gen.contextunity.worker import (
    RegisterSchedulesRequest,
    ScheduleEntry,
    code_pb2,
    schedules_pb2,
    tasks_pb2,
)
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from temporalio.client import Client
from temporalio.common import RetryPolicy

from contextunity.core import ContextUnit, codec, worker_pb2
from contextunity.worker.internal_fields import internal_in_data, internal_in_message, is_internal
from contextunity.worker.modules.discovery import discover
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules import ScheduleManager, SchedulesRefusedError
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.plugin import ContextWorkerPlugin

from .conftest import Desk, Refusal

_PACKED = "type.googleapis.com/acme.desk.v1.Link"


def _refused(desk: Desk, method: str, payload: dict[str, Any], **options: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        desk.call(method, payload, **options)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAYLOAD_INVALID")
    return caught.value


_SET = [
    pytest.param({"told": {"name": "forged"}}, {"told"}, id="message"),
    pytest.param({"told": {}}, {"told"}, id="empty message"),
    pytest.param({"steps": 7}, {"steps"}, id="scalar"),
    pytest.param({"steps": 0}, {"steps"}, id="scalar at its default"),
    pytest.param({"stepsDone": 7}, {"stepsDone"}, id="JSON name"),
    pytest.param({"links": [{"name": "a"}, {"from": "b"}]}, {"links[1].from"}, id="in a list"),
    pytest.param({"by_name": {"x": {"from": "b"}}}, {'by_name["x"].from'}, id="in a map"),
    pytest.param({"byName": {"x": {"next": {"from": "b"}}}}, {'byName["x"].next.from'}, id="nested"),
    pytest.param({"packed": {"@type": _PACKED, "from": "b"}}, {"packed.from"}, id="in an Any"),
    pytest.param(
        {"packed": {"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": _PACKED, "from": "b"}}},
        {"packed.from"},
        id="in an Any in an Any",
    ),
    pytest.param({"steps": 1, "told": {}, "links": [{"from": "b"}]}, {"steps", "told", "links[0].from"}, id="several"),
]


@pytest.mark.parametrize(("parameters", "paths"), _SET)
def test_a_start_that_sets_them_is_refused_by_their_paths(
    desk: Desk, parameters: dict[str, Any], paths: set[str]
) -> None:
    for payload in ({**parameters}, {"args": parameters}, {"args": [parameters]}):
        refusal = _refused(desk, "StartWorkflow", {"workflow_type": "chain", **payload})
        assert refusal.violations.keys() == {f"payload.{path}" for path in paths}
        assert all("is internal" in text for text in refusal.violations.values())


def test_null_is_absent(desk: Desk) -> None:
    # The field is absent; that null is not taken for it is the codec's to say, as for every other field.
    refusal = _refused(desk, "StartWorkflow", {"workflow_type": "chain", "steps": None})
    assert "internal" not in refusal.violations["payload.steps"]


def test_a_packed_start_is_refused_too(desk: Desk, desk_messages: SimpleNamespace) -> None:
    link = desk_messages.Link
    for request, path in (
        (desk_messages.ChainRequest(told=link()), "told"),
        (desk_messages.ChainRequest(steps=3), "steps"),
        (desk_messages.ChainRequest(links=[link(), link(from_="x")]), "links[1].from"),
        (desk_messages.ChainRequest(by_name={"k": link(next=link(from_="x"))}), 'by_name["k"].next.from'),
        (desk_messages.ChainRequest(packed=codec.pack_any(link(from_="x"))), "packed.from"),
    ):
        refusal = _refused(desk, "StartWorkflow", {}, body=request)
        assert refusal.violations.keys() == {f"body.{path}"}


def test_a_packed_start_of_a_hand_written_descriptor_is_refused() -> None:
    """Whatever name or type a stranger's proto gives field 5 of a HarvestRequest, it is the same bytes."""
    file = descriptor_pb2.FileDescriptorProto(name="stranger.proto", package="stranger", syntax="proto3")
    message = file.message_type.add(name="Harvest")
    label = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    message.field.add(name="supplier", number=2, type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING, label=label)
    message.field.add(name="innocent", number=5, type=descriptor_pb2.FieldDescriptorProto.TYPE_BYTES, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    forged: Any = message_factory.GetMessageClass(pool.FindMessageTypeByName("stranger.Harvest"))()
    forged.supplier, forged.innocent = "camping-trade", codec.encode(HarvestState(harvest_id="forged"))
    packed = any_pb2.Any(type_url="type.googleapis.com/" + codec.full_name(HarvestRequest))
    packed.value = forged.SerializeToString()
    unit: Any = ContextUnit().to_protobuf(worker_pb2)
    unit.body.CopyFrom(packed)
    body = codec.unpack_any(ContextUnit.from_protobuf(unit).body)  # type: ignore[arg-type]
    assert [violation.path for violation in internal_in_message(body)] == ["resume"]


@pytest.mark.parametrize(
    ("method", "handler"), [("QueryTask", "query"), ("SignalTask", "signal"), ("UpdateTask", "update")]
)
def test_handlers_refuse_them(desk: Desk, desk_messages: SimpleNamespace, method: str, handler: str) -> None:
    workflow_id = desk.start("chain", then="wait")
    name = {"query": "peek", "signal": "push", "update": "change"}[handler]
    target = {"workflow_id": workflow_id, handler: name}
    forged = {"name": "x", "next": {"from": "forged"}}
    assert _refused(desk, method, {**target, "args": forged}).violations.keys() == {"args.next.from"}
    packed = {**target, "input": {"@type": _PACKED, **forged}}
    assert _refused(desk, method, packed).violations.keys() == {"input.next.from"}
    assert desk.call(method, {**target, "args": {"name": "x"}})


def test_schedules_refuse_them(desk: Desk, desk_messages: SimpleNamespace) -> None:
    entry = {"schedule_id": "forged", "workflow_type": "chain", "cron": "0 3 * * *"}
    refusal = _refused(
        desk, "RegisterSchedules", {"project_id": "p", "schedules": [{**entry, "args": {"told": {"name": "forged"}}}]}
    )
    assert refusal.violations.keys() == {"payload.schedules[0].args.told"}
    packed = codec.pack_any(desk_messages.ChainRequest(steps=2))
    request = RegisterSchedulesRequest(
        schedules=[ScheduleEntry(schedule_id="forged", workflow_type="chain", cron="0 3 * * *", input=packed)]
    )
    assert _refused(desk, "RegisterSchedules", {}, body=request).violations.keys() == {"body.schedules[0].input.steps"}
    hidden = {**entry, "workflow_type": "hidden"}
    refusal = _refused(desk, "RegisterSchedules", {"schedules": [hidden]})
    assert "internal" in refusal.violations["payload.schedules[0].workflow_type"]


async def test_schedules_of_python_code_refuse_them(desk: Desk, registry: WorkerRegistry) -> None:
    client = await Client.connect(desk.temporal.address, plugins=[ContextWorkerPlugin()])
    with pytest.raises(SchedulesRefusedError, match=r"args\.steps: is internal"):
        await ScheduleManager(client, registry).create_schedule(
            schedule_id="forged", workflow_type="chain", cron="0 3 * * *", payload={"steps": 1}
        )


def test_internal_workflows_and_handlers_are_not_for_callers(desk: Desk, desk_messages: SimpleNamespace) -> None:
    refusal = _refused(desk, "StartWorkflow", {"workflow_type": "hidden"})
    assert "is internal" in refusal.violations["payload.workflow_type"]
    refusal = _refused(desk, "StartWorkflow", {"workflow_type": "hidden"}, body=desk_messages.ChainRequest())
    assert "is internal" in refusal.violations["payload.workflow_type"]
    workflow_id = desk.start("chain", then="wait")
    refusal = _refused(desk, "SignalTask", {"workflow_id": workflow_id, "signal": "nudge"})
    assert "is internal" in refusal.violations["signal"]
    # A body alone finds the one workflow that callers may start with it.
    assert desk.call("StartWorkflow", {}, body=desk_messages.ChainRequest()).payload["workflow_id"]


def test_contracts_leave_them_out(desk: Desk) -> None:
    contracts = {each["workflow_type"]: each for each in desk.call("DescribeContracts", {}).payload["contracts"]}
    assert "hidden" not in contracts
    chain = contracts["chain"]
    assert [field["name"] for field in chain["fields"]] == ["name", "links", "by_name", "packed", "then"]
    assert [signal["name"] for signal in chain["signals"]] == ["push"]


def _start_directly(desk: Desk, request: Any, output: type[Any], **options: Any) -> Any:
    async def start() -> Any:
        client = await Client.connect(desk.temporal.address, plugins=[ContextWorkerPlugin()])
        return await client.execute_workflow(
            options.pop("name", "chain"),
            request,
            id=f"direct-{uuid.uuid4()}",
            task_queue="sealed",
            result_type=output,
            execution_timeout=timedelta(seconds=30),
            **options,
        )

    return asyncio.run(start())


@pytest.mark.parametrize("name", ["chain", "hidden"])
def test_a_start_past_the_service_gains_nothing(desk: Desk, desk_messages: SimpleNamespace, name: str) -> None:
    link = desk_messages.Link
    forged = desk_messages.ChainRequest(
        told=link(name="forged"), steps=9, links=[link(from_="forged")], by_name={"a": link(from_="forged")}
    )
    known = _start_directly(desk, forged, desk_messages.ChainResponse, name=name)
    assert known == desk_messages.ChainResponse(links=["", ""])


def test_a_retry_of_a_start_past_the_service_gains_nothing_either(desk: Desk, desk_messages: SimpleNamespace) -> None:
    forged = desk_messages.ChainRequest(told=desk_messages.Link(name="forged"), then="retry")
    known = _start_directly(
        desk,
        forged,
        desk_messages.ChainResponse,
        retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10), maximum_attempts=2),
    )
    assert known == desk_messages.ChainResponse()


def test_the_next_run_and_a_child_are_told(desk: Desk) -> None:
    assert desk.wait(desk.start("chain", then="hop"))["result"] == {
        "told": "the run before",
        "steps": 1,
        "links": ["the run before"],
    }
    assert desk.wait(desk.start("chain", then="child"))["result"]["told"] == "the parent"


# Every field of every input message of the modules that come along. A new field is a decision: may callers set it?
_INPUTS = {
    "contextunity.code.v1.ExecuteRequest": {
        "public": {"code", "language", "limits", "inputs", "files", "tools", "tenant_id", "lower_timeout"},
        "internal": set[str](),
    },
    "contextunity.gardener.v1.EnrichRequest": {
        "public": {"tenant_id", "supplier_code", "skus", "force", "batch_size", "parallel_batches", "retry_max"},
        "internal": {"resume"},
    },
    "contextunity.gardener.v1.GardenerRequest": {
        "public": {"tenant_id", "batch_size", "parallel_batches", "poll_interval", "retry_max"},
        "internal": {"resume"},
    },
    "contextunity.gardener.v1.SetBatchSizeRequest": {"public": {"batch_size"}, "internal": set[str]()},
    "contextunity.harvest.v1.HarvestRequest": {
        "public": {"tenant_id", "supplier_code", "page_size", "max_products", "allow_delisting", "force"},
        "internal": {"resume"},
    },
    "contextunity.harvest.v1.ListRejectedRequest": {
        "public": {"tenant_id", "supplier_code", "harvest_id", "reason", "page_size", "page_token", "severity"},
        "internal": set[str](),
    },
    "contextunity.harvest.v1.SetPageSizeRequest": {"public": {"page_size"}, "internal": set[str]()},
}


def test_each_field_of_each_input_is_public_or_internal_by_decision() -> None:
    registry = discover(Settings())
    found = dict[str, dict[str, set[str]]]()
    for contract in registry.workflows.values():
        handlers = (
            binding.contract
            for bindings in (contract.queries, contract.signals, contract.updates)
            for binding in bindings.values()
        )
        for method in (contract, *handlers):
            if method.input_type is not None:
                fields = codec.proto_class(method.input_type).DESCRIPTOR.fields
                found[codec.full_name(method.input_type)] = {
                    "public": {field.name for field in fields if not is_internal(field)},
                    "internal": {field.name for field in fields if is_internal(field)},
                }
    assert found == _INPUTS


def test_plain_data_that_is_no_message_is_left_to_the_codec() -> None:
    descriptor = codec.proto_class(HarvestRequest).DESCRIPTOR
    for data in ({"resume": None}, {"supplier_code": {"resume": 1}}, {"page_size": [1]}, [], "resume", None):
        assert internal_in_data(data, descriptor) == []


def _reached(descriptor: Any, path: str, seen: frozenset[str]) -> dict[str, str]:
    """The message types that a caller can set, by the first path to each; internal fields are not followed."""
    found = {str(descriptor.full_name): path}
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and inner.full_name not in seen and not is_internal(field):
            below = _reached(inner, f"{path}.{field.name}", seen | {inner.full_name})
            found = {**below, **found}
    return found


def test_no_input_of_any_call_reaches_what_modules_keep_for_themselves() -> None:
    """A program's snapshot and a harvest's state are believed by the activities that get them."""
    registry = discover(Settings())
    inputs = dict[str, Any]()
    for contract in registry.workflows.values():
        bindings = (*contract.queries.values(), *contract.signals.values(), *contract.updates.values())
        for method in (contract, *(binding.contract for binding in bindings)):
            if method.input_type is not None:
                inputs[method.method] = codec.proto_class(method.input_type).DESCRIPTOR
    for file in (tasks_pb2, schedules_pb2, code_pb2):
        for name, descriptor in file.DESCRIPTOR.message_types_by_name.items():
            if name.endswith("Request"):
                inputs[name] = descriptor
    assert {"contextunity.harvest.v1.HarvestService.Harvest", "ExecuteCodeRequest"} <= inputs.keys()
    reached = dict[str, str]()
    for name, descriptor in inputs.items():
        reached |= _reached(descriptor, name, frozenset())
    assert "contextunity.code.v1.Limits" in reached
    kept = {
        "contextunity.code.v1.ProgramState",
        "contextunity.gardener.v1.GardenerState",
        "contextunity.harvest.v1.HarvestState",
    }
    assert {kind: path for kind, path in reached.items() if kind in kept} == {}


def test_an_activity_cannot_be_started_as_a_workflow(desk: Desk) -> None:
    with pytest.raises(Refusal) as caught:
        desk.call("StartWorkflow", {"workflow_type": "step", "name": "x"})
    assert caught.value.reason == "WORKFLOW_TYPE_UNKNOWN"
