"""Prints the contract of a service."""

from __future__ import annotations

from .model import (
    ActivityModel,
    BindingModel,
    FileModel,
    MessageModel,
    Method,
    PathPart,
    ServiceModel,
    Template,
    WorkflowModel,
)
from .python_text import PythonText

__all__ = [
    "contract_name",
    "print_activities",
    "print_constants",
    "print_expressions",
    "print_messages",
    "print_service",
    "print_workflows",
]


def print_constants(text: PythonText, service: ServiceModel) -> None:
    """Print the Temporal names of the service's parts."""
    final = text.imported("typing", "Final")
    text.line(f"# {service.full_name}")
    text.line()
    if service.task_queue:
        text.line(f"{service.constant}: {final} = {service.task_queue!r}")
        text.docstring(f"Task queue of {service.name}.")
    for workflow in service.workflows:
        _print_name(text, workflow.constant, workflow.method, "workflow")
        if workflow.aliases:
            text.line(f"{workflow.aliases_constant}: {final} = {_tuple(workflow.aliases)}")
            text.docstring(f"Further Temporal names of the workflow {workflow.method.proto}.")
    for activity in service.activities:
        _print_name(text, activity.constant, activity.method, "activity")
    for message in service.messages:
        _print_name(text, message.constant, message.method, message.kind)
    text.line()


def _print_name(text: PythonText, constant: str, method: Method, kind: str) -> None:
    text.line(f"{constant}: {text.imported('typing', 'Final')} = {method.temporal_name!r}")
    text.docstring(f"Temporal name of the {kind} {method.proto}.")


def print_messages(text: PythonText, service: ServiceModel) -> None:
    """Print the contracts of queries, signals and updates."""
    for message in service.messages:
        _print_message(text, message)


def _print_message(text: PythonText, message: MessageModel) -> None:
    if message.update_id is not None:
        _print_template(text, f"_id_of_{message.symbol}", message.update_id, message.method, message.constant)
    contract = f"_t.{message.kind.capitalize()}Contract"
    annotation = contract if message.kind == "signal" else f"{contract}[{text.type(message.method.output)}]"
    text.line(f"{message.symbol}: {text.imported('typing', 'Final')}[{annotation}] = {contract}(")
    _print_method(text, message.method, message.constant)
    if message.update_id is not None:
        text.line(f"update_id=_id_of_{message.symbol},", 1)
    if message.wait_for_stage:
        text.line(f"wait_for_stage=_t.WorkflowUpdateStage.{message.wait_for_stage},", 1)
    text.line(")")
    text.docstring(_described(message.method, message.kind))
    text.line()


def _print_method(text: PythonText, method: Method, constant: str, indent: int = 1) -> None:
    text.line(f"name={constant},", indent)
    text.line(f"method={method.full_name!r},", indent)
    text.line(f"input_type={text.type(method.input)},", indent)
    text.line(f"output_type={text.type(method.output)},", indent)
    if method.comment:
        text.line(f"description={method.comment!r},", indent)
    if method.deprecated:
        text.line("deprecated=True,", indent)
    if method.internal:
        text.line("internal=True,", indent)


def _described(method: Method, kind: str) -> str:
    """Print the docstring of a contract object, for editors."""
    text = method.comment or f"The {kind} {method.proto}."
    return f"{text}\n\nDeprecated." if method.deprecated else text


def print_expressions(text: PythonText, service: ServiceModel) -> None:
    """Print the functions that return workflow ids and search attributes."""
    for workflow in service.workflows:
        if workflow.workflow_id is not None:
            _print_template(text, f"_id_of_{workflow.symbol}", workflow.workflow_id, workflow.method, workflow.constant)
        if workflow.search_attributes:
            _print_attributes(text, workflow)


