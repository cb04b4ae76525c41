"""Every rule by a pair of protos: one change that breaks it, and one like it that does not."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from contextunity.worker.contracts import RULES, Finding, Schema, compare
from contextunity.worker.contracts.findings import Family

from .conftest import OTHERS, build

Edit = tuple[str, str]
"""What to look for, as a pattern, and what to put there."""

_EMPTY = "(google.protobuf.Empty)"
_INTERNAL = "option (contextunity.worker.internal_method)"
_SCHEDULE = r"(    option \(contextunity.worker.schedule\) = {(?:.|\n)*?\n    };\n)"

PAIRS: dict[str, tuple[Edit, Edit]] = {
    "WORKFLOW_REMOVED": (
        (r"rpc Reorder\(PlaceOrderRequest\)(.|\n)*?\n  }\n", ""),
        (r"rpc Reorder\(", "rpc Rebuy(Parked) returns (Order) {option (temporal.v1.workflow) = {};}\n  rpc Reorder("),
    ),
    "WORKFLOW_NAME_CHANGED": (
        (r'name: "place_order"', 'name: "place"'),
        (r'name: "place_order"\n      aliases: \[', 'name: "place"\n      aliases: ["place_order", '),
    ),
    "WORKFLOW_ALIAS_REMOVED": ((r'"order", "buy"', '"order"'), (r'"order", "buy"', '"buy", "order", "purchase"')),
    "ACTIVITY_REMOVED": (
        (r"rpc Ship\((.|\n)*?\n  }\n", ""),
        (r"rpc Ship\(", "rpc Store(Parked) returns (Order) {option (temporal.v1.activity) = {};}\n  rpc Ship("),
    ),
    "ACTIVITY_NAME_CHANGED": (
        (r'name: "charge"', 'name: "bill"'),
        (
            r"= \{start_to_close_timeout: \{seconds: 600\}\}",
            '= {name: "acme.PACKAGE.v1.OrderService.Ship" start_to_close_timeout: {seconds: 600}}',
        ),
    ),
    "QUERY_REMOVED": (
        (r"rpc GetOrder\((.|\n)*?\n  }\n", ""),
        (r"rpc GetOrder\(", "rpc GetState(Parked) returns (Order) {option (temporal.v1.query) = {};}\n  rpc GetOrder("),
    ),
    "QUERY_NAME_CHANGED": ((r'name: "get_order"', 'name: "order"'), (r'{name: "get_order"}', '{ name: "get_order" }')),
    "SIGNAL_REMOVED": (
        (r"rpc Cancel\((.|\n)*?\n  }\n", ""),
        (r"rpc Cancel\(", f"rpc Stop(Parked) returns {_EMPTY} {{option (temporal.v1.signal) = {{}};}}\n  rpc Cancel("),
    ),
    "SIGNAL_NAME_CHANGED": (
        (r"temporal.v1.signal\) = {}", 'temporal.v1.signal) = {name: "approve"}'),
        (r"temporal.v1.signal\) = {}", 'temporal.v1.signal) = {name: "acme.PACKAGE.v1.OrderService.Approve"}'),
    ),
    "UPDATE_REMOVED": (
        (r"rpc ChangeAddress\((.|\n)*?\n  }\n", ""),
        (
            r"rpc ChangeAddress\(",
            "rpc Hurry(Parked) returns (Order) {option (temporal.v1.update) = {};}\n  rpc ChangeAddress(",
        ),
    ),
    "UPDATE_NAME_CHANGED": (
        (r'name: "change_address"', 'name: "move"'),
        (r'name: "change_address"', 'name: "change_address" cli: {name: "move"}'),
    ),
    "WORKFLOW_QUERY_REMOVED": (
        (r'query: \[{ref: "GetOrder"}\]', ""),
        (r'ref: "GetOrder"', 'ref: "acme.PACKAGE.v1.OrderService.GetOrder"'),
    ),
    "WORKFLOW_SIGNAL_REMOVED": (
        (r', {ref: "Approve"}', ""),
        (r'{ref: "Cancel" start: true}, {ref: "Approve"}', '{ref: "Approve"}, {ref: "Cancel" start: true}'),
    ),
    "WORKFLOW_UPDATE_REMOVED": (
        (r'update: \[{ref: "ChangeAddress"}\]', ""),
        (r'update: \[{ref: "ChangeAddress"}\]', 'update: [{ref: "ChangeAddress" start: true}]'),
    ),
    "WITH_START_REMOVED": (
        (r'"Cancel" start: true', '"Cancel"'),
        (r'{ref: "Approve"}', '{ref: "Approve" start: true}'),
    ),
    "TASK_QUEUE_CHANGED": (
        (r'task_queue: "orders"', 'task_queue: "buying"'),
        (r'name: "charge"', 'name: "charge" task_queue: "orders"'),
    ),
    "WORKFLOW_ID_CHANGED": ((r'id: "order/\$', 'id: "buy/$'), (r"\$\{! customer \}", "${!customer}")),
    "UPDATE_ID_CHANGED": ((r"address/\$", "city/$"), (r"\$\{! address.city \}", "${!  address.city}")),
    "ID_REUSE_POLICY_CHANGED": (
        (r"POLICY_ALLOW_DUPLICATE_FAILED_ONLY", "POLICY_REJECT_DUPLICATE"),
        (r'task_queue: "reorders"', 'task_queue: "reorders" id_reuse_policy: WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE'),
    ),
    "ID_CONFLICT_POLICY_CHANGED": (
        (
            r"workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING\n",
            "workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_FAIL\n",
        ),
        (
            r'task_queue: "reorders"',
            'task_queue: "reorders" workflow_id_conflict_policy: WORKFLOW_ID_CONFLICT_POLICY_FAIL',
        ),
    ),
    "UPDATE_VALIDATE_REMOVED": (
        (r"validate: true workflow_id", "validate: false workflow_id"),
        (r"validate: true workflow_id", "workflow_id"),
    ),
    "UPDATE_WAIT_CHANGED": (
        (r"wait_for_stage: WAIT_POLICY_COMPLETED", "wait_for_stage: WAIT_POLICY_ACCEPTED"),
        (r"wait_for_stage: WAIT_POLICY_COMPLETED", "wait_policy: WAIT_POLICY_COMPLETED"),
    ),
    "SEARCH_ATTRIBUTE_REMOVED": (
        (r"\\nint.Amount = amount", ""),
        (r"int.Amount = amount", r"int.Amount=amount\\nkeyword.Currency = currency"),
    ),
    "SEARCH_ATTRIBUTE_TYPE_CHANGED": (
        (r"keyword.Customer", "text.Customer"),
        (r"keyword.Customer = customer\\nint.Amount = amount", r"int.Amount = amount\\nkeyword.Customer = customer"),
    ),
    "SEARCH_ATTRIBUTE_VALUE_CHANGED": (
        (r"keyword.Customer = customer", "keyword.Customer = reference"),
        (r"keyword.Customer = customer", "keyword.Customer = this.customer"),
    ),
    "VERSIONING_BEHAVIOR_CHANGED": (
        (r"VERSIONING_BEHAVIOR_PINNED", "VERSIONING_BEHAVIOR_AUTO_UPGRADE"),
        (r"versioning_behavior: VERSIONING_BEHAVIOR_PINNED", "versioning_behavior: 1"),
    ),
    "PARENT_CLOSE_POLICY_CHANGED": (
        (r"PARENT_CLOSE_POLICY_ABANDON", "PARENT_CLOSE_POLICY_REQUEST_CANCEL"),
        (r'task_queue: "reorders"', 'task_queue: "reorders" parent_close_policy: PARENT_CLOSE_POLICY_TERMINATE'),
    ),
    "WAIT_FOR_CANCELLATION_CHANGED": (
        (r"wait_for_cancellation: true\n      retry_policy", "retry_policy"),
        (r'task_queue: "reorders"', 'task_queue: "reorders" wait_for_cancellation: false'),
    ),
    "TIMEOUT_SHRUNK": (
        (r"start_to_close_timeout: {seconds: 60}", "start_to_close_timeout: {seconds: 59}"),
        (r"start_to_close_timeout: {seconds: 60}", "start_to_close_timeout: {seconds: 61}"),
    ),
    "HEARTBEATS_CHANGED": (
        (r"(rpc Charge\(.*\n)", r"\1    option (contextunity.worker.heartbeats) = HEARTBEATS_BY_ACTIVITY;\n"),
        (r"(rpc Charge\(.*\n)", r"\1    option (contextunity.worker.heartbeats) = HEARTBEATS_BY_WORKER;\n"),
    ),
    "HEARTBEAT_TIMEOUT_REMOVED": (
        (r"heartbeat_timeout: {seconds: 10}", ""),
        (r"heartbeat_timeout: {seconds: 10}", "heartbeat_timeout: {seconds: 11}"),
    ),
    "RETRY_ATTEMPTS_REDUCED": ((r"max_attempts: 5", "max_attempts: 4"), (r"max_attempts: 5", "max_attempts: 0")),
    "RETRY_ERROR_ADDED": (
        (r'"CardRefused"', '"CardRefused", "Slow"'),
        (r' non_retryable_error_types: \["CardRefused"\]', ""),
    ),
    "TEMPORAL_OPTION_CHANGED": (
        (r'task_queue: "orders"', 'task_queue: "orders" nexus: {enabled: true}'),
        (r'name: "get_order"', 'name: "get_order" cli: {ignore: true}'),
    ),
    "INPUT_FIELD_REQUIRED": (
        (
            r"Address address = 1;(?=\n}\n\nmessage GetStock)",
            "Address address = 1 [(buf.validate.field).required = true];",
        ),
        (r"string.min_len = 1\];\n  int32 pieces", "required = true];\n  int32 pieces"),
    ),
    "INPUT_NEW_FIELD_REQUIRED": (
        (r"string free = 23;", "string free = 23;\n  string more = 30 [(buf.validate.field).string.min_len = 1];"),
        (
            r"string free = 23;",
            "string free = 23;\n  "
            "string more = 30 [(buf.validate.field) = {ignore: IGNORE_IF_ZERO_VALUE string: {min_len: 1}}];",
        ),
    ),
    "INPUT_ONEOF_NARROWED": (
        (r'{fields: \["card", "account"\]}', '{fields: ["card", "account"] required: true}'),
        (r"option \(buf.validate.oneof\).required = true;\n", ""),
    ),
    "INPUT_RANGE_NARROWED": (
        (r"lte: 1000000}", "lte: 999999}"),
        (r"int64 = {gte: 0 lte: 1000000}", "int64 = {lt: 1000001 gt: -1}"),
    ),
    "INPUT_VALUES_NARROWED": (
        (r'"EUR", "USD", "GBP"', '"EUR", "USD"'),
        (r'"EUR", "USD", "GBP"', '"GBP", "EUR", "USD", "CHF"'),
    ),
    "INPUT_LENGTH_NARROWED": ((r"max_len: 100}\]", "max_len: 99}]"), (r"max_len: 100}\]", "max_bytes: 400}]")),
    "INPUT_FORMAT_NARROWED": (
        (r'{prefix: "SKU-"}', '{prefix: "SKU-1"}'),
        (r'{prefix: "SKU-"}', '{prefix: "SKU" min_len: 4}'),
    ),
    "INPUT_SIZE_NARROWED": (
        (r"max_pairs: 10", "max_pairs: 9"),
        (r"repeated = {min_items: 1 max_items: 100}", "repeated = {max_items: 101 min_items: 1}"),
    ),
    "INPUT_EXPRESSION_ADDED": (
        (r"string free = 23;", 'string free = 23 [(buf.validate.field).string.pattern = "^x"];'),
        # What a field says of the message that it holds, that message can say itself.
        (
            r"message Parcel {",
            'message Parcel {\n  option (buf.validate.message).cel = {id: "moved" expression: "this.grams  < 30000"};',
        ),
    ),
    "INPUT_EXPRESSION_CHANGED": (
        (r"A-Z0-9-", "A-Z0-9_-"),
        (
            r"\"this == '' \|\| this.startsWith\('post'\)\"",
            "\"this == ''  ||  this.startsWith('post')\" message: \"no\"",
        ),
    ),
    "OUTPUT_WIDENED": (
        (r"int32 = {gte: 1 lte: 1000}", "int32 = {gte: 0 lte: 1000}"),
        (r"int32 = {gte: 1 lte: 1000}", "int32 = {gte: 2 lte: 900}"),
    ),
    "OUTPUT_EXPRESSION_CHANGED": (
        (r'"\^\[a-z\]\+\$"', '"^[a-z_]+$"'),
        (r'string.pattern = "\^\[a-z\]\+\$"', 'string = {pattern: "^[a-z]+$"}'),
    ),
    "FIELD_BECAME_INTERNAL": (
        (r"string free = 23;", "string free = 23 [(contextunity.worker.internal) = true];"),
        (r" \[\(contextunity.worker.internal\) = true\]", ""),
    ),
    "METHOD_BECAME_INTERNAL": (
        (r'(?=option \(temporal.v1.signal\) = {name: "cancel")', f"{_INTERNAL} = true;\n    "),
        (r'(?=option \(temporal.v1.signal\) = {name: "cancel")', f"{_INTERNAL} = false;\n    "),
    ),
    "OPTION_CHANGED": (
        (r'colour\) = "red"', 'colour) = "blue"'),
        (r"    option \(temporal.v1.query\) = (.*)\n(.*)\n", r"\2\n    option (temporal.v1.query) = \1\n"),
    ),
    "SCHEDULE_REMOVED": (
        (r'id: "nightly"', 'id: "daily"'),
        (r'id: "nightly"', 'id: "nightly" description: "at night"'),
    ),
    "SCHEDULE_WORKFLOW_CHANGED": (
        (
            rf"{_SCHEDULE}((?:.|\n)*?rpc Reorder\((?:.|\n)*?\n)(    option)",
            r"\2\1\3",
        ),
        (
            rf"(    option \(temporal.v1.workflow\) = {{(?:.|\n)*?\n    }};\n){_SCHEDULE}",
            r"\2\1",
        ),
    ),
    "SCHEDULE_OVERLAP_CHANGED": (
        (r"SCHEDULE_OVERLAP_BUFFER_ONE", "SCHEDULE_OVERLAP_ALLOW_ALL"),
        (r"overlap: SCHEDULE_OVERLAP_BUFFER_ONE", "overlap: 2"),
    ),
    "SCHEDULE_TIME_CHANGED": (
        (r"0 3 \* \* \*", "0 4 * * *"),
        (r'cron: "0 3 \* \* \*"', 'cron: "0  3 * * *" timezone: "UTC"'),
    ),
    "SCHEDULE_CATCHUP_SHRUNK": (
        (r"catchup_window: {seconds: 3600}", "catchup_window: {seconds: 60}"),
        (r"catchup_window: {seconds: 3600}", "catchup_window: {seconds: 7200}"),
    ),
}


def _variant(foreign: Mapping[str, str], rule: str, edit: Edit | None) -> dict[str, str]:
    """The foreign protos as a package of their own, one of them edited."""
    package = rule.lower()
    files: dict[str, str] = {}
    edited = edit is None
    for name, text in foreign.items():
        if edit is not None:
            text, count = re.subn(edit[0], edit[1], text, count=1)
            edited = edited or count > 0
        # Names that Temporal knows are one space for all packages.
        text = re.sub(r'(?<=[ {])(name|id): "(?!acme)', rf'\1: "{package}.', text)
        text = re.sub(
            r"aliases: \[(.*)\]",
            lambda match: match[0].replace(' "', f' "{package}.').replace('["', f'["{package}.'),
            text,
        )
        text = text.replace("acme.orders.v1", f"acme.{package}.v1").replace("PACKAGE", package)
        files[name.replace("/orders/", f"/{package}/")] = text.replace("acme/orders/", f"acme/{package}/")
    assert edited, f"{rule}: {edit} fits nothing"
    return files


@pytest.fixture(scope="module")
def found(
    foreign: dict[str, str], imports: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[Finding]], dict[str, list[Finding]]]:
    """What is found by each rule's package, of the changes that break and of the others."""
    folder = tmp_path_factory.mktemp("pairs")

    def schema(name: str, side: int | None) -> Schema:
        files: dict[str, str] = {}
        for rule, pair in PAIRS.items():
            files |= _variant(foreign, rule, None if side is None else pair[side])
        return Schema(build(folder / name, files, imports), is_other=lambda file: file.startswith(OTHERS))

    before = schema("before", None)
    by_package: list[dict[str, list[Finding]]] = []
    for name, side in (("breaking", 0), ("harmless", 1)):
        groups = defaultdict[str, list[Finding]](list)
        for finding in compare(before, schema(name, side)):
            groups[finding.path.split(".")[1].upper()].append(finding)
        by_package.append(groups)
    return by_package[0], by_package[1]


