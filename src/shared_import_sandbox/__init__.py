"""Temporal's workflow sandbox, with one import of a workflow's module for all of its runs where that is safe.

Read `_runner.py` first: it puts the parts together as a runner for the SDK's workers.

- `_sdk.py` holds all that is taken from private parts of the SDK: the importer, and entering the sandbox.
- `_proof.py` decides at start-up whether a module may be shared, by `_fixed_values.py` and `_bytecode.py`.
- `_snapshot.py` finds what a run changed nevertheless, and restores it.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
from collections.abc import Iterable

from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

__all__ = ["PROVED_SDK_VERSIONS", "sandboxed_runner"]

PROVED_SDK_VERSIONS = ("1.35.0",)
"""Versions of temporalio that the tests of this package passed with. It uses private parts of the SDK."""

_LOG = logging.getLogger(__name__)


def sandboxed_runner(
    restrictions: SandboxRestrictions,
    runner_class: type[WorkflowRunner] = UnsandboxedWorkflowRunner,
    *,
    fixed_types: Iterable[type] = (),
) -> SandboxedWorkflowRunner:
    """Returns a sandboxed runner for a worker, a replayer or a test environment.

    Args:
        restrictions: which modules are passed through, and what is forbidden.
        runner_class: runs the workflow inside the sandbox.
        fixed_types: further classes whose instances never change, so that a module that holds some can be shared.

    Returns:
        A runner that shares imports; with a version of temporalio that is not in `PROVED_SDK_VERSIONS`, the SDK's own
        after one warning in the log.
    """
    if not _is_proved():
        return SandboxedWorkflowRunner(restrictions=restrictions, runner_class=runner_class)
    from ._runner import SharingWorkflowRunner

    return SharingWorkflowRunner(
        restrictions=restrictions, runner_class=runner_class, fixed_types=frozenset(fixed_types)
    )


@functools.cache
def _is_proved() -> bool:
    version = importlib.metadata.version("temporalio")
    if version in PROVED_SDK_VERSIONS:
        return True
    _LOG.warning(
        "workflow modules are imported for each run: shared imports are proved with temporalio %s, and %s is installed",
        ", ".join(PROVED_SDK_VERSIONS),
        version,
    )
    return False
