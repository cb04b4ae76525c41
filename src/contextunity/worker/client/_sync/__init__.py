# Generated from ../_async/__init__.py by tools/sync_client.py. DO NOT EDIT.
"""SyncWorkerClient and SyncTaskHandle, on grpc."""

from .client import SyncWorkerClient
from .task import SyncTaskHandle

__all__ = ["SyncTaskHandle", "SyncWorkerClient"]
