"""All code that uses private parts of the SDK, in one file.

The restrictions are the SDK's own, including importer and proxies. In contrast to the SDK's runner, one importer serves
all runs of a workflow, in several threads at once, and entering it compiles no code.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from temporalio import workflow
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxRestrictions
from temporalio.worker.workflow_sandbox._importer import (
    Importer,
    _thread_local_import,  # pyright: ignore[reportPrivateUsage]  # this file is where that is allowed
    _thread_local_sys_modules,  # pyright: ignore[reportPrivateUsage]
)
from temporalio.worker.workflow_sandbox._in_sandbox import InSandbox
from temporalio.worker.workflow_sandbox._restrictions import (
    RestrictedModule,
    RestrictionContext,
    _RestrictedProxy,  # pyright: ignore[reportPrivateUsage]
)
from temporalio.worker.workflow_sandbox._runner import (
    _Instance,  # pyright: ignore[reportPrivateUsage]
)

__all__ = ["Entered", "StandingSandbox", "is_proxy", "set_in_sandbox", "unwrapped"]

set_in_sandbox: Callable[[bool], None] = workflow.unsafe._set_in_sandbox  # pyright: ignore[reportPrivateUsage]

_OF_THE_INTERPRETER = frozenset({"__main__", "builtins", "sys"})
_IN_SANDBOX = "temporalio.worker.workflow_sandbox._in_sandbox"


class _Context(RestrictionContext):
    """The state that restrictions depend on: permanent once everything is loaded, and per thread where threads differ.

    The SDK's own context switches on and off with each run; here, the end of one run would unprotect all others.
    """

    def __init__(self) -> None:
        self._thread = threading.local()
        super().__init__()

    @property
    def in_activation(self) -> bool:  # A plain attribute in the SDK.
        return getattr(self._thread, "in_activation", False)

    @in_activation.setter
    def in_activation(self, value: bool) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._thread.in_activation = value


class _Importer(Importer):
    """The SDK's importer, for several threads at once, with a cache for imports at run time."""

    def __init__(self, restrictions: SandboxRestrictions, context: _Context, module_name: str) -> None:
        self._lock = threading.RLock()
        self._known: dict[tuple[str, tuple[str, ...]], tuple[types.ModuleType, types.ModuleType]] = {}
        super().__init__(restrictions, context, workflow_module_name=module_name)

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> types.ModuleType:
        if level:
            with self._lock:
                return super()._import(name, globals, locals, fromlist, level)
        asked = (name, tuple(fromlist or ()))
        known = self._known.get(asked)
        if known is not None and self.new_modules.get(name) is known[0]:
            return known[1]
        # The SDK's importer marks a module as restricted before it wraps it; without the lock, another thread could get
        # the bare module in between.
        with self._lock:
            given = super()._import(name, globals, locals, fromlist, level)
            entry = self.new_modules.get(name)
            if entry is not None and self.restriction_context.is_runtime:
                self._known[asked] = (entry, given)
            return given

    def forget(self) -> None:
        with self._lock:
            self._known.clear()
            self.modules_checked_for_restrictions.intersection_update(self.new_modules)


