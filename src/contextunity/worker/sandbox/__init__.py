"""The workflow sandbox: the SDK's, with the import of a workflow's module shared by all of its runs where that is safe.

- `_sdk.py` has all that is taken from private parts of the SDK: an importer for all runs, and the way into it.
- `_proof.py`, with `_kinds.py` and `_code.py`, looks when a worker starts whether a module may be shared.
- `_watch.py` finds what a run changed all the same, and undoes it.
- `_runner.py` puts it together as a runner for the SDK's workers.
"""

from __future__ import annotations

import functools
import logging

from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

__all__ = ["sandboxed_runner"]

_LOG = logging.getLogger(__name__)


def sandboxed_runner(
    restrictions: SandboxRestrictions, runner_class: type[WorkflowRunner] = UnsandboxedWorkflowRunner
) -> SandboxedWorkflowRunner:
    """A runner with the SDK's sandbox for a worker, a replayer or a test environment.

    Args:
        restrictions: which modules are the process's own, and what is forbidden.
        runner_class: what runs a workflow inside.

    Returns:
        One that shares imports; with an SDK that this version does not know, the SDK's own, after one warning.
    """
    return _outer_class()(restrictions=restrictions, runner_class=runner_class)


@functools.cache
def _outer_class() -> type[SandboxedWorkflowRunner]:
    try:
        from ._runner import SharingWorkflowRunner
        from ._sdk import trial

        trial()
    except Exception as error:  # noqa: BLE001 - whatever a release changes, the SDK's own sandbox works
        _LOG.warning(
            "workflow modules are imported anew for each run, because this temporalio is not the one that "
            "ContextWorker knows: %r",
            error,
        )
        return SandboxedWorkflowRunner
    return SharingWorkflowRunner
