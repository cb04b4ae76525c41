"""Builds the plain model of a file from its descriptors, and checks its annotations."""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor

from .errors import Diagnostics, Place
from .expressions import ExpressionError, compile_attributes, compile_template
from .model import (
    ActivityModel,
    Attribute,
    BindingModel,
    FileModel,
    MessageModel,
    Method,
    ServiceModel,
    Template,
    TypeRef,
    WorkflowModel,
)
from .python_text import Namespace, constant_case, dataclass_name, pascal_case, snake_case
from .schema import ProtoFile, Schema, field_value
from .supported_options import UNSUPPORTED, Options, Values, reject_unsupported

__all__ = ["Builder"]

_EMPTY = "google.protobuf.Empty"
_KINDS = ("workflow", "activity", "query", "signal", "update")
_HANDLE = {"id", "run_id", "first_execution_run_id", "result", "describe", "cancel", "terminate", "raw"}
_CHILD = {"id", "run_id", "first_execution_run_id", "result", "cancel", "raw"}
_BY_ACTIVITY = "HEARTBEATS_BY_ACTIVITY"
_TIMEOUTS = ("execution_timeout", "run_timeout", "task_timeout")
_ACTIVITY_TIMEOUTS = (
    "schedule_to_close_timeout",
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "heartbeat_timeout",
)


@dataclass(slots=True)
class _Annotated:
    """A method, and its annotations by kind."""

    proto: Any
    path: tuple[int, ...]
    kinds: dict[str, Any]


class Builder:
    """Builds the models of a request's files.

    Args:
        schema: the request's descriptors.
        options: the plugin's options.
        diagnostics: collects errors and warnings; with errors, a model must not be used.
    """

    def __init__(self, schema: Schema, options: Options, diagnostics: Diagnostics) -> None:
        self._schema = schema
        self._options = options
        self._diagnostics = diagnostics
        self._files: dict[str, _FileBuilder] = {}

    def build(self, name: str) -> FileModel | None:
        """Return the model of a file; None if it has no annotated service."""
        return self.declared(name).build()

    def declared(self, name: str) -> _FileBuilder:
        """Builder of a file, whose names are assigned; files refer to each other's queries, signals and updates."""
        if name not in self._files:
            self._files[name] = _FileBuilder(
                self, self._schema, self._options, self._diagnostics, self._schema.file(name)
            )
        return self._files[name]


