"""The buf plugin `protoc-gen-python_messages`: generates dataclasses and Google's message classes next to each other.

For every file it writes, into one folder per proto package, betterproto2 dataclasses (`__init__.py`) and Google's
modules (`*_pb2.py`, `*_pb2_grpc.py`) with mypy-protobuf's stubs. The codec in `contextunity.core.codec` finds one from
the other by this layout.
"""

from .plugin import main

__all__ = ["main"]