class StandingSandbox:
    """A sandbox that keeps its imports for all runs.

    Args:
        restrictions: the SDK's restrictions.
        module_name: module of the workflow.
    """

    def __init__(self, restrictions: SandboxRestrictions, module_name: str) -> None:
        self.context = _Context()
        self._module_name = module_name
        self._importer = _Importer(restrictions, self.context, module_name)
        self.overrides: list[tuple[Any, Any, str, Any]] = [
            (_thread_local_sys_modules, sys, "modules", self._importer.new_modules),
            (_thread_local_import, builtins, "__import__", self._importer.import_func),
            *((override, builtins, name, restricted) for name, override, restricted in self._restricted_builtins()),
        ]

    def _restricted_builtins(self) -> list[tuple[str, Any, Any]]:
        importer: Any = self._importer  # The SDK does not type its callables.
        found: list[tuple[str, Any, Any]] = importer.restricted_builtins
        return found

    @property
    def modules(self) -> dict[str, types.ModuleType]:
        """`sys.modules` as code inside sees it."""
        return self._importer.new_modules

    @property
    def importer(self) -> Importer:
        return self._importer

    def forget_imports(self) -> None:
        """Import and restrict again, on next use, the modules that were removed from `modules`."""
        self._importer.forget()

    def seal(self) -> None:
        """Apply the restrictions for run time from now on."""
        self.context.is_runtime = True

    def imported(self, module_name: str, name: str) -> Any:
        """Execute `from module_name import name` inside, and return the value."""
        with Entered(self, in_activation=False):
            module = self._importer.import_func(module_name, None, None, (name,), 0)
            try:
                return getattr(module, name)
            except AttributeError:
                where = f"{module_name!r} ({getattr(module, '__file__', None)})"
                raise ImportError(f"cannot import name {name!r} from {where}", name=module_name) from None

    def workflow_class(self, name: str) -> type[Any]:
        found: type[Any] = self.imported(self._module_name, name)
        return found

    def inner_class(self) -> type[InSandbox]:
        """Return the SDK's class for the inner half of an instance."""
        found: type[InSandbox] = self.imported(_IN_SANDBOX, "InSandbox")
        return found

    def passed_through(self, name: str) -> bool:
        """Return whether a module of that name is passed through."""
        return self._importer.module_configured_passthrough(name)

    def passed_through_by_code(self) -> set[str]:
        """Return the modules that were imported under `imports_passed_through()`, apart from configured ones.

        What they import later, when a run calls them, belongs to them. The SDK passes through only what is imported
        within the `with` block, so a library that loads parts of itself at first use, such as numpy, gets them from the
        sandbox. Packages of which the sandbox imported a part itself are left out.
        """
        own = self.own_modules()
        found = {
            name
            for name, module in self.modules.items()
            if name not in own and module is host_modules().get(name) and not self.passed_through(name)
        }
        return {
            name
            for name in found
            if name not in _OF_THE_INTERPRETER and not any(each.startswith(f"{name}.") for each in own)
        }

    def pass_through(self, names: set[str]) -> None:
        """Pass more modules through, with all that is in them."""
        self._importer.restrictions = self._importer.restrictions.with_passthrough_modules(*names)

    def unshared_instance(self, det: WorkflowInstanceDetails, runner_class: type[WorkflowRunner]) -> WorkflowInstance:
        """Create an instance of the SDK's, with an import of its own and these restrictions."""
        return _Instance(det, runner_class, self._importer.restrictions)

    def own_modules(self) -> dict[str, types.ModuleType]:
        """Return the modules that were imported inside, by name; all others are the process's own."""
        host = host_modules()
        inside = {name: unwrapped(module) for name, module in list(self.modules.items())}
        return {name: module for name, module in inside.items() if module is not host.get(name)}


class Entered:
    """Context manager that applies the sandbox to this thread only.

    It does what the SDK's `Importer.applied()` does, on the same counters, so shared and unshared runs work at once.
    """

    __slots__ = ("_before", "_in_activation", "_sandbox", "_undo")

    def __init__(self, sandbox: StandingSandbox, *, in_activation: bool) -> None:
        self._sandbox = sandbox
        self._in_activation = in_activation

    def __enter__(self) -> None:
        sandbox = self._sandbox
        self._before = Importer.current_importer()
        Importer._thread_local_current.importer = sandbox.importer  # pyright: ignore[reportPrivateUsage]
        self._undo: list[Any] = []
        for override, owner, attribute, value in sandbox.overrides:
            data = override.thread_local.__dict__
            self._undo.append(data.get("data"))
            with override.applied_counter_lock:
                override.applied_counter += 1
                if getattr(owner, attribute) is not override:
                    setattr(owner, attribute, override)
            data["data"] = value
        sandbox.context.in_activation = self._in_activation
        set_in_sandbox(True)

    def __exit__(self, *error: object) -> None:
        sandbox = self._sandbox
        set_in_sandbox(False)
        sandbox.context.in_activation = False
        while self._undo:
            override, owner, attribute, _ = sandbox.overrides[len(self._undo) - 1]
            before = self._undo.pop()
            data = override.thread_local.__dict__
            if before is None:
                data.pop("data", None)
            else:
                data["data"] = before
            with override.applied_counter_lock:
                override.applied_counter -= 1
                if override.applied_counter == 0:
                    setattr(owner, attribute, override.orig)
        Importer._thread_local_current.importer = self._before  # pyright: ignore[reportPrivateUsage]


def is_proxy(value: object) -> bool:
    """Return whether a value is the SDK's proxy for something restricted, without reading its attributes."""
    return type(value) is _RestrictedProxy or type(value) is RestrictedModule


def unwrapped(value: Any) -> Any:
    """Return the object behind a proxy; other values, and classes derived from a proxy, unchanged."""
    if not is_proxy(value):
        return value
    try:
        return object.__getattribute__(value, "__temporal_state").obj
    except AttributeError:
        return value


def host_modules() -> Mapping[str, types.ModuleType]:
    """Return the process's own `sys.modules`, inside the sandbox too."""
    modules: Mapping[str, types.ModuleType] = _thread_local_sys_modules.orig
    return modules
