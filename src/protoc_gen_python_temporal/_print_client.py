"""Prints the client's side of a service: handles of its workflows, and the client that gives them."""

from __future__ import annotations

from ._model import BindingModel, ServiceModel, WorkflowModel
from ._print_contract import contract_name
from ._print_workflow import argument, class_docstring, deprecation, method_docstring, parameter
from ._text import PythonText

__all__ = ["print_client", "print_handles"]


def print_handles(text: PythonText, service: ServiceModel) -> None:
    """Prints the handles of running workflows."""
    for workflow in service.workflows:
        _print_handle(text, workflow)


def _print_handle(text: PythonText, workflow: WorkflowModel) -> None:
    text.line(f"class {workflow.handle}(_t.Handle[{text.type(workflow.method.output)}]):")
    class_docstring(text, f"A run of the workflow {workflow.method.proto}, as clients hold it.", "")
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
    method_docstring(text, method, f"Sends the {binding.message.kind} {method.proto}.")
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
    text.docstring(f"Sends the update {method.proto} and returns once it has come to `wait_for_stage`.", 2)
    text.line(
        f"return await self._start_update({contract_name(text, binding)}, {argument(method)}, wait_for_stage, options)",
        2,
    )
    text.line()


def print_client(text: PythonText, service: ServiceModel) -> None:
    """Prints the client, where there is a workflow to start."""
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
    method_docstring(text, method, f"Runs the workflow {method.proto} and waits for its result.")
    start = f"(await self._start({workflow.symbol}.contract, {argument(method)}, {workflow.handle}, options)).result()"
    text.line(f"return await {start}", 2)
    text.line()
    deprecation(text, method)
    text.line(f"async def {workflow.start}{signature} -> {workflow.handle}:", 1)
    text.docstring(f"Starts the workflow {method.proto} and returns its handle.", 2)
    text.line(
        f"return await self._start({workflow.symbol}.contract, {argument(method)}, {workflow.handle}, options)", 2
    )
    text.line()


def _print_get(text: PythonText, workflow: WorkflowModel) -> None:
    text.line(f"def {workflow.get}(self, workflow_id: str, *, run_id: str | None = None) -> {workflow.handle}:", 1)
    text.docstring(f"The handle of a {workflow.method.proto} that was started elsewhere; the server is not asked.", 2)
    text.line(f"return self._get({workflow.symbol}.contract, workflow_id, run_id, {workflow.handle})", 2)
    text.line()


def _print_signal_with_start(text: PythonText, workflow: WorkflowModel, binding: BindingModel) -> None:
    method, signal = workflow.method, binding.message.method
    deprecation(text, method)
    text.line(f"async def {binding.with_start}(", 1)
    text.line(f"self{parameter(text, method)}{parameter(text, signal, 'signal')}, {_options(text, 'StartOptions')}", 2)
    text.line(f") -> {workflow.handle}:", 1)
    text.docstring(f"Sends the signal {signal.proto}, starting the workflow {method.proto} where none is running.", 2)
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
    text.docstring(f"Sends the update {update.proto}, starting the workflow {method.proto} where none is running.", 2)
    text.line(f"contract = {workflow.symbol}.contract", 2)
    text.line("return await self._update_with_start(", 2)
    text.line(f"contract, {argument(method)}, {workflow.handle}, contract.updates[{binding.key!r}],", 3)
    text.line(f"{contract_name(text, binding)}, {argument(update, 'update')}, options,", 3)
    text.line(")", 2)
    text.line()


def _options(text: PythonText, name: str) -> str:
    return f"**options: {text.imported('typing', 'Unpack')}[_t.{name}]"
