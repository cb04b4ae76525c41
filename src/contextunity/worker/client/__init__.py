"""The client of WorkerService for Python callers: `WorkerClient` for asyncio, `SyncWorkerClient` for threads.

Typed requests and answers are the generated dataclasses of `contextunity.gen.contextunity.worker`; docs/client.md has
examples.
"""

from __future__ import annotations

from . import methods
from ._async import TaskHandle, WorkerClient
from ._envelope import Answer, Trace
from ._requests import plain_value
from ._retry import RetryPolicy
from ._sync import SyncTaskHandle, SyncWorkerClient
from .errors import FieldViolation, TaskFailedError, WorkerServiceError

__all__ = [
    "Answer",
    "FieldViolation",
    "RetryPolicy",
    "SyncTaskHandle",
    "SyncWorkerClient",
    "TaskFailedError",
    "TaskHandle",
    "Trace",
    "WorkerClient",
    "WorkerServiceError",
    "methods",
    "plain_value",
]
