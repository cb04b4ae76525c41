"""Prints the typed client, and the base class of each workflow."""

from __future__ import annotations

from .model import BindingModel, Method, ServiceModel, WorkflowModel
from .print_contract import contract_name
from .python_text import PythonText

__all__ = ["print_activity_base", "print_bases", "print_child_handles", "print_client", "print_handles"]


def parameter(text: PythonText, method: Method, name: str = "request") -> str:
    """Return the input as a further parameter; empty for google.protobuf.Empty."""
    return f", {name}: {text.type(method.input)}" if method.input is not None else ""


def argument(method: Method, name: str = "request") -> str:
    """Return the input as an argument; None for google.protobuf.Empty."""
    return name if method.input is not None else "None"


def method_docstring(text: PythonText, method: Method, fallback: str, indent: int = 2) -> None:
    """Print the proto's comment as a docstring."""
    text.docstring(method.comment or fallback, indent)


def class_docstring(text: PythonText, first: str, comment: str) -> None:
    """Print a class's docstring: a description, then the proto's comment."""
    text.docstring(f"{first}\n\n{comment}" if comment else first, 1)
    text.line()


def deprecation(text: PythonText, method: Method, indent: int = 1) -> None:
    """Print the decorator with which type checkers and Python warn of a deprecated method."""
    if method.deprecated:
        decorator = text.imported("typing_extensions", "deprecated")
        text.line(f"@{decorator}({f'{method.full_name} is deprecated'!r})", indent)


def print_child_handles(text: PythonText, service: ServiceModel) -> None:
    """Print the handles of a workflow for other workflows."""
    for workflow in service.workflows:
        output = text.type(workflow.method.output)
        _print_signal_handle(text, workflow, workflow.child, f"_t.ChildHandle[{output}]", "as a child")
        _print_signal_handle(text, workflow, workflow.external, "_t.ExternalHandle", "seen from another workflow")


def _print_signal_handle(text: PythonText, workflow: WorkflowModel, name: str, base: str, what: str) -> None:
    text.line(f"class {name}({base}):")
    class_docstring(text, f"The workflow {workflow.method.proto} {what}.", "")
    for binding in workflow.signals:
        method = binding.message.method
        deprecation(text, method)
        text.line(f"async def {binding.child_call}(self{parameter(text, method)}) -> None:", 1)
        method_docstring(text, method, f"Send the signal {method.proto}.")
        text.line(f"await self._signal({contract_name(text, binding)}, {argument(method)})", 2)
        text.line()
    text.line()


def print_bases(text: PythonText, service: ServiceModel) -> None:
    """Print the classes that workflows derive from."""
    for workflow in service.workflows:
        _print_base(text, workflow)


def _print_base(text: PythonText, workflow: WorkflowModel) -> None:
    method = workflow.method
    text.line(f"class {workflow.base}(_t.WorkflowBase, contract={workflow.symbol}.contract):")
    first = (
        f"Base of the workflow {method.temporal_name!r}; a derived class is checked and registered at its definition."
    )
    class_docstring(text, first, method.comment)
    _print_abstract(text, f"async def run(self{parameter(text, method)}) -> {text.type(method.output)}:")
    method_docstring(text, method, f"Run the workflow {method.proto}.")
    text.line()
    for binding in workflow.queries:
        _print_handler(text, binding, text.type(binding.message.method.output))
    for binding in workflow.signals:
        _print_handler(text, binding, _sync_or_async(text, binding.message.method))
    for binding in workflow.updates:
        _print_handler(text, binding, _sync_or_async(text, binding.message.method))
        if binding.validator:
            message = binding.message.method
            _print_abstract(text, f"def {binding.validator}(self{parameter(text, message)}) -> None:")
            text.docstring(f"Reject a {message.proto} by raising an error; do not change anything.", 2)
            text.line()
    text.line()


def _print_handler(text: PythonText, binding: BindingModel, result: str) -> None:
    method = binding.message.method
    _print_abstract(text, f"def {binding.handler}(self{parameter(text, method)}) -> {result}:")
    method_docstring(text, method, f"Handle the {binding.message.kind} {method.proto}.")
    text.line()


def _print_abstract(text: PythonText, signature: str) -> None:
    text.line(f"@{text.imported('abc', 'abstractmethod')}", 1)
    text.line(signature, 1)


def _sync_or_async(text: PythonText, method: Method) -> str:
    """Return the annotation of a result from a sync or async method."""
    result = text.type(method.output)
    return f"{text.imported('collections.abc', 'Awaitable')}[{result}] | {result}"


def print_activity_base(text: PythonText, service: ServiceModel) -> None:
    """Print the class that objects with activities derive from."""
    if not service.activities:
        return
    text.line(f"class {service.activity_base}(_t.ActivityBase, service={service.symbol}):")
    class_docstring(text, f"The activities of {service.name}, to implement as sync or async methods.", "")
    for activity in service.activities:
        method = activity.method
        result = _sync_or_async(text, method)
        _print_abstract(text, f"def {activity.handler}(self{parameter(text, method)}) -> {result}:")
        method_docstring(text, method, f"The activity {method.proto}.")
        text.line()
    text.line()


def print_handles(text: PythonText, service: ServiceModel) -> None:
    """Print the handles of running workflows."""
    for workflow in service.workflows:
        _print_handle(text, workflow)


