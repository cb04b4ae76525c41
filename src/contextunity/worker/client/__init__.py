"""The client of WorkerService for Python callers: `WorkerClient` for asyncio, `SyncWorkerClient` for threads.

Typed requests and answers are the generated dataclasses of `contextunity.gen.contextunity.worker`; docs/client.md has
examples.
"""

from __future__ import annotations

from . import methods
from ._async_client import TaskHandle, WorkerClient
from ._channel import Retry, RetryPolicy
from ._requests import Answer, Trace, plain_value
from ._sync_client import SyncTaskHandle, SyncWorkerClient
from .errors import FieldViolation, TaskFailedError, WorkerServiceError

__all__ = [
    "Answer",
    "FieldViolation",
    "Retry",
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
