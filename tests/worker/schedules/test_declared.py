"""Schedules that contracts declare: read from a module of anybody's, applied, and refused at start where faulty."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.worker import ScheduleOverlap

from contextunity.core import codec
from contextunity.modules.harvest.plugin import module as harvest
from contextunity.worker.errors import RegistryError, UnknownModuleError
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.schedules import ScheduleManager, declared_schedules

_FAULTY = """\
syntax = "proto3";
package acme.faulty.v1;
import "contextunity/worker/options.proto";
import "google/protobuf/empty.proto";
import "temporal/v1/temporal.proto";
service Faulty {
  option (temporal.v1.service) = {task_queue: "faulty"};
  rpc Take(TakeRequest) returns (google.protobuf.Empty) {
    option (temporal.v1.workflow) = {name: "take"};
    option (contextunity.worker.schedule) = {id: "cron" cron: "0 25 * * *"};
    option (contextunity.worker.schedule) = {id: "json" cron: "@daily" input_json: '{"nme": 1}'};
    option (contextunity.worker.schedule) = {id: "twice" cron: "@daily"};
  }
  rpc Give(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option (temporal.v1.workflow) = {name: "give"};
    option (contextunity.worker.schedule) = {cron: "@daily" timezone: "Mars"};
    option (contextunity.worker.schedule) = {id: "input" cron: "@daily" input_json: "{}"};
    option (contextunity.worker.schedule) = {id: "twice" cron: "@daily"};
  }
}
message TakeRequest { string name = 1; }
"""
_FAULTY_MODULE = """\
from contextunity.worker.core.registry import ModuleConfig
from acme_faulty.acme.faulty.v1 import TakeRequest, faulty_temporal as faulty

class Take(faulty.TakeWorkflowBase):
    async def run(self, request: TakeRequest) -> None: ...

class Give(faulty.GiveWorkflowBase):
    async def run(self) -> None: ...

module = ModuleConfig(name="faulty", workflows=[Take, Give])
"""


def test_all_are_read_with_what_they_say(registry: WorkerRegistry, reports: Any) -> None:
    weekly, hourly, sweep = declared_schedules(registry)
    assert (weekly.schedule_id, weekly.workflow_type) == ("weekly", "report")
    assert (weekly.cron, weekly.timezone, weekly.description) == ("0 6 * * MON", "Europe/Berlin", "for the meeting")
    assert weekly.overlap is ScheduleOverlap.BUFFER_ONE
    assert (weekly.catchup_window, weekly.jitter) == (timedelta(hours=1), timedelta(seconds=90))
    assert weekly.input is not None
    assert codec.unpack_any(weekly.input) == reports.ReportRequest(name="weekly", max_rows=5)
    assert (hourly.schedule_id, hourly.cron, hourly.timezone) == ("hourly", "@hourly", "")
    assert (hourly.catchup_window, hourly.jitter) == (None, None)
    assert (sweep.workflow_type, sweep.input) == ("sweep", None)


def test_those_of_some_modules_alone_can_be_asked_for(registry: WorkerRegistry) -> None:
    registry.register(harvest)
    assert len(declared_schedules(registry)) == 4
    [nightly] = declared_schedules(registry, ["harvest"])
    assert (nightly.schedule_id, nightly.workflow_type, nightly.cron) == ("harvest-nightly", "harvest", "0 2 * * *")
    with pytest.raises(UnknownModuleError, match="farmer"):
        declared_schedules(registry, ["farmer"])


async def test_they_can_be_applied_as_they_are(
    manager: ScheduleManager, registry: WorkerRegistry, tenant: str, eventually: Callable[..., Awaitable[Any]]
) -> None:
    result = await manager.apply(declared_schedules(registry), tenant_id=tenant)
    assert result.created == ["weekly", "hourly", "sweep"]
    assert (await manager.apply(declared_schedules(registry), tenant_id=tenant)).registered_count == 3
    found = await eventually(lambda: manager.list_schedules(tenant_ids={tenant}), lambda found: len(found) == 3)
    weekly = next(each.schedule for each in found if each.schedule.schedule_id == "weekly")
    assert codec.struct_to_dict(weekly.args) == {"tenant_id": tenant, "name": "weekly", "max_rows": 5}


def test_a_faulty_one_stops_the_start_with_all_faults_named(
    generate: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path, {"acme/faulty/v1/faulty.proto": _FAULTY}, "acme_faulty")
    (tmp_path / "acme_faulty_module.py").write_text(_FAULTY_MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    registry = WorkerRegistry()
    with pytest.raises(RegistryError) as caught:
        registry.register(importlib.import_module("acme_faulty_module").module)
    where = "(acme/faulty/v1/faulty.proto)"
    take, give = f"of acme.faulty.v1.Faulty.Take {where}", f"of acme.faulty.v1.Faulty.Give {where}"
    zone = "timezone: 'Mars' is not a time zone of the IANA database, such as 'Europe/Berlin' or 'UTC'"
    assert list(caught.value.faults) == [
        f"schedule 'cron' {take}: cron: hour '25': 25 is not from 0 to 23",
        f"schedule 'json' {take}: input_json: nme: no such field; did you mean name?",
        f"schedule '' {give}: schedule_id: is required",
        f"schedule '' {give}: {zone}",
        f"schedule 'input' {give}: input_json: 'give' takes no parameters",
        f"schedule 'twice' {take}: 2 schedules declare this id; rename all but one",
        f"schedule 'twice' {give}: 2 schedules declare this id; rename all but one",
    ]
    assert registry.workflows == {}


def test_they_are_found_whatever_was_imported_before(reports: Any) -> None:
    """The module's descriptors may be loaded before our options are known, as where a caller has its messages."""
    script = (
        "import sys, json; sys.path[:0] = [sys.argv[1]]\n"
        "import acme_reports.acme.reports.v1.reports_pb2\n"
        "from contextunity.worker.core.registry import WorkerRegistry\n"
        "import acme_reports_module\n"
        "from contextunity.worker.schedules import declared_schedules\n"
        "registry = WorkerRegistry()\n"
        "registry.register(acme_reports_module.module)\n"
        "print(json.dumps([each.schedule_id for each in declared_schedules(registry)]))\n"
    )
    command = [sys.executable, "-c", script, str(Path(reports.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["weekly", "hourly", "sweep"]
