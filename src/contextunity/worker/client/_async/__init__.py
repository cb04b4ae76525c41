"""WorkerClient and TaskHandle, on grpc.aio."""

from .client import WorkerClient
from .task import TaskHandle

__all__ = ["TaskHandle", "WorkerClient"]