class _FileBuilder:
    def __init__(
        self, builder: Builder, schema: Schema, options: Options, diagnostics: Diagnostics, file: ProtoFile
    ) -> None:
        self.builder = builder
        self.schema = schema
        self.options = options
        self.diagnostics = diagnostics
        self.file = file
        # Names of this module. Builtins are reserved, because the module's own code uses them.
        self.names = Namespace(dir(builtins))
        self.services = [
            _ServiceBuilder(self, index)
            for index, service in enumerate(file.proto.service)
            if self._is_annotated(service)
        ]
        self.messages: dict[str, MessageModel] = {}
        for service in self.services:
            service.declare()

    @property
    def module(self) -> str:
        """Return the dotted name of the generated module."""
        return self._module("temporal")

    def _module(self, kind: str) -> str:
        return ".".join(filter(None, (self.options.package, self._stem(kind))))

    def _path(self, kind: str) -> str:
        """Return a module's path in the output folder; dots in the proto's name are folders, as for `_pb2` modules."""
        return self._stem(kind).replace(".", "/") + ".py"

    def _stem(self, kind: str) -> str:
        return f"{self.file.name.removesuffix('.proto').replace('-', '_').replace('/', '.')}_{kind}"

    def build(self) -> FileModel | None:
        self._reject_fields()
        if not self.services:
            return None
        services = tuple(service.build() for service in self.services)
        return FileModel(
            source=self.file.name,
            path=self._path("temporal"),
            descriptors=self._module("descriptors"),
            descriptors_path=self._path("descriptors"),
            services=services,
        )

    def type_of(self, type_name: str, place: Place) -> TypeRef | None:
        """Return the dataclass of a message; None for google.protobuf.Empty."""
        message = self.schema.message(type_name)
        if message.full_name == _EMPTY:
            return None
        package = message.file.package
        nested = message.full_name.removeprefix(f"{package}.") if package else message.full_name
        if not package and not self.options.package:
            self.diagnostics.error(
                place, f"{message.full_name} is in no package; declare one, or give the plugin package="
            )
        module = ".".join(filter(None, (self.options.package, package)))
        broken = [part for part in module.split(".") if keyword.iskeyword(part)]
        if broken:
            text = f"Python cannot import {module}, because {broken[0]} is a keyword; rename that part of the package"
            self.diagnostics.error(place, text)
        return TypeRef(module, dataclass_name(nested))

    def _is_annotated(self, service: Any) -> bool:
        if any(self.schema.annotation(service.options, name) is not None for name in ("service", "cli")):
            return True
        return any(
            self.schema.annotation(method.options, kind) is not None for method in service.method for kind in _KINDS
        )

    def _reject_fields(self) -> None:
        """Reject fields that dataclasses cannot hold, and unsupported options."""
        for path, message, field in _fields(self.file.proto.message_type, (4,), self.file.package):
            place = self.file.place(*path)
            # The same texts as in protoc-gen-python_messages, which rejects these too.
            if field.type == field.TYPE_GROUP:
                text = "is a group, which dataclasses cannot hold; use a message"
                self.diagnostics.error(place, f"message {message}: field {field.name} {text}")
            elif field.label == field.LABEL_REQUIRED:
                text = 'is required, which dataclasses cannot say; make it optional, or use syntax = "proto3"'
                self.diagnostics.error(place, f"message {message}: field {field.name} {text}")
            if "cli" not in self.options.ignore and self.schema.annotation(field.options, "field") is not None:
                self.diagnostics.error(place, f"option (temporal.v1.field) is not supported: {UNSUPPORTED['cli']}")


