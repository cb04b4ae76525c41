"""The buf plugin `protoc-gen-python_messages`: dataclasses and Google's message classes, side by side.

For every file to generate it writes, into one folder per proto package, betterproto2 dataclasses (`__init__.py`) and
Google's modules (`*_pb2.py`, `*_pb2_grpc.py`) with mypy-protobuf's stubs. The codec in `contextunity.core.codec` finds
the one from the other by this neighbourhood.
"""

from .plugin import main

__all__ = ["main"]
