"""What Temporal goes by, where the texts differ and the meaning does not, or the other way round."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from contextunity.worker.contracts import Finding, Schema, compare

from .conftest import OTHERS, build

_HEAD = """\
syntax = "proto3";
package acme.%s.v1;
import "contextunity/worker/options.proto";
import "google/protobuf/empty.proto";
import "temporal/v1/temporal.proto";
message A { string name = 1; }
message B { string name = 1; }
service S {
"""
_SERVICE = 'option (temporal.v1.service) = {task_queue: "q"};\n'


def _workflow(options: str, method: str = "Run(A) returns (B)", more: str = "") -> str:
    return f"{_SERVICE}rpc {method} {{ option (temporal.v1.workflow) = {{{options}}}; {more} }}\n{_HANDLERS}"


def _activity(options: str, method: str = "Do(A) returns (B)") -> str:
    return f"{_SERVICE}rpc {method} {{ option (temporal.v1.activity) = {{{options}}}; }}"


_HANDLERS = "rpc Set(A) returns (B) { option (temporal.v1.update) = {VALIDATE}; }"
_SCHEDULE = 'option (contextunity.worker.schedule) = {id: "PACKAGE" input_json: "%s"};'
_NAMED = 'name: "PACKAGE.run"'

CASES: dict[str, tuple[str, str, set[str]]] = {
    "name and alias change places": (
        _workflow(f'{_NAMED} aliases: ["PACKAGE.go"]'),
        _workflow('name: "PACKAGE.go" aliases: ["PACKAGE.run"]'),
        set(),
    ),
    "a method is renamed, and its Temporal name is not": (
        _workflow(_NAMED),
        _workflow(_NAMED, "Go(A) returns (B)"),
        set(),
    ),
    "a method is renamed that has no name of its own": (
        _activity(""),
        _activity("", "DoIt(A) returns (B)"),
        {"ACTIVITY_REMOVED"},
    ),
    "another method with another input takes the name": (
        _workflow(_NAMED),
        _workflow(_NAMED, "Go(B) returns (B)"),
        {"WORKFLOW_NAME_CHANGED"},
    ),
    "two activities change names": (
        _activity('name: "PACKAGE.a"') + _activity('name: "PACKAGE.b"', "Also(A) returns (B)").removeprefix(_SERVICE),
        _activity('name: "PACKAGE.b"') + _activity('name: "PACKAGE.a"', "Also(A) returns (B)").removeprefix(_SERVICE),
        {"ACTIVITY_NAME_CHANGED"},
    ),
    "the service's queue moves away from under a workflow that names its own": (
        _workflow(f'{_NAMED} task_queue: "q"'),
        _workflow(f'{_NAMED} task_queue: "q"').replace('task_queue: "q"};\n', 'task_queue: "r"};\n', 1),
        set(),
    ),
    "one policy about an id in use says what the other one said": (
        _workflow(f"{_NAMED} id_reuse_policy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING"),
        _workflow(f"{_NAMED} workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING"),
        set(),
    ),
    "a bound on attempts goes, and that on all of them is as short": (
        _activity("schedule_to_close_timeout: {seconds: 60} start_to_close_timeout: {seconds: 60}"),
        _activity("schedule_to_close_timeout: {seconds: 60}"),
        set(),
    ),
    "a bound on all attempts comes that is no shorter than that on one": (
        _activity("start_to_close_timeout: {seconds: 60}"),
        _activity("start_to_close_timeout: {seconds: 60} schedule_to_close_timeout: {seconds: 90}"),
        {"TIMEOUT_SHRUNK"},
    ),
    "a bound on the run comes that the execution had": (
        _workflow(f"{_NAMED} execution_timeout: {{seconds: 60}}"),
        _workflow(f"{_NAMED} execution_timeout: {{seconds: 60}} run_timeout: {{seconds: 60}}"),
        set(),
    ),
    "the default of a workflow task is written down": (
        _workflow(_NAMED),
        _workflow(f"{_NAMED} task_timeout: {{seconds: 10}}"),
        set(),
    ),
    "a workflow loses its retries": (
        _workflow(f"{_NAMED} retry_policy: {{max_attempts: 3}}"),
        _workflow(_NAMED),
        {"RETRY_ATTEMPTS_REDUCED"},
    ),
    "an activity loses its bound on attempts": (
        _activity("start_to_close_timeout: {seconds: 60} retry_policy: {max_attempts: 3}"),
        _activity("start_to_close_timeout: {seconds: 60}"),
        set(),
    ),
    "an update's validator moves to its workflow": (
        _workflow(f'{_NAMED} update: [{{ref: "Set"}}]').replace("{VALIDATE}", "{validate: true}"),
        _workflow(f'{_NAMED} update: [{{ref: "Set" validate: true}}]').replace("{VALIDATE}", "{validate: true}"),
        set(),
    ),
    "a workflow overrides an update's validator": (
        _workflow(f'{_NAMED} update: [{{ref: "Set"}}]').replace("{VALIDATE}", "{validate: true}"),
        _workflow(f'{_NAMED} update: [{{ref: "Set" validate: false}}]').replace("{VALIDATE}", "{validate: true}"),
        {"UPDATE_VALIDATE_REMOVED"},
    ),
    "an update starts a workflow by another policy": (
        _workflow(f'{_NAMED} update: [{{ref: "Set" start: true}}]'),
        _workflow(
            f'{_NAMED} update: [{{ref: "Set" start: true '
            "workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING}]"
        ),
        {"ID_CONFLICT_POLICY_CHANGED"},
    ),
    "an attribute is declared with a type": (
        _workflow(f'{_NAMED} search_attributes: "Name = name"'),
        _workflow(f'{_NAMED} typed_search_attributes: "keyword.Name = name"'),
        set(),
    ),
    "an attribute's line is commented out": (
        _workflow(f'{_NAMED} search_attributes: "Name = name"'),
        _workflow(f'{_NAMED} search_attributes: "# Name = name"'),
        {"SEARCH_ATTRIBUTE_REMOVED"},
    ),
    "the input of a schedule is laid out otherwise": (
        _workflow(_NAMED, more=_SCHEDULE % r'{\"name\": \"x\"}'),
        _workflow(_NAMED, more=_SCHEDULE % r'{ \"name\":\"x\"}'),
        set(),
    ),
    "an option that the gate does not know how to judge": (
        _workflow(_NAMED),
        _workflow(f'{_NAMED} nexus: {{name: "other"}}'),
        {"TEMPORAL_OPTION_CHANGED"},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def found(imports: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """What is found in each case's package."""
    schemas: list[Schema] = []
    for side in (0, 1):
        files: dict[str, str] = {}
        for number, (before, after, _) in enumerate(CASES.values()):
            text = (_HEAD % f"c{number}") + (before, after)[side].replace("{VALIDATE}", "{}") + "}\n"
            files[f"c{number}.proto"] = text.replace("PACKAGE", f"c{number}")
        image = build(tmp_path_factory.mktemp("side"), files, imports)
        schemas.append(Schema(image, is_other=lambda name: name.startswith(OTHERS)))
    groups = defaultdict[str, list[Finding]](list)
    for finding in compare(*schemas):
        groups[list(CASES)[int(finding.path.split(".")[1][1:])]].append(finding)
    return groups


@pytest.mark.parametrize("name", CASES)
def test_it_is_judged_by_meaning(name: str, found: dict[str, list[Finding]]) -> None:
    assert {each.rule.id for each in found.get(name, [])} == CASES[name][2], found.get(name)


def test_what_is_gone_is_told_once_and_where_it_was(found: dict[str, list[Finding]]) -> None:
    [finding] = found["a method is renamed that has no name of its own"]
    assert finding.old is not None
    assert (finding.old.file, finding.old.line) == ("c2.proto", 10)
    assert finding.new is not None
    assert finding.new.file == "c2.proto"
