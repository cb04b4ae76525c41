"""The types of the extension module that `_wire.pyx` is compiled to. It is optional: see `_schema`."""

from collections.abc import Callable, Mapping
from typing import Any

MAX_FIELDS: int
MAX_GROUPS: int

class Field:
    def __init__(
        self,
        number: int,
        kind: int,
        *,
        repeated: bool = False,
        presence: bool = False,
        packed: bool = False,
        group: int = -1,
        default: Any = None,
        schema: Schema | None = None,
        members: Mapping[int, Any] | None = None,
        enum: type | None = None,
        key: Field | None = None,
        inner: Field | None = None,
    ) -> None: ...

class Schema:
    def __init__(self, cls: type) -> None: ...
    def define(
        self, fields: tuple[Field, ...], fill: Callable[..., None], read: Callable[[Any], tuple[Any, ...]]
    ) -> None: ...
    def decode(self, data: object) -> Any: ...
    def encode(self, message: object) -> bytes | None: ...

def struct_bytes(mapping: object) -> bytes | None: ...
