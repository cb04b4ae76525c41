"""The workflow runner: one import of a workflow's module for all of its runs, if that is safe."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from ._proof import prove
from ._sdk import Entered, StandingSandbox

__all__ = ["SandboxError", "SharingWorkflowRunner", "WorkflowStateError"]

_LOG = logging.getLogger("shared_import_sandbox")


class SandboxError(Exception):
    """Runs of a workflow were not isolated; the workflow task fails, and Temporal retries it."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the text and the attributes; the constructor is not called again."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[SandboxError], args: tuple[Any, ...], attributes: dict[str, Any]) -> SandboxError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class WorkflowStateError(SandboxError):
    """A workflow changed shared state of its module; `changed` names it.

    It fails the workflow task, not the workflow: Temporal retries the task, with the module imported for that run.
    """

    def __init__(self, changed: tuple[str, ...]) -> None:
        self.changed = changed
        advice = "keep state on self"
        if any(name.startswith("sys.modules.") for name in changed):
            advice += ", and import what a run needs at the top of a module, or pass it through"
        super().__init__(
            f"workflow code changed {', '.join(changed)} at run time, which other runs can see; {advice}. "
            "The change was undone, and from now on the module is imported again for each run"
        )


class _OverlappedError(SandboxError):
    def __init__(self, module: str) -> None:
        super().__init__(
            f"another run changed shared state of module {module!r} during this one, which may have seen it; "
            "Temporal retries the workflow task"
        )


class _SharedModule:
    """A workflow's module and its imports, for all runs, with a snapshot of its initial state."""

    def __init__(self, restrictions: SandboxRestrictions, name: str, fixed_types: frozenset[type]) -> None:
        self.name = name
        self._fixed_types = fixed_types
        self.sandbox = StandingSandbox(restrictions, name)
        self.usable = True
        self.undone = 0
        self._lock = threading.Lock()
        self._classes = dict[str, type[Any]]()

    def workflow_class(self, name: str) -> type[Any]:
        """Return the class of the shared import; it is cached."""
        found = self._classes.get(name)
        if found is None:
            found = self._classes[name] = self.sandbox.workflow_class(name)
        return found

    def load(
        self, class_name: str, runner_class: type[Any], failure_exception_types: Sequence[type[BaseException]]
    ) -> None:
        """Import the module and what the SDK imports with it, and decide whether it may be shared."""
        self.sandbox.workflow_class(class_name)
        for each in failure_exception_types:
            self.sandbox.imported(each.__module__, each.__qualname__.partition(".")[0])
        through = self.sandbox.passed_through_by_code()
        if through:
            self.sandbox.pass_through(through)
        self.inner_runner = self.sandbox.imported(runner_class.__module__, runner_class.__name__)
        self.inner_class = self.sandbox.inner_class()
        self.sandbox.seal()
        try:
            proof = prove(self.sandbox, self._fixed_types)
        except Exception as error:  # noqa: BLE001 - the SDK may be able to run what cannot be inspected
            self.usable = False
            _LOG.warning(
                "workflow module %s: imported again for each run, because inspecting it failed: %r", self.name, error
            )
            return
        self._snapshot = proof.snapshot
        self.usable = not proof.faults
        if self.usable:
            _LOG.info("workflow module %s: imported once, for all runs", self.name)
        else:
            _LOG.info("workflow module %s: imported again for each run, because %s", self.name, "; ".join(proof.faults))
        for derived in proof.derived:
            _LOG.warning(
                "workflow module %s: %s is derived from a class that the sandbox restricts, such as datetime; workflow "
                "code that uses it fails its workflow task each time. Move it to a module that is passed through",
                *(self.name, derived),
            )

    def undo(self, since: int) -> SandboxError | None:
        """Undo changes of runs; after a change, stop sharing the module.

        Args:
            since: `undone` at the start of the activation.

        Returns:
            The error to fail the activation with; None if it changed nothing and saw no change of another run.
        """
        if self._snapshot.unchanged() and self.undone == since:
            return None
        with self._lock:
            changed = self._snapshot.restore()
            if not changed:
                return _OverlappedError(self.name) if self.undone != since else None
            self.sandbox.forget_imports()
            self.undone += 1
            self.usable = False
        error = WorkflowStateError(tuple(changed))
        if self.undone == 1:
            _LOG.warning("workflow module %s: %s", self.name, error)
        return error


@dataclasses.dataclass(frozen=True)
class SharingWorkflowRunner(SandboxedWorkflowRunner):
    """The SDK's sandbox with the same restrictions, but one import of a workflow's module for all runs.

    A module is shared only if it, and everything that it imports inside the sandbox, contains nothing that a run could
    change. Other modules are imported again for each run, as in the SDK. If a run changes a shared module anyway, its
    workflow task fails with a WorkflowStateError, and the module is shared no longer.
    """

    fixed_types: frozenset[type] = frozenset()
    _shared: dict[str, _SharedModule] = dataclasses.field(
        default_factory=dict[str, _SharedModule], init=False, repr=False, compare=False
    )

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """Create an instance on the shared import, or one with its own import."""
        shared = self._module_of(det.defn)
        if shared.usable:
            since = shared.undone
            instance = _Instance(shared, det)
            # Interceptors may have imported something.
            if shared.undo(since) is None:
                return instance
        return shared.sandbox.unshared_instance(det, self.runner_class)

    def _module_of(self, defn: workflow._Definition) -> _SharedModule:
        name = defn.cls.__module__
        # As in the SDK: importing __main__ again would run it again.
        name = "__temporal_main__" if name == "__main__" else name
        shared = self._shared.get(name)
        if shared is None:
            shared = _SharedModule(self.restrictions, name, self.fixed_types)
            shared.load(defn.cls.__name__, self.runner_class, self._worker_level_failure_exception_types)
            self._shared[name] = shared
        return shared


class _Instance(WorkflowInstance):
    """A run on the shared import."""

    def __init__(self, shared: _SharedModule, det: WorkflowInstanceDetails) -> None:
        self._shared = shared
        self._info = det.info
        self._thread_id: int | None = None
        workflow_class = shared.workflow_class(det.defn.cls.__name__)
        with Entered(shared.sandbox, in_activation=False):
            self._inner = shared.inner_class(det, shared.inner_runner, workflow_class)

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        shared = self._shared
        since = shared.undone
        error: SandboxError | None = None
        self._thread_id = threading.get_ident()
        try:
            with Entered(shared.sandbox, in_activation=True):
                completion = self._inner.activate(act)
        finally:
            self._thread_id = None
            error = shared.undo(since)
        # Do not fail the eviction of a run from the cache: the SDK would retry it forever.
        if error is not None and not any(job.HasField("remove_from_cache") for job in act.jobs):
            raise error
        return completion

    def get_info(self) -> workflow.Info:
        return self._info

    def get_thread_id(self) -> int | None:
        return self._thread_id

    def get_serialization_context(self, command_info: Any) -> Any:
        with Entered(self._shared.sandbox, in_activation=False):
            return self._inner.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        with Entered(self._shared.sandbox, in_activation=False):
            return self._inner.get_external_store_context(command_info)
