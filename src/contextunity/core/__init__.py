"""The parts that all ContextUnity services share: the envelope, its codec and the base class of all errors.

`worker_pb2` and `worker_pb2_grpc` are Google's generated modules of the WorkerService, for callers.
"""

from __future__ import annotations

from contextunity.gen.contextunity.worker import worker_pb2, worker_pb2_grpc

from .errors import CodecError, ContextUnityError
from .unit import ContextUnit

__all__ = ["CodecError", "ContextUnit", "ContextUnityError", "worker_pb2", "worker_pb2_grpc"]
