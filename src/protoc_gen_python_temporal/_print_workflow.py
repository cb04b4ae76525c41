"""Prints what the worker's side derives from or holds: workflow bases, child handles, the activities' base."""

from __future__ import annotations

from ._model import BindingModel, MessageModel, Method, ServiceModel, WorkflowModel
from ._print_contract import contract_name
from ._text import PythonText

__all__ = ["print_activity_base", "print_bases", "print_child_handles"]


def parameter(text: PythonText, method: Method, name: str = "request") -> str:
    """The input as a parameter after others; nothing where it is google.protobuf.Empty."""
    return f", {name}: {text.type(method.input)}" if method.input is not None else ""


def argument(method: Method, name: str = "request") -> str:
    """The input as an argument; None where it is google.protobuf.Empty."""
    return name if method.input is not None else "None"


def method_docstring(text: PythonText, method: Method, fallback: str, indent: int = 2) -> None:
    """The proto's comment as a docstring."""
    text.docstring(method.comment or fallback, indent)


def class_docstring(text: PythonText, first: str, comment: str) -> None:
    """A class's docstring: what it is, then the proto's comment."""
    text.docstring(f"{first}\n\n{comment}" if comment else first, 1)
    text.line()


def deprecation(text: PythonText, method: Method, indent: int = 1) -> None:
    """The decorator that has type checkers and Python warn of a deprecated method."""
    if method.deprecated:
        decorator = text.imported("typing_extensions", "deprecated")
        text.line(f"@{decorator}({f'{method.full_name} is deprecated'!r})", indent)


def print_child_handles(text: PythonText, service: ServiceModel) -> None:
    """Prints the handles that other workflows get of a workflow."""
    for workflow in service.workflows:
        output = text.type(workflow.method.output)
        _print_signaller(text, workflow, workflow.child, f"_t.ChildHandle[{output}]", "as a child")
        _print_signaller(text, workflow, workflow.external, "_t.ExternalHandle", "seen from another workflow")


def _print_signaller(text: PythonText, workflow: WorkflowModel, name: str, base: str, what: str) -> None:
    text.line(f"class {name}({base}):")
    class_docstring(text, f"The workflow {workflow.method.proto} {what}.", "")
    for binding in workflow.signals:
        method = binding.message.method
        deprecation(text, method)
        text.line(f"async def {binding.child_call}(self{parameter(text, method)}) -> None:", 1)
        method_docstring(text, method, f"Sends the signal {method.proto}.")
        text.line(f"await self._signal({contract_name(text, binding)}, {argument(method)})", 2)
        text.line()
    text.line()


def print_bases(text: PythonText, service: ServiceModel) -> None:
    """Prints the classes that workflows derive from."""
    for workflow in service.workflows:
        _print_base(text, workflow)


def _print_base(text: PythonText, workflow: WorkflowModel) -> None:
    method = workflow.method
    text.line(f"class {workflow.base}(_t.WorkflowBase, contract={workflow.symbol}.contract):")
    first = (
        f"Base of the workflow {method.temporal_name!r}; a derived class is checked and registered as it is defined."
    )
    class_docstring(text, first, method.comment)
    _print_abstract(text, f"async def run(self{parameter(text, method)}) -> {text.type(method.output)}:")
    method_docstring(text, method, f"Runs the workflow {method.proto}.")
    text.line()
    for binding in workflow.queries:
        _print_handler(text, binding, text.type(binding.message.method.output))
    for binding in workflow.signals:
        _print_handler(text, binding, _either(text, binding.message))
    for binding in workflow.updates:
        _print_handler(text, binding, _either(text, binding.message))
        if binding.validator:
            message = binding.message.method
            _print_abstract(text, f"def {binding.validator}(self{parameter(text, message)}) -> None:")
            text.docstring(f"Rejects a {message.proto} by raising an error; it must not change anything.", 2)
            text.line()
    text.line()


def _print_handler(text: PythonText, binding: BindingModel, result: str) -> None:
    method = binding.message.method
    _print_abstract(text, f"def {binding.handler}(self{parameter(text, method)}) -> {result}:")
    method_docstring(text, method, f"Handles the {binding.message.kind} {method.proto}.")
    text.line()


def _print_abstract(text: PythonText, signature: str) -> None:
    text.line(f"@{text.imported('abc', 'abstractmethod')}", 1)
    text.line(signature, 1)


def _either(text: PythonText, message: MessageModel) -> str:
    """A result that may be given at once or awaited."""
    result = text.type(message.method.output)
    return f"{text.imported('collections.abc', 'Awaitable')}[{result}] | {result}"


def print_activity_base(text: PythonText, service: ServiceModel) -> None:
    """Prints the class that objects with activities derive from."""
    if not service.activities:
        return
    text.line(f"class {service.activity_base}(_t.ActivityBase, service={service.symbol}):")
    class_docstring(text, f"The activities of {service.name}, to implement as sync or async methods.", "")
    for activity in service.activities:
        method = activity.method
        result = text.type(method.output)
        awaitable = f"{text.imported('collections.abc', 'Awaitable')}[{result}] | {result}"
        _print_abstract(text, f"def {activity.handler}(self{parameter(text, method)}) -> {awaitable}:")
        method_docstring(text, method, f"The activity {method.proto}.")
        text.line()
    text.line()