class _ServiceBuilder:
    """Builder of a service: `declare` assigns names, which other services can refer to, `build` does the rest."""

    def __init__(self, file: _FileBuilder, index: int) -> None:
        self.file = file
        self.index = index
        self.proto = file.file.proto.service[index]
        self.full_name = ".".join(filter(None, (file.file.package, self.proto.name)))
        self.place = file.file.place(6, index)
        self.annotation = file.schema.annotation(self.proto.options, "service")
        self.task_queue = str(field_value(self.annotation, "task_queue")) if self.annotation is not None else ""
        self.methods = [
            _Annotated(method, (6, index, 2, number), kinds)
            for number, method in enumerate(self.proto.method)
            if (kinds := self._annotations(method))
        ]

    def _annotations(self, method: Any) -> dict[str, Any]:
        found = {kind: self.file.schema.annotation(method.options, kind) for kind in _KINDS}
        return {kind: value for kind, value in found.items() if value is not None}

    def option_place(self, method: _Annotated, kind: str) -> Place:
        return self.file.file.place(*method.path, 4, self.file.schema.number(kind))

    def take(self, stem: str, form: Callable[[str], str] = str) -> str:
        """Return a module-level name; if it is taken, with the service's name as a prefix."""
        return self.file.names.take(form(stem), form(f"{self.proto.name}_{stem}" if form is not pascal_case else stem))

    def declare(self) -> None:
        """Assign the names of queries, signals and updates, and check each method on its own."""
        self._check_service()
        name = self.proto.name
        self.symbol = self.file.names.take(snake_case(name))
        self.constant = self.file.names.take(f"{constant_case(name)}_TASK_QUEUE")
        self.client = self.file.names.take(f"{pascal_case(name)}Client")
        self.activity_base = self.file.names.take(f"{pascal_case(name)}Activities")
        for method in self.methods:
            self._check_method(method)
            for kind in ("query", "signal", "update"):
                if kind in method.kinds:
                    model = self._message(method, kind)
                    self.file.messages[f"{kind}:{model.method.full_name}"] = model

    def _check_service(self) -> None:
        schema, ignored = self.file.schema, self.file.options.ignore
        if self.annotation is not None:
            place = self.file.file.place(6, self.index, 3, schema.number("service"))
            reject_unsupported("service", self.annotation, place, self.file.diagnostics, ignored)
        if schema.annotation(self.proto.options, "cli") is not None and "cli" not in ignored:
            place = self.file.file.place(6, self.index, 3, schema.number("cli"))
            self.file.diagnostics.error(place, f"option (temporal.v1.cli) is not supported: {UNSUPPORTED['cli']}")

    def _check_method(self, method: _Annotated) -> None:
        diagnostics = self.file.diagnostics
        for kind, options in method.kinds.items():
            place = self.option_place(method, kind)
            reject_unsupported(kind, options, place, diagnostics, self.file.options.ignore)
        others = [kind for kind in method.kinds if kind != "activity"]
        place = self.file.file.place(*method.path)
        if len(others) > 1:
            diagnostics.error(
                place,
                f"{method.proto.name} is a {' and a '.join(others)}; a method is an activity and at most one of "
                "workflow, query, signal and update",
            )
        if method.proto.client_streaming or method.proto.server_streaming:
            diagnostics.error(
                place, f"{method.proto.name} is a stream, which Temporal does not support; use single messages"
            )
        if self.file.schema.heartbeats(method.proto.options) and "activity" not in method.kinds:
            text = f"{method.proto.name} is not an activity, so it has no heartbeats; leave the option out"
            diagnostics.error(self.option_place(method, "heartbeats"), text)
        if "signal" in method.kinds and method.proto.output_type != f".{_EMPTY}":
            diagnostics.error(place, f"{method.proto.name} is a signal, so it returns {_EMPTY}")

    def method(self, method: _Annotated, kind: str) -> Method:
        place = self.file.file.place(*method.path)
        full_name = f"{self.full_name}.{method.proto.name}"
        return Method(
            proto=str(method.proto.name),
            full_name=full_name,
            temporal_name=str(field_value(method.kinds[kind], "name")) or full_name,
            input=self.file.type_of(method.proto.input_type, place),
            output=self.file.type_of(method.proto.output_type, place),
            comment=self.file.file.comment(*method.path),
            deprecated=bool(method.proto.options.deprecated or self.proto.options.deprecated),
            internal=self.file.schema.is_internal(method.proto.options),
            place=place,
        )

    def _message(self, method: _Annotated, kind: str) -> MessageModel:
        name = method.proto.name
        options = method.kinds[kind]
        values = Values(options, kind, self.option_place(method, kind), self.file.diagnostics)
        update_id, stage = None, ""
        if kind == "update":
            update_id = self._template(values, "id", method.proto.input_type)
            stage = self._stage(values)
        return MessageModel(
            kind=kind,
            method=self.method(method, kind),
            symbol=self.take(f"{snake_case(name)}_{kind}", snake_case),
            constant=self.take(f"{constant_case(name)}_{kind.upper()}_NAME", constant_case),
            validate=kind == "update" and bool(values.get("validate")),
            update_id=update_id,
            wait_for_stage=stage,
        )

    def _stage(self, values: Values) -> str:
        older, newer = values.member("wait_policy"), values.member("wait_for_stage")
        if older and newer and older != newer:
            values.error("wait_policy", "it differs from wait_for_stage, which replaces it; leave it out")
        return newer or older

    def _template(self, values: Values, field: str, type_name: str) -> Template | None:
        source = str(values.get(field))
        if not source:
            return None
        template: Template | None = self._compiled(
            values, field, lambda message: compile_template(source, message), type_name
        )
        if template is not None and template.runs_together:
            values.warning(
                field, "two values follow each other, so different inputs can have the same id; put a / between them"
            )
        return template

    def _compiled(self, values: Values, field: str, compile_: Callable[[Descriptor], Any], type_name: str) -> Any:
        try:
            return compile_(self.file.schema.message(type_name))
        except ExpressionError as error:
            values.error(field, str(error))
            return None

    def build(self) -> ServiceModel:
        client_names = Namespace({"raw"})
        workflow_methods = [method for method in self.methods if "workflow" in method.kinds]
        calls = {method.proto.name: self._client_names(method, client_names) for method in workflow_methods}
        activity_names = Namespace({"activities"})
        activities = tuple(
            self._activity(method, activity_names) for method in self.methods if "activity" in method.kinds
        )
        workflows = tuple(self._workflow(method, calls[method.proto.name], client_names) for method in workflow_methods)
        messages = tuple(
            self.file.messages[f"{kind}:{self.full_name}.{method.proto.name}"]
            for method in self.methods
            for kind in ("query", "signal", "update")
            if kind in method.kinds
        )
        self._check_unique(
            "workflow", [(each.method, (each.method.temporal_name, *each.aliases)) for each in workflows]
        )
        self._check_unique("activity", [(each.method, (each.method.temporal_name,)) for each in activities])
        return ServiceModel(
            name=str(self.proto.name),
            full_name=self.full_name,
            symbol=self.symbol,
            constant=self.constant,
            client=self.client,
            activity_base=self.activity_base,
            task_queue=self.task_queue,
            comment=self.file.file.comment(6, self.index),
            deprecated=bool(self.proto.options.deprecated),
            workflows=workflows,
            activities=activities,
            messages=messages,
        )

    def _check_unique(self, what: str, named: list[tuple[Method, tuple[str, ...]]]) -> None:
        seen: dict[str, str] = {}
        for method, names in named:
            for name in names:
                if name in seen:
                    text = f"{what} name {name!r} is taken by {seen[name]}; give {method.proto} another"
                    self.file.diagnostics.error(method.place, text)
                seen.setdefault(name, method.proto)

    def _client_names(self, method: _Annotated, names: Namespace) -> tuple[str, str, str]:
        snake = snake_case(method.proto.name)
        return names.take(snake), names.take(f"start_{snake}"), names.take(f"get_{snake}")

    def _activity(self, method: _Annotated, handlers: Namespace) -> ActivityModel:
        name = method.proto.name
        options = method.kinds["activity"]
        place = self.option_place(method, "activity")
        values = Values(options, "activity", place, self.file.diagnostics)
        self._check_bounds(values, method, place)
        texts = {field: values.duration(field) for field in _ACTIVITY_TIMEOUTS}
        texts |= {"retry_policy": values.retry_policy(), "priority": values.priority()}
        texts["wait_for_cancellation"] = "True" if values.get("wait_for_cancellation") else None
        if self.file.schema.heartbeats(method.proto.options) == _BY_ACTIVITY:
            texts["heartbeats_by_activity"] = "True"
            if not values.seconds("heartbeat_timeout"):
                text = f"{_BY_ACTIVITY} needs a heartbeat_timeout, which detects missing heartbeats of {name}"
                self.file.diagnostics.error(self.option_place(method, "heartbeats"), text)
        return ActivityModel(
            method=self.method(method, "activity"),
            symbol=self.take(snake_case(name), snake_case),
            constant=self.take(f"{constant_case(name)}_ACTIVITY_NAME", constant_case),
            handler=handlers.take(snake_case(name)),
            task_queue=str(values.get("task_queue")) or self.task_queue,
            own_task_queue=bool(values.get("task_queue")),
            options={field: text for field, text in texts.items() if text is not None},
        )

    def _check_bounds(self, values: Values, method: _Annotated, place: Place) -> None:
        total, attempt = values.seconds("schedule_to_close_timeout"), values.seconds("start_to_close_timeout")
        if not total and not attempt:
            self.file.diagnostics.error(
                place,
                f"activity {method.proto.name} has no timeout of an attempt; set start_to_close_timeout, or "
                "schedule_to_close_timeout for all attempts together",
            )
        elif not total and not values.max_attempts():
            self.file.diagnostics.warning(
                place,
                f"activity {method.proto.name} is retried without limit; set schedule_to_close_timeout or "
                "retry_policy.max_attempts",
            )

    def _workflow(self, method: _Annotated, calls: tuple[str, str, str], client_names: Namespace) -> WorkflowModel:
        options = method.kinds["workflow"]
        place = self.option_place(method, "workflow")
        values = Values(options, "workflow", place, self.file.diagnostics)
        stem = method.proto.name.removesuffix("Workflow") or method.proto.name
        bindings = _Bindings(self, method, values, place, client_names, calls[1])
        texts = self._workflow_options(values)
        model = WorkflowModel(
            method=self.method(method, "workflow"),
            symbol=self.take(f"{snake_case(stem)}_workflow", snake_case),
            constant=self.take(f"{constant_case(stem)}_WORKFLOW_NAME", constant_case),
            aliases_constant=self.take(f"{constant_case(stem)}_WORKFLOW_ALIASES", constant_case),
            base=self._class_name(stem, "WorkflowBase"),
            handle=self._class_name(stem, "Handle"),
            child=self._class_name(stem, "Child"),
            external=self._class_name(stem, "External"),
            execute=calls[0],
            start=calls[1],
            get=calls[2],
            aliases=tuple(str(alias) for alias in values.get("aliases")),
            task_queue=str(values.get("task_queue")) or self.task_queue,
            own_task_queue=bool(values.get("task_queue")),
            workflow_id=self._template(values, "id", method.proto.input_type),
            search_attributes=self._search_attributes(values, method.proto.input_type),
            options={field: text for field, text in texts.items() if text is not None},
            queries=bindings.bind("query"),
            signals=bindings.bind("signal"),
            updates=bindings.bind("update"),
        )
        if "" in model.aliases:
            values.error("aliases", "one of them is empty")
        return model

    def _class_name(self, stem: str, suffix: str) -> str:
        return self.file.names.take(
            f"{pascal_case(stem)}{suffix}", f"{pascal_case(self.proto.name)}{pascal_case(stem)}{suffix}"
        )

    def _workflow_options(self, values: Values) -> Mapping[str, str | None]:
        texts = {field: values.duration(field) for field in _TIMEOUTS}
        texts["id_reuse_policy"] = values.enum("id_reuse_policy", "WorkflowIDReusePolicy")
        texts["id_conflict_policy"] = values.enum("workflow_id_conflict_policy", "WorkflowIDConflictPolicy")
        texts["retry_policy"] = values.retry_policy()
        texts["parent_close_policy"] = values.enum("parent_close_policy", "ParentClosePolicy")
        texts["versioning_behavior"] = values.enum("versioning_behavior", "VersioningBehavior")
        texts["priority"] = values.priority()
        for flag in ("enable_eager_start", "wait_for_cancellation"):
            texts[flag] = "True" if values.get(flag) else None
        if texts["id_conflict_policy"] and str(texts["id_reuse_policy"]).endswith("TERMINATE_IF_RUNNING"):
            values.error("id_reuse_policy", "TERMINATE_IF_RUNNING contradicts any workflow_id_conflict_policy; declare "
                         "WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING alone")  # fmt: skip
        run, execution = values.seconds("run_timeout"), values.seconds("execution_timeout")
        if run and execution and run > execution:
            values.error("run_timeout", "it is longer than execution_timeout, which limits all runs together")
        return texts

    def _search_attributes(self, values: Values, type_name: str) -> tuple[Attribute, ...]:
        plain, typed = str(values.get("search_attributes")), str(values.get("typed_search_attributes"))
        if plain and typed:
            values.error(
                "search_attributes", "it is declared together with typed_search_attributes; keep only the typed ones"
            )
        field, source = ("typed_search_attributes", typed) if typed else ("search_attributes", plain)
        if not source:
            return ()
        found = self._compiled(
            values, field, lambda message: compile_attributes(source, message, typed=bool(typed)), type_name
        )
        return found or ()