def _print_template(text: PythonText, name: str, template: Template, method: Method, constant: str) -> None:
    request = _request(text, method, used=any(isinstance(part, PathPart) for part in template.parts))
    text.line(f"def {name}({request}) -> str:")
    parts = [
        f"_t.text({_value(part)}, {part.proto!r}, {constant}{_before(template, place)})"
        if isinstance(part, PathPart)
        else repr(part)
        for place, part in enumerate(template.parts)
    ]
    text.line(f"return {' + '.join(parts) or repr('')}", 1)
    text.line()


def _before(template: Template, place: int) -> str:
    """Return the argument for the text after a value in an id; empty for the last value, which is not encoded."""
    if not any(isinstance(part, PathPart) for part in template.parts[place + 1 :]):
        return ""
    following = template.parts[place + 1]
    return f", {'' if isinstance(following, PathPart) else following[0]!r}"


def _print_attributes(text: PythonText, workflow: WorkflowModel) -> None:
    used = any(attribute.path is not None for attribute in workflow.search_attributes)
    request = _request(text, workflow.method, used=used)
    text.line(f"def _search_attributes_of_{workflow.symbol}({request}) -> _t.TypedSearchAttributes:")
    text.line("return _t.search_attributes(", 1)
    for attribute in workflow.search_attributes:
        value = attribute.literal if attribute.path is None else _value(attribute.path)
        text.line(f"(_t.SearchAttributeKey.{attribute.kind}({attribute.name!r}), {value}),", 2)
    text.line(")", 1)
    text.line()
    text.line()


def _request(text: PythonText, method: Method, *, used: bool) -> str:
    return f"{'request' if used else '_request'}: {text.type(method.input)}"


def _value(path: PathPart) -> str:
    if len(path.attributes) == 1:
        return f"request.{path.attributes[0]}"
    return f"_t.optional(request.{path.attributes[0]}, {', '.join(map(repr, path.attributes[1:]))})"


def print_workflows(text: PythonText, service: ServiceModel) -> None:
    """Print the workflow objects with their contracts."""
    for workflow in service.workflows:
        _print_workflow(text, workflow, service)


def _print_workflow(text: PythonText, workflow: WorkflowModel, service: ServiceModel) -> None:
    method = workflow.method
    output, handles = text.type(method.output), f"{workflow.child}, {workflow.external}"
    deprecated = "Deprecated" if method.deprecated else ""
    if method.input is None:
        kind, parameters = f"_t.{deprecated}EmptyWorkflow", f"{output}, {handles}"
    else:
        kind, parameters = f"_t.{deprecated}Workflow", f"{text.type(method.input)}, {output}, {handles}"
    text.line(f"{workflow.symbol}: {text.imported('typing', 'Final')}[{kind}[{parameters}]] = {kind}(")
    text.line("_t.WorkflowContract(", 1)
    _print_method(text, method, workflow.constant, 2)
    if workflow.aliases:
        text.line(f"aliases={workflow.aliases_constant},", 2)
    _print_task_queue(text, workflow, service, 2)
    if workflow.workflow_id is not None:
        text.line(f"workflow_id=_id_of_{workflow.symbol},", 2)
        text.line(f"id_expression={workflow.workflow_id.source!r},", 2)
    if workflow.search_attributes:
        text.line(f"search_attributes=_search_attributes_of_{workflow.symbol},", 2)
    for name, value in workflow.options.items():
        text.line(f"{name}={text.literal(value)},", 2)
    _print_bindings(text, "queries", workflow.queries)
    _print_bindings(text, "signals", workflow.signals)
    _print_bindings(text, "updates", workflow.updates)
    text.line("),", 1)
    text.line(f"{workflow.child},", 1)
    text.line(f"{workflow.external},", 1)
    text.line(")")
    text.docstring(_described(method, "workflow"))
    text.line()


def _print_task_queue(
    text: PythonText, part: WorkflowModel | ActivityModel, service: ServiceModel, indent: int
) -> None:
    if part.own_task_queue:
        text.line(f"task_queue={part.task_queue!r},", indent)
        text.line("own_task_queue=True,", indent)
    elif part.task_queue:
        text.line(f"task_queue={service.constant},", indent)