def test_every_rule_has_a_pair() -> None:
    assert set(PAIRS) == {name for name, rule in RULES.items() if rule.family is not Family.EXCEPTIONS}


@pytest.mark.parametrize("rule", PAIRS)
def test_what_breaks_a_rule_is_found_by_it_alone(
    rule: str, found: tuple[dict[str, list[Finding]], dict[str, list[Finding]]]
) -> None:
    findings = found[0].get(rule, [])
    assert {each.rule.id for each in findings} == {rule}, findings
    for each in findings:
        assert each.new is None or each.new.line, each
        assert (each.old is not None and each.old.line) or "NEW_FIELD" in rule, each


def test_what_cannot_be_proved_says_so(found: tuple[dict[str, list[Finding]], dict[str, list[Finding]]]) -> None:
    [pattern] = found[0]["INPUT_EXPRESSION_CHANGED"]
    assert pattern.text == (
        "string.pattern ^[A-Z0-9-]+$ → ^[A-Z0-9_-]+$; that it accepts no less cannot be proved "
        "(input of workflow input_expression_changed.place_order, "
        "workflow acme.input_expression_changed.v1.OrderService.Reorder)"
    )
    [pattern] = found[0]["OUTPUT_EXPRESSION_CHANGED"]
    assert "that it accepts no more cannot be proved" in pattern.text


@pytest.mark.parametrize("rule", PAIRS)
def test_what_does_not_break_it_is_quiet(
    rule: str, found: tuple[dict[str, list[Finding]], dict[str, list[Finding]]]
) -> None:
    assert found[1].get(rule, []) == []