class _Bindings:
    """Builder of the queries, signals and updates of one workflow."""

    def __init__(
        self,
        service: _ServiceBuilder,
        method: _Annotated,
        values: Values,
        place: Place,
        client_names: Namespace,
        start: str,
    ) -> None:
        self._service = service
        self._options = method.kinds["workflow"]
        self._values = values
        self._place = place
        self._client_names = client_names
        self._start = start
        self._handlers = Namespace({"run"})
        self._calls = Namespace(_HANDLE)
        self._child_calls = Namespace(_CHILD)
        self._seen: dict[str, str] = {}

    def bind(self, kind: str) -> tuple[BindingModel, ...]:
        entries = self._values.get(kind)
        bindings = [self._bind(kind, entry) for entry in entries]
        return tuple(binding for binding in bindings if binding is not None)

    def _bind(self, kind: str, entry: Any) -> BindingModel | None:
        ref = str(field_value(entry, "ref"))
        found = self._resolve(kind, ref)
        if found is None:
            return None
        key, message, module = found
        self._check_unique(kind, message)
        values = Values(entry, "workflow", self._place, self._service.file.diagnostics, prefix=f"{kind}.")
        start = bool(values.get("start", False))
        snake = snake_case(message.method.proto)
        handler = self._handlers.take(snake)
        validate = message.validate
        conflict = ""
        if kind == "update":
            validate = bool(entry.validate) if values.has("validate") else validate
            conflict = values.member("workflow_id_conflict_policy")
            if conflict and not start:
                self._values.error(kind, f"{ref} has a workflow_id_conflict_policy, which only its start: true uses")
        return BindingModel(
            key=key,
            message=message,
            module=module,
            handler=handler,
            call=self._calls.take(snake),
            child_call=self._child_calls.take(snake) if kind == "signal" else "",
            start_call=self._calls.take(f"start_{snake}") if kind == "update" else "",
            with_start=self._client_names.take(f"{self._start}_with_{snake}") if start else "",
            validator=self._handlers.take(f"validate_{handler}") if validate else "",
            conflict_policy=conflict,
        )

    def _resolve(self, kind: str, ref: str) -> tuple[str, MessageModel, str] | None:
        """Return key, model and module of a `ref`; report an error and return None if it is invalid."""
        file, service = self._service.file, self._service
        full_name = ref if "." in ref else f"{service.full_name}.{ref}"
        local = file.messages.get(f"{kind}:{full_name}")
        key = full_name.removeprefix(f"{service.full_name}.")
        if local is not None:
            return key, local, ""
        try:
            source = file.schema.file_of_method(full_name)
        except KeyError:
            self._values.error(kind, f"ref {ref!r} names no method of {service.proto.name}, nor a full method name")
            return None
        if source != file.file.name and source not in file.schema.dependencies(file.file.name):
            self._values.error(kind, f"ref {ref!r} is declared in {source}; import it")
            return None
        other = file.builder.declared(source) if source != file.file.name else file
        message = other.messages.get(f"{kind}:{full_name}")
        if message is None:
            self._values.error(kind, f"ref {ref!r} names a method without option (temporal.v1.{kind})")
            return None
        return key, message, other.module

    def _check_unique(self, kind: str, message: MessageModel) -> None:
        name = f"{kind} {message.method.temporal_name!r}"
        if name in self._seen:
            self._values.error(kind, f"{name} is there twice, as {self._seen[name]} and {message.method.full_name}")
        self._seen[name] = message.method.full_name


def _fields(messages: Any, path: tuple[int, ...], outer: str) -> Iterator[tuple[tuple[int, ...], str, Any]]:
    """Yield the fields of messages and of their nested messages: path, full name of the message, and field."""
    for number, message in enumerate(messages):
        here, name = (*path, number), ".".join(filter(None, (outer, message.name)))
        for index, field in enumerate(message.field):
            yield (*here, 2, index), name, field
        yield from _fields(message.nested_type, (*here, 3), name)
