"""What docs/schedules.md publishes is true as it stands there."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

from contextunity.gen.contextunity.core import ContextUnit
from temporalio.client import Client

from contextunity.core import codec
from contextunity.modules.harvest.plugin import module as harvest
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules import ScheduleManager, declared_schedules
from contextunity.worker.service import Call, WorkerService

_TEXT = (Path(__file__).parents[3] / "docs/schedules.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", _TEXT, re.DOTALL)
    return str(block)


def _harvest() -> WorkerRegistry:
    registry = WorkerRegistry()
    registry.register(harvest)
    return registry


async def test_the_python_snippet_runs(client: Client, tenant: str) -> None:
    names: dict[str, Any] = {"client": client, "registry": _harvest()}
    # Other runs of the tests use the same server, so the snippet's tenant is made the test's own.
    source = _block("python").replace("my_project", tenant)
    code = compile(source, "docs/schedules.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, names)
    assert isinstance(names["manager"], ScheduleManager)


async def test_the_file_and_the_payload_register(client: Client, tenant: str) -> None:
    service = WorkerService(client, _harvest())
    for content in (tomllib.loads(_block("toml")), json.loads(_block("json"))):
        unit = ContextUnit(payload=codec.dict_to_struct({**content, "tenant_id": tenant}))
        answer = await service.call(service.methods["RegisterSchedules"], Call(unit=unit))
        assert answer.payload is not None
        assert codec.struct_to_dict(answer.payload)["registered_count"] == 1


def test_the_contract_can_be_generated(generate: Any, tmp_path: Path) -> None:
    messages = "message HarvestRequest { string supplier_code = 1; }\nmessage HarvestResponse {}\n"
    text = f'syntax = "proto3";\npackage acme.docs.v1;\n{_block("proto")}{messages}'
    generate(tmp_path, {"acme/docs/v1/docs.proto": text}, "acme_docs")
    assert b"camping-trade" in (tmp_path / "acme_docs/acme/docs/v1/docs_pb2.py").read_bytes()


def test_harvest_itself_declares_the_one_that_is_named() -> None:
    (nightly,) = declared_schedules(_harvest())
    assert f"`{nightly.schedule_id}`" in _TEXT
