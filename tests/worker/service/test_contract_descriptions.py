"""What DescribeContracts gives where it is asked for more: descriptors, schemas, options; else it gives no more."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from contextunity.gen.contextunity.worker import DescribeContractsRequest, DescribeContractsResult
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from jsonschema import Draft202012Validator

from contextunity.core import codec
from contextunity.worker.core.registry import WorkerRegistry
from contextunity.worker.service import descriptors
from contextunity.worker.service.contracts import DescribeContractsHandler
from python_temporal.contract import ServiceContract

from .conftest import Desk, Refusal


async def _described(registry: WorkerRegistry, *names: str, **asked: bool) -> DescribeContractsResult:
    describing: Any = DescribeContractsHandler(SimpleNamespace(registry=registry))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    answer: DescribeContractsResult = await describing.describe_contracts(
        None, DescribeContractsRequest(workflow_type=list(names), **asked)
    )
    return answer


@pytest.fixture
def all_asked() -> dict[str, bool]:
    return {"include_descriptors": True, "include_schemas": True, "include_options": True}


async def test_an_ordinary_answer_is_what_it_was(registry: WorkerRegistry, all_asked: dict[str, bool]) -> None:
    ordinary = await _described(registry)
    full = await _described(registry, **all_asked)
    without = replace(
        full,
        activities=[],
        file_descriptor_set=ordinary.file_descriptor_set,
        contracts=[
            replace(
                contract,
                input_schema="",
                output_schema="",
                options=None,
                **{
                    kind: [replace(each, input_schema="", output_schema="") for each in getattr(contract, kind)]
                    for kind in ("queries", "signals", "updates")
                },
            )
            for contract in full.contracts
        ],
    )
    assert codec.encode(ordinary) == codec.encode(without)
    files = descriptor_pb2.FileDescriptorSet.FromString(ordinary.file_descriptor_set).file
    assert not any(file.name.startswith(("temporal/", "buf/")) or file.HasField("source_code_info") for file in files)
    numbers = {field.number for contract in codec.to_proto(ordinary).contracts for field, _ in contract.ListFields()}  # type: ignore[attr-defined]
    assert max(numbers) <= 14


async def test_descriptors_are_the_files_of_the_contracts(registry: WorkerRegistry) -> None:
    answer = await _described(registry, "work", "chain", include_descriptors=True)
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(answer.file_descriptor_set).file
    for file in files:
        pool.Add(file)
    assert len({file.name for file in files}) == len(files)
    message_factory.GetMessageClassesForFiles([file.name for file in files], pool)

    def option(described: Any, name: str) -> Any:
        kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(described.GetOptions().DESCRIPTOR.full_name))
        options: Any = kind.FromString(described.GetOptions().SerializeToString())
        return options.Extensions[pool.FindExtensionByName(name)]

    desk: Any = pool.FindServiceByName("acme.desk.v1.Desk")
    assert option(desk, "temporal.v1.service").task_queue == "desk"
    assert option(desk.methods_by_name["Step"], "temporal.v1.activity").retry_policy.max_attempts == 3
    message: Any = pool.FindMessageTypeByName("acme.desk.v1.WorkRequest")
    assert option(message.fields_by_name["name"], "buf.validate.field").string.max_len == 50
    chain: Any = pool.FindMessageTypeByName("acme.desk.v1.ChainRequest")
    assert option(chain.fields_by_name["told"], "contextunity.worker.internal")
    (source,) = [file for file in files if file.name == "acme/desk/v1/desk.proto"]
    assert " What it is called.\n" in [each.leading_comments for each in source.source_code_info.location]


async def test_a_contract_that_was_generated_without_has_the_descriptors_of_its_messages(
    registry: WorkerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = (await _described(registry)).file_descriptor_set
    monkeypatch.setattr(ServiceContract, "descriptors", property(lambda _: ""))
    # What other tests have had unpacked is kept.
    monkeypatch.setattr(descriptors, "_whole_files", cast("Any", descriptors)._whole_files.__wrapped__)
    assert (await _described(registry, include_descriptors=True)).file_descriptor_set == plain


async def test_each_input_and_output_has_a_schema(registry: WorkerRegistry) -> None:
    answer = await _described(registry, include_schemas=True)
    assert answer.contracts
    for contract in answer.contracts:
        for described in (contract, *contract.queries, *contract.signals, *contract.updates):
            for text in (described.input_schema, described.output_schema):
                schema = json.loads(text)
                Draft202012Validator.check_schema(schema)
                assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    (work,) = [contract for contract in answer.contracts if contract.workflow_type == "work"]
    schema = json.loads(work.input_schema)
    assert schema["properties"]["name"] == {
        "type": "string",
        "minLength": 1,
        "maxLength": 50,
        "description": "What it is called.",
    }
    assert schema["required"] == ["name"]
    (rename,) = work.updates
    assert list(json.loads(rename.input_schema)["properties"]) == ["name"]
    assert list(json.loads(rename.output_schema)["properties"]) == ["before"]
    finish = next(each for each in work.signals if each.name == "finish")
    assert not Draft202012Validator(json.loads(finish.input_schema)).is_valid({"a": 1})
    assert Draft202012Validator(json.loads(finish.input_schema)).is_valid({})


async def test_what_is_internal_is_in_no_schema_of_an_input(registry: WorkerRegistry) -> None:
    (chain,) = (await _described(registry, "chain", include_schemas=True)).contracts
    assert [each.name for each in chain.signals] == ["push"]
    for text in (chain.input_schema, *(each.input_schema for each in (*chain.queries, *chain.signals, *chain.updates))):
        validator = Draft202012Validator(json.loads(text))
        assert validator.is_valid({})
        assert not validator.is_valid({"from": "a"})
        assert not validator.is_valid({"told": {}})
        assert not validator.is_valid({"stepsDone": 1})
        assert not validator.is_valid({"links": [{"from": "a"}]})
        assert '"from"' not in text


async def test_options_tell_how_it_runs(registry: WorkerRegistry) -> None:
    answer = await _described(registry, "bounded", "work", include_options=True)
    bounded, work = answer.contracts
    assert bounded.options is not None
    assert work.options is not None
    assert (bounded.options.method, bounded.options.execution_timeout) == (
        "acme.desk.v1.Away.Bounded",
        timedelta(seconds=60),
    )
    assert work.options.execution_timeout is None
    (step,) = answer.activities
    assert (step.name, step.method, step.module) == ("step", "acme.desk.v1.Desk.Step", "desk")
    assert step.start_to_close_timeout == timedelta(seconds=5)
    assert step.retry_policy is not None
    assert (step.retry_policy.initial_interval, step.retry_policy.maximum_attempts) == (timedelta(milliseconds=10), 3)


def test_a_caller_gets_them_over_the_wire_with_the_permission_to_read(desk: Desk) -> None:
    asked = {"workflow_type": ["work"], "include_schemas": True, "include_descriptors": True, "include_options": True}
    answer = desk.call("DescribeContracts", asked, token=desk.token("one"))
    (contract,) = answer.payload["contracts"]
    assert json.loads(contract["input_schema"])["title"] == "acme.desk.v1.WorkRequest"
    assert contract["options"]["method"] == "acme.desk.v1.Desk.Work"
    assert [each["name"] for each in answer.payload["activities"]] == ["step"]
    assert answer.payload["activities"][0]["start_to_close_timeout"] == 5.0
    assert "file_descriptor_set" not in answer.payload
    names = [each.name for each in _files(desk.body(answer))]
    assert names.index("temporal/v1/temporal.proto") < names.index("acme/desk/v1/desk.proto")
    with pytest.raises(Refusal) as refused:
        desk.call("DescribeContracts", asked, token=desk.token("one", permissions=("brain:read",)))
    assert refused.value.code.name == "PERMISSION_DENIED"


def test_a_start_accepts_what_the_schema_does_with_and_without_a_tenant(desk: Desk) -> None:
    answer = desk.call("DescribeContracts", {"workflow_type": ["work"], "include_schemas": True})
    validator = Draft202012Validator(json.loads(answer.payload["contracts"][0]["input_schema"]))
    for args in ({"name": "a"}, {"name": "a", "tenant_id": ""}, {"name": "a", "tenantId": "one"}):
        assert validator.is_valid(args)
        assert desk.call("StartWorkflow", {"workflow_type": "work", "args": args}).payload["status"] == "started"
    for args in ({}, {"name": ""}, {"name": "a", "count": 101}, {"name": "a", "tenantId": "one", "tenant_id": "one"}):
        assert not validator.is_valid(args)
        with pytest.raises(Refusal):
            desk.call("StartWorkflow", {"workflow_type": "work", "args": args})


def _files(result: DescribeContractsResult) -> Any:
    return descriptor_pb2.FileDescriptorSet.FromString(result.file_descriptor_set).file
