"""Temporal's workflow sandbox, with one import of a workflow's module for all of its runs if that is safe.

Read `_runner.py` first: it combines the parts into a runner for the SDK's workers.

- `_sdk.py` contains everything that uses private parts of the SDK: the importer, and entering the sandbox.
- `_proof.py` decides at startup whether a module may be shared, with `_fixed_values.py` and `_bytecode.py`.
- `_snapshot.py` finds what a run changed anyway, and restores it.
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
    """Return a sandboxed runner for a worker, a replayer or a test environment.

    Args:
        restrictions: which modules are passed through, and what is forbidden.
        runner_class: runs the workflow inside the sandbox.
        fixed_types: more classes whose instances never change; a module may contain them and still be shared.

    Returns:
        A runner that shares imports. With a version of temporalio outside `PROVED_SDK_VERSIONS`, the SDK's own runner,
        with one warning in the log.
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
