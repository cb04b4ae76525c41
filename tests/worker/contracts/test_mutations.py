"""Mutations by the hundred over our own protos and foreign ones: what breaks is found, what does not is quiet.

An operator changes all that it can at once, each declaration by itself, so that one comparison judges many mutations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from contextunity.worker.contracts import Schema, compare
from contextunity.worker.contracts.schema import Element

from .conftest import OTHERS, ROOT, build

_TYPES = ("int32", "int64", "uint32", "uint64", "sint32", "sint64")


@dataclass(frozen=True)
class Tree:
    """Protos to mutate, with the messages that inputs and outputs reach."""

    image: bytes
    schema: Schema
    inputs: frozenset[str]
    outputs: frozenset[str]

    def fresh(self) -> Schema:
        return _schema(self.image)


def _schema(image: bytes) -> Schema:
    return Schema(image, is_other=lambda name: name.startswith(OTHERS) and not name.startswith("contextunity/"))


def _rebuilt(schema: Schema) -> Schema:
    """The version that a schema's descriptors make after they were changed."""
    files = descriptor_pb2.FileDescriptorSet()
    for file in schema.files.values():
        files.file.add().ParseFromString(file.SerializeToString())
    return _schema(files.SerializeToString())


def _reached(schema: Schema, output: bool) -> frozenset[str]:
    pending = [
        method.output_type if output else method.input_type
        for service in schema.services
        for method in service.proto.method
    ]
    seen = set[str]()
    while pending:
        name = pending.pop().removeprefix(".")
        if name not in seen:
            seen.add(name)
            pending += [field.message_type.full_name for field in schema.message(name).fields if field.message_type]
    return frozenset(seen)