def _print_bindings(text: PythonText, name: str, bindings: tuple[BindingModel, ...]) -> None:
    if not bindings:
        return
    text.line(f"{name}={{", 2)
    for binding in bindings:
        text.line(f"{binding.key!r}: {binding_text(text, binding)},", 3)
    text.line("},", 2)


def contract_name(text: PythonText, binding: BindingModel) -> str:
    """Return the name of a bound contract, seen from the module of the workflow."""
    symbol = binding.message.symbol
    return f"{text.module(binding.module)}.{symbol}" if binding.module else symbol


def binding_text(text: PythonText, binding: BindingModel) -> str:
    """Return the call that creates a binding."""
    kind = binding.message.kind.capitalize()
    arguments = [f"contract={contract_name(text, binding)}", f"handler={binding.handler!r}"]
    if binding.validator:
        arguments.append(f"validator={binding.validator!r}")
    if binding.with_start:
        arguments.append("start=True")
    if binding.conflict_policy:
        arguments.append(f"id_conflict_policy=_t.WorkflowIDConflictPolicy.{binding.conflict_policy}")
    return f"_t.{kind}Binding({', '.join(arguments)})"


def print_activities(text: PythonText, service: ServiceModel) -> None:
    """Print the callable activity objects with their contracts."""
    for activity in service.activities:
        _print_activity(text, activity, service)


def _print_activity(text: PythonText, activity: ActivityModel, service: ServiceModel) -> None:
    method = activity.method
    output = text.type(method.output)
    deprecated = "Deprecated" if method.deprecated else ""
    if method.input is None:
        kind, parameters = f"_t.{deprecated}EmptyActivity", output
    else:
        kind, parameters = f"_t.{deprecated}Activity", f"{text.type(method.input)}, {output}"
    text.line(f"{activity.symbol}: {text.imported('typing', 'Final')}[{kind}[{parameters}]] = {kind}(")
    text.line("_t.ActivityContract(", 1)
    _print_method(text, method, activity.constant, 2)
    text.line(f"handler={activity.handler!r},", 2)
    _print_task_queue(text, activity, service, 2)
    for name, value in activity.options.items():
        text.line(f"{name}={text.literal(value)},", 2)
    text.line("),", 1)
    text.line(")")
    text.docstring(_described(method, "activity"))
    text.line()


def print_service(text: PythonText, service: ServiceModel, file: FileModel) -> None:
    """Print the contract of the whole service."""
    text.line(f"{service.symbol}: {text.imported('typing', 'Final')}[_t.ServiceContract] = _t.ServiceContract(")
    text.line(f"full_name={service.full_name!r},", 1)
    text.line(f"source={file.source!r},", 1)
    text.line(f"descriptors={file.descriptors!r},", 1)
    if service.task_queue:
        text.line(f"task_queue={service.constant},", 1)
    _print_parts(text, "workflows", [(each.method.proto, f"{each.symbol}.contract") for each in service.workflows])
    _print_parts(text, "activities", [(each.method.proto, f"{each.symbol}.contract") for each in service.activities])
    for field, kind in (("queries", "query"), ("signals", "signal"), ("updates", "update")):
        parts = [(each.method.proto, each.symbol) for each in service.messages if each.kind == kind]
        _print_parts(text, field, parts)
    if service.comment:
        text.line(f"description={service.comment!r},", 1)
    if service.deprecated:
        text.line("deprecated=True,", 1)
    text.line(")")
    text.docstring(service.comment or f"The service {service.name}.")
    text.line()


def _print_parts(text: PythonText, field: str, parts: list[tuple[str, str]]) -> None:
    if parts:
        text.line(f"{field}={{", 1)
        for key, symbol in parts:
            text.line(f"{key!r}: {symbol},", 2)
        text.line("},", 1)


def _tuple(items: tuple[str, ...]) -> str:
    return f"({', '.join(map(repr, items))}{',' if len(items) == 1 else ''})"