def _print_handle(text: PythonText, workflow: WorkflowModel) -> None:
    text.line(f"class {workflow.handle}(_t.Handle[{text.type(workflow.method.output)}]):")
    class_docstring(text, f"A client's handle of the workflow {workflow.method.proto}.", "")
    for binding in workflow.queries:
        _print_call(text, binding, binding.call, text.type(binding.message.method.output), "QueryOptions", "query")
    for binding in workflow.signals:
        _print_call(text, binding, binding.call, "None", "SignalOptions", "signal")
    for binding in workflow.updates:
        output = text.type(binding.message.method.output)
        _print_call(text, binding, binding.call, output, "UpdateOptions", "execute_update")
        _print_start_update(text, binding, output)
    text.line()


def _print_call(text: PythonText, binding: BindingModel, name: str, result: str, options: str, runtime: str) -> None:
    method = binding.message.method
    deprecation(text, method)
    text.line(f"async def {name}(self{parameter(text, method)}, {_options(text, options)}) -> {result}:", 1)
    method_docstring(text, method, f"Send the {binding.message.kind} {method.proto}.")
    call = f"await self._{runtime}({contract_name(text, binding)}, {argument(method)}, options)"
    text.line(call if result == "None" else f"return {call}", 2)
    text.line()


def _print_start_update(text: PythonText, binding: BindingModel, output: str) -> None:
    method = binding.message.method
    stage = f"wait_for_stage: _t.WorkflowUpdateStage | None = None, {_options(text, 'UpdateOptions')}"
    deprecation(text, method)
    text.line(f"async def {binding.start_call}(", 1)
    text.line(
        f"self{parameter(text, method)}, *, {stage}",
        2,
    )
    text.line(f") -> _t.UpdateHandle[{output}]:", 1)
    text.docstring(f"Send the update {method.proto}, and return when it has reached `wait_for_stage`.", 2)
    text.line(
        f"return await self._start_update({contract_name(text, binding)}, {argument(method)}, wait_for_stage, options)",
        2,
    )
    text.line()


def print_client(text: PythonText, service: ServiceModel) -> None:
    """Print the client, if there is a workflow to start."""
    if not service.workflows:
        return
    text.line(f"class {service.client}(_t.ServiceClient):")
    class_docstring(text, f"Client of {service.name}.", service.comment)
    for workflow in service.workflows:
        _print_starts(text, workflow)
        _print_get(text, workflow)
        for binding in workflow.signals:
            if binding.with_start:
                _print_signal_with_start(text, workflow, binding)
        for binding in workflow.updates:
            if binding.with_start:
                _print_update_with_start(text, workflow, binding)
    text.line()


def _print_starts(text: PythonText, workflow: WorkflowModel) -> None:
    method = workflow.method
    signature = f"(self{parameter(text, method)}, {_options(text, 'StartOptions')})"
    deprecation(text, method)
    text.line(f"async def {workflow.execute}{signature} -> {text.type(method.output)}:", 1)
    method_docstring(text, method, f"Run the workflow {method.proto}, and return its result.")
    start = f"(await self._start({workflow.symbol}.contract, {argument(method)}, {workflow.handle}, options)).result()"
    text.line(f"return await {start}", 2)
    text.line()
    deprecation(text, method)
    text.line(f"async def {workflow.start}{signature} -> {workflow.handle}:", 1)
    text.docstring(f"Start the workflow {method.proto}, and return its handle.", 2)
    text.line(
        f"return await self._start({workflow.symbol}.contract, {argument(method)}, {workflow.handle}, options)", 2
    )
    text.line()


def _print_get(text: PythonText, workflow: WorkflowModel) -> None:
    text.line(f"def {workflow.get}(self, workflow_id: str, *, run_id: str | None = None) -> {workflow.handle}:", 1)
    text.docstring(f"Return a handle of a started {workflow.method.proto}, without a request to the server.", 2)
    text.line(f"return self._get({workflow.symbol}.contract, workflow_id, run_id, {workflow.handle})", 2)
    text.line()


def _print_signal_with_start(text: PythonText, workflow: WorkflowModel, binding: BindingModel) -> None:
    method, signal = workflow.method, binding.message.method
    deprecation(text, method)
    text.line(f"async def {binding.with_start}(", 1)
    text.line(f"self{parameter(text, method)}{parameter(text, signal, 'signal')}, {_options(text, 'StartOptions')}", 2)
    text.line(f") -> {workflow.handle}:", 1)
    text.docstring(f"Send the signal {signal.proto}; start the workflow {method.proto} if none is running.", 2)
    text.line("return await self._start(", 2)
    text.line(f"{workflow.symbol}.contract, {argument(method)}, {workflow.handle}, options,", 3)
    text.line(f"{contract_name(text, binding)}, {argument(signal, 'signal')},", 3)
    text.line(")", 2)
    text.line()


def _print_update_with_start(text: PythonText, workflow: WorkflowModel, binding: BindingModel) -> None:
    method, update = workflow.method, binding.message.method
    deprecation(text, method)
    text.line(f"async def {binding.with_start}(", 1)
    text.line(
        f"self{parameter(text, method)}{parameter(text, update, 'update')}, {_options(text, 'UpdateWithStartOptions')}",
        2,
    )
    text.line(f") -> tuple[{workflow.handle}, _t.UpdateHandle[{text.type(update.output)}]]:", 1)
    text.docstring(f"Send the update {update.proto}; start the workflow {method.proto} if none is running.", 2)
    text.line(f"contract = {workflow.symbol}.contract", 2)
    text.line("return await self._update_with_start(", 2)
    text.line(f"contract, {argument(method)}, {workflow.handle}, contract.updates[{binding.key!r}],", 3)
    text.line(f"{contract_name(text, binding)}, {argument(update, 'update')}, options,", 3)
    text.line(")", 2)
    text.line()


def _options(text: PythonText, name: str) -> str:
    return f"**options: {text.imported('typing', 'Unpack')}[_t.{name}]"