@pytest.fixture(scope="session", params=["ours", "foreign"])
def tree(
    request: pytest.FixtureRequest, foreign: dict[str, str], imports: Path, tmp_path_factory: pytest.TempPathFactory
) -> Tree:
    """One of the two trees."""
    files = foreign
    if request.param == "ours":
        root = ROOT / "proto"
        files = {path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.proto"))}
    image = build(tmp_path_factory.mktemp(request.param), files, imports)
    schema = _schema(image)
    return Tree(image, schema, _reached(schema, False), _reached(schema, True))


Mutated = Iterator[str]
Operator = Callable[[Schema, Tree], Mutated]
"""Changes a schema's descriptors in place and tells the paths of what it changed."""

BREAKING: dict[str, tuple[Operator, str]] = {}
HARMLESS: dict[str, Operator] = {}


def _breaking(rule: str) -> Callable[[Operator], Operator]:
    def register(operator: Operator) -> Operator:
        BREAKING[operator.__name__] = (operator, rule)
        return operator

    return register


def _harmless(operator: Operator) -> Operator:
    HARMLESS[operator.__name__] = operator
    return operator


def _of_kind(schema: Schema, *kinds: str) -> Iterator[Element]:
    return (each for each in schema.elements if each.kind in kinds)


# Names, queues, policies.


@_breaking("_NAME_CHANGED")
def rename(schema: Schema, tree: Tree) -> Mutated:
    for each in schema.elements:
        each.options.name = f"{each.name}_again"
        yield each.full_name


@_breaking("_REMOVED")
def take_the_annotation_off(schema: Schema, tree: Tree) -> Mutated:
    for each in schema.elements:
        each.method.options.ClearExtension(schema.extension(f"temporal.v1.{each.kind}"))
        yield each.full_name


@_breaking("_NAME_CHANGED")
def swap_names(schema: Schema, tree: Tree) -> Mutated:
    for kind in ("workflow", "activity", "signal"):
        found = list(_of_kind(schema, kind))
        if len(found) > 1:
            for each, name in zip(found, [found[-1].name, *(other.name for other in found)], strict=False):
                each.options.name = name
                yield each.full_name


@_breaking("TASK_QUEUE_CHANGED")
def move_to_another_queue(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow", "activity"):
        each.options.task_queue = "elsewhere"
        yield each.full_name


@_breaking("TASK_QUEUE_CHANGED")
def move_the_service_to_another_queue(schema: Schema, tree: Tree) -> Mutated:
    for service in schema.services:
        if service.annotation is not None and service.annotation.task_queue:
            service.annotation.task_queue = "elsewhere"
            yield service.full_name


@_breaking("WORKFLOW_ID_CHANGED")
def change_the_id(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow"):
        each.options.id += "/more"
        yield each.full_name


@_breaking("UPDATE_ID_CHANGED")
def change_the_id_of_an_update(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "update"):
        each.options.id += "/more"
        yield each.full_name


def _set_enum(option: str, first: int, second: int) -> Operator:
    def operator(schema: Schema, tree: Tree) -> Mutated:
        for each in _of_kind(schema, "workflow"):
            setattr(each.options, option, second if getattr(each.options, option) == first else first)
            yield each.full_name

    operator.__name__ = f"change_{option}"
    return operator


# Unspecified means the first of its kind, so none of these is a default.
_breaking("ID_REUSE_POLICY_CHANGED")(_set_enum("id_reuse_policy", 3, 2))
_breaking("ID_CONFLICT_POLICY_CHANGED")(_set_enum("workflow_id_conflict_policy", 3, 2))
_breaking("PARENT_CLOSE_POLICY_CHANGED")(_set_enum("parent_close_policy", 2, 3))
_breaking("VERSIONING_BEHAVIOR_CHANGED")(_set_enum("versioning_behavior", 1, 2))


@_breaking("WAIT_FOR_CANCELLATION_CHANGED")
def flip_wait_for_cancellation(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow", "activity"):
        each.options.wait_for_cancellation = not each.options.wait_for_cancellation
        yield each.full_name


@_breaking("WORKFLOW_")
def take_all_handlers_off(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow"):
        for kind in ("query", "signal", "update"):
            if getattr(each.options, kind):
                each.options.ClearField(kind)
                yield each.full_name


@_breaking("METHOD_BECAME_INTERNAL")
def make_methods_internal(schema: Schema, tree: Tree) -> Mutated:
    for each in schema.elements:
        extension = schema.pool.FindExtensionByName("contextunity.worker.internal_method")
        if not each.is_internal:
            each.method.options.Extensions[extension] = True
            yield each.full_name


# Bounds and retries.

_WORKFLOW_TIMEOUTS = ("execution_timeout", "run_timeout", "task_timeout")
_ACTIVITY_TIMEOUTS = ("schedule_to_close_timeout", "schedule_to_start_timeout", "start_to_close_timeout")


def _timeouts(schema: Schema) -> Iterator[tuple[Element, Any]]:
    for each in _of_kind(schema, "workflow", "activity"):
        names = _WORKFLOW_TIMEOUTS if each.kind == "workflow" else (*_ACTIVITY_TIMEOUTS, "heartbeat_timeout")
        for name in names:
            if each.options.HasField(name):
                yield each, getattr(each.options, name)


@_breaking("TIMEOUT_SHRUNK")
def halve_time_limits(schema: Schema, tree: Tree) -> Mutated:
    for each, timeout in _timeouts(schema):
        timeout.seconds //= 2
        yield each.full_name


@_breaking("TIMEOUT_SHRUNK")
def set_time_limits(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow"):
        if not each.options.HasField("run_timeout"):
            each.options.run_timeout.seconds = 5
            yield each.full_name


@_breaking("HEARTBEAT_TIMEOUT_REMOVED")
def take_heartbeats_off(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "activity"):
        if each.options.HasField("heartbeat_timeout"):
            each.options.ClearField("heartbeat_timeout")
            yield each.full_name


@_breaking("HEARTBEATS_CHANGED")
def leave_heartbeats_to_activities(schema: Schema, tree: Tree) -> Mutated:
    extension = schema.pool.FindExtensionByName("contextunity.worker.heartbeats")
    for each in _of_kind(schema, "activity"):
        each.method.options.Extensions[extension] = 2
        yield each.full_name


@_breaking("RETRY_ATTEMPTS_REDUCED")
def make_one_attempt_less(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "activity"):
        policy = each.options.retry_policy
        policy.max_attempts = policy.max_attempts - 1 if policy.max_attempts else 100
        yield each.full_name


@_breaking("RETRY_ERROR_ADDED")
def make_an_error_final(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "activity"):
        each.options.retry_policy.non_retryable_error_types.append("Surprise")
        yield each.full_name


# Rules of inputs and outputs.


def _fields(schema: Schema, names: frozenset[str]) -> Iterator[tuple[str, Any, Any]]:
    """Path, descriptor and rules of each field of some messages; rules are there to be set where there are none."""
    extension = schema.pool.FindExtensionByName("buf.validate.field")
    for name in sorted(names):
        if name in schema.declarations and schema.declarations[name][0] not in schema.imported:
            if schema.declarations[name][2].options.map_entry:
                continue  # What is declared of its key and value counts for nothing.
            for field in schema.declarations[name][2].field:
                yield f"{name}.{field.name}", field, field.options.Extensions[extension]


def _tracked(field: Any) -> bool:
    alone = field.label != field.LABEL_REPEATED
    return alone and bool(field.type == field.TYPE_MESSAGE or field.HasField("oneof_index"))


def _refuses_zero(rules: Any) -> bool:
    kind = rules.WhichOneof("type")
    given = {option.name: value for option, value in getattr(rules, kind).ListFields()} if kind else {}
    if kind in _TYPES:
        return given.get("gt", -1) >= 0 or given.get("gte", 0) > 0
    return any(given.get(name) for name in ("min_len", "min_items", "in", "pattern", "prefix", "len"))


def _bounded(fields: Iterator[tuple[str, Any, Any]], option: str) -> Iterator[tuple[str, Any]]:
    """The rules of numbers that have a bound."""
    for path, field, rules in fields:
        kind = rules.WhichOneof("type")
        if kind in _TYPES and field.type != field.TYPE_MESSAGE and getattr(rules, kind).HasField(option):
            yield path, getattr(rules, kind)


@_breaking("INPUT_FIELD_REQUIRED")
def require(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs):
        if not rules.required and rules.ignore != 3 and (_tracked(field) or not _refuses_zero(rules)):
            rules.required = True
            yield path


@_breaking("INPUT_RANGE_NARROWED")
def lower_upper_bounds(schema: Schema, tree: Tree) -> Mutated:
    for path, rules in _bounded(_fields(schema, tree.inputs), "lte"):
        rules.lte -= 1
        yield path


@_breaking("INPUT_RANGE_NARROWED")
def bound_what_is_unbounded(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs):
        if field.type == field.TYPE_INT64 and field.label != field.LABEL_REPEATED and not rules.WhichOneof("type"):
            rules.int64.lt = 2**40
            yield path


@_breaking("INPUT_LENGTH_NARROWED")
def shorten_texts(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs):
        if (
            field.type == field.TYPE_STRING
            and field.label != field.LABEL_REPEATED
            and not rules.string.HasField("const")
        ):
            if getattr(rules.string, "in") or rules.string.HasField("len"):
                continue
            rules.string.max_len = rules.string.max_len - 1 if rules.string.HasField("max_len") else 300
            yield path


@_breaking("INPUT_SIZE_NARROWED")
def shorten_lists(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs):
        if field.label == field.LABEL_REPEATED and field.type != field.TYPE_MESSAGE and rules.ignore != 3:
            limit = rules.repeated.max_items if rules.repeated.HasField("max_items") else 10_000
            rules.repeated.max_items = limit - 1
            yield path


@_breaking("INPUT_VALUES_NARROWED")
def ban_a_value(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs):
        if field.type == field.TYPE_ENUM and field.label != field.LABEL_REPEATED:
            rules.enum.not_in.append(1)
            yield path


@_breaking("INPUT_EXPRESSION_ADDED")
def add_a_pattern(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs):
        plain = field.type == field.TYPE_STRING and field.label != field.LABEL_REPEATED
        if plain and not rules.string.HasField("pattern") and not rules.cel:
            rules.string.pattern = "^surprise$"
            yield path


@_breaking("INPUT_EXPRESSION_")
def add_an_expression(schema: Schema, tree: Tree) -> Mutated:
    for path, message in _messages(schema, tree.inputs):
        rules = message.options.Extensions[schema.pool.FindExtensionByName("buf.validate.message")]
        rules.cel.add(id="surprise", expression="1 > 2")
        yield path


@_breaking("INPUT_ONEOF_NARROWED")
def allow_one_field_alone(schema: Schema, tree: Tree) -> Mutated:
    for path, message in _messages(schema, tree.inputs):
        if len(message.field) > 1 and not message.oneof_decl:
            rules = message.options.Extensions[schema.pool.FindExtensionByName("buf.validate.message")]
            rules.oneof.add(fields=[field.name for field in message.field])
            yield path


@_breaking("FIELD_BECAME_INTERNAL")
def make_fields_internal(schema: Schema, tree: Tree) -> Mutated:
    extension = schema.pool.FindExtensionByName("contextunity.worker.internal")
    for path, field, _ in _fields(schema, tree.inputs):
        if not field.options.Extensions[extension]:
            field.options.Extensions[extension] = True
            yield path


@_breaking("INPUT_NEW_FIELD_REQUIRED")
def add_a_required_field(schema: Schema, tree: Tree) -> Mutated:
    for path, field in _added(schema, tree.inputs):
        field.options.Extensions[schema.pool.FindExtensionByName("buf.validate.field")].string.min_len = 1
        yield path


@_breaking("OUTPUT_WIDENED")
def raise_bounds_of_outputs(schema: Schema, tree: Tree) -> Mutated:
    for path, rules in _bounded(_fields(schema, tree.outputs - tree.inputs), "lte"):
        rules.lte += 1
        yield path


def _added(schema: Schema, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, message in _messages(schema, names):
        field = message.field.add(name="added", number=999, json_name="added")
        field.type, field.label = field.TYPE_STRING, field.LABEL_OPTIONAL
        yield f"{name}.added", field


def _messages(schema: Schema, names: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name in sorted(names):
        if name in schema.declarations and schema.declarations[name][0] not in schema.imported:
            message = schema.declarations[name][2]
            if not message.options.map_entry:
                yield name, message


# What breaks nobody.


@_harmless
def name_what_has_no_name(schema: Schema, tree: Tree) -> Mutated:
    for each in schema.elements:
        if not each.options.name:
            each.options.name = each.full_name
        yield each.full_name


@_harmless
def add_aliases(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow"):
        each.options.aliases.append(f"{each.name}_too")
        yield each.full_name


@_harmless
def rename_and_keep_the_name_as_an_alias(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow"):
        each.options.aliases.append(each.name)
        each.options.name = f"{each.name}_again"
        yield each.full_name


@_harmless
def say_the_queue_at_each(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow", "activity"):
        each.options.task_queue = each.task_queue
        yield each.full_name


@_harmless
def write_defaults_down(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow"):
        for option, default in (
            ("id_reuse_policy", 1),
            ("workflow_id_conflict_policy", 1),
            ("parent_close_policy", 1),
        ):
            setattr(each.options, option, getattr(each.options, option) or default)
        yield each.full_name


@_harmless
def lay_ids_out_otherwise(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow", "update"):
        each.options.id = each.options.id.replace("${! ", "${!").replace(" }", "  }")
        yield each.full_name


@_harmless
def double_time_limits(schema: Schema, tree: Tree) -> Mutated:
    for each, timeout in _timeouts(schema):
        timeout.seconds *= 2
        yield each.full_name


@_harmless
def lift_time_limits(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "workflow"):
        each.options.ClearField("execution_timeout")
        each.options.ClearField("run_timeout")
        yield each.full_name


@_harmless
def make_one_attempt_more(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "activity"):
        policy = each.options.retry_policy
        policy.max_attempts += 1 if policy.max_attempts else 0
        yield each.full_name


@_harmless
def make_errors_retryable(schema: Schema, tree: Tree) -> Mutated:
    for each in _of_kind(schema, "activity"):
        del each.options.retry_policy.non_retryable_error_types[:]
        yield each.full_name


@_harmless
def declare_another_of_each(schema: Schema, tree: Tree) -> Mutated:
    for service in schema.services:
        for method in list(service.proto.method):
            copy = service.proto.method.add()
            copy.CopyFrom(method)
            copy.name = f"{method.name}Again"
            for each in _of_kind(schema, "workflow", "activity", "query", "signal", "update"):
                if each.method is method or each.full_name == f"{service.full_name}.{method.name}":
                    options = copy.options.Extensions[schema.extension(f"temporal.v1.{each.kind}")]
                    options.name = f"{each.name}_again"
                    if each.kind == "workflow":
                        del options.aliases[:]
            if schema.option(method.options, "contextunity.worker.schedule"):
                copy.options.ClearExtension(schema.extension("contextunity.worker.schedule"))
            yield f"{service.full_name}.{copy.name}"


@_harmless
def turn_everything_round(schema: Schema, tree: Tree) -> Mutated:
    for name, (file, _, proto) in list(schema.declarations.items()):
        if file not in schema.imported:
            # The first value of an enum is zero, and stays the first.
            for part in ("field", "method"):
                if hasattr(proto, part):
                    _turn(getattr(proto, part))
                    yield name
    for each in _of_kind(schema, "workflow"):
        for part in ("query", "signal", "update", "aliases"):
            _turn(getattr(each.options, part))
    for _, _, rules in _fields(schema, tree.inputs | tree.outputs):
        kind = rules.WhichOneof("type")
        for part in ("in", "not_in") if kind else ():
            _turn(getattr(getattr(rules, kind), part, []))


def _turn(items: Any) -> None:
    turned = list(items)[::-1]
    if turned and hasattr(turned[0], "DESCRIPTOR"):
        turned = [type(each).FromString(each.SerializeToString()) for each in turned]
    if turned:
        del items[:]
        items.extend(turned)


@_harmless
def add_values_to_enums(schema: Schema, tree: Tree) -> Mutated:
    for name, (file, _, proto) in list(schema.declarations.items()):
        if file not in schema.imported and proto.DESCRIPTOR.name == "EnumDescriptorProto":
            proto.value.add(name=f"{proto.value[0].name}_ADDED", number=999)
            yield name


@_harmless
def deprecate(schema: Schema, tree: Tree) -> Mutated:
    for path, field, _ in _fields(schema, tree.inputs | tree.outputs):
        field.options.deprecated = True
        yield path


@_harmless
def add_a_field(schema: Schema, tree: Tree) -> Mutated:
    for path, _ in _added(schema, tree.inputs | tree.outputs):
        yield path


@_harmless
def raise_bounds_of_inputs(schema: Schema, tree: Tree) -> Mutated:
    for path, rules in _bounded(_fields(schema, tree.inputs - tree.outputs), "lte"):
        rules.lte += 1
        yield path


@_harmless
def lower_bounds_of_outputs(schema: Schema, tree: Tree) -> Mutated:
    for path, rules in _bounded(_fields(schema, tree.outputs - tree.inputs), "lte"):
        rules.lte -= 1
        yield path


@_harmless
def write_bounds_otherwise(schema: Schema, tree: Tree) -> Mutated:
    for path, rules in _bounded(_fields(schema, tree.inputs | tree.outputs), "lte"):
        rules.lt = rules.lte + 1
        yield path
    for path, rules in _bounded(_fields(schema, tree.inputs | tree.outputs), "gt"):
        rules.gte = rules.gt + 1
        yield path
    for path, field, rules in _fields(schema, tree.inputs | tree.outputs):
        if field.type in (field.TYPE_INT32, field.TYPE_INT64) and (kind := rules.WhichOneof("type")) in _TYPES:
            bounds = getattr(rules, kind)
            if bounds.HasField("gte"):
                bounds.gt = bounds.gte - 1
                yield path


@_harmless
def bound_by_the_type(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs | tree.outputs):
        if field.type == field.TYPE_INT32 and field.label != field.LABEL_REPEATED and not rules.WhichOneof("type"):
            rules.int32.lte, rules.int32.gte = 2**31 - 1, -(2**31)
            yield path


@_harmless
def lengthen_texts_and_lists(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs - tree.outputs):
        if field.label == field.LABEL_REPEATED and rules.repeated.HasField("max_items"):
            rules.repeated.max_items += 1
            yield path
        elif field.type == field.TYPE_STRING and rules.string.HasField("max_len"):
            rules.string.max_len += 1
            yield path


@_harmless
def say_of_texts_that_must_not_be_empty_that_they_are_required(schema: Schema, tree: Tree) -> Mutated:
    for path, field, rules in _fields(schema, tree.inputs | tree.outputs):
        if field.type == field.TYPE_STRING and rules.string.min_len == 1 and not _tracked(field):
            rules.required = True
            rules.string.ClearField("min_len")
            yield path


@_harmless
def drop_rules_of_inputs(schema: Schema, tree: Tree) -> Mutated:
    extension = schema.pool.FindExtensionByName("buf.validate.field")
    for path, field, _ in _fields(schema, tree.inputs - tree.outputs):
        field.options.ClearExtension(extension)
        yield path


@pytest.mark.parametrize("name", BREAKING)
def test_every_breaking_mutation_is_found(name: str, tree: Tree) -> None:
    operator, rule = BREAKING[name]
    mutated = tree.fresh()
    paths = set(operator(mutated, tree))
    if not paths:
        pytest.skip("there is nothing of the kind in this tree")
    found = {each.path for each in compare(tree.schema, _rebuilt(mutated)) if rule in each.rule.id}
    if rule == "TASK_QUEUE_CHANGED":
        # Those of one service that move together are told together.
        found |= {path for path in paths if path.rpartition(".")[0] in found}
        paths = {path for path in paths if path in tree.schema.declarations}
    assert paths - found == set()


@pytest.mark.parametrize("name", HARMLESS)
def test_every_harmless_mutation_is_quiet(name: str, tree: Tree) -> None:
    mutated = tree.fresh()
    paths = list(HARMLESS[name](mutated, tree))
    if not paths:
        pytest.skip("there is nothing of the kind in this tree")
    found = compare(tree.schema, _rebuilt(mutated))
    assert [(each.rule.id, each.path, each.text) for each in found] == []


def test_there_are_many_mutations(tree: Tree) -> None:
    breaking = sum(len(set(operator(tree.fresh(), tree))) for operator, _ in BREAKING.values())
    harmless = sum(len(set(operator(tree.fresh(), tree))) for operator in HARMLESS.values())
    assert breaking >= 60
    assert harmless >= 30
