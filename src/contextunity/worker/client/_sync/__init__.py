"""SyncWorkerClient and SyncTaskHandle, on grpc."""

from .client import SyncWorkerClient
from .task import SyncTaskHandle

__all__ = ["SyncTaskHandle", "SyncWorkerClient"]
