"""Compile the conversions of message classes, once per class and on first use."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import betterproto2
from google.protobuf.unknown_fields import UnknownFieldSet

from . import _runtime
from ._classes import full_name
from ._model import Kind, MessageModel, ValueType, is_struct, model_of
from ._schema import Schemas
from ._source import decoder_source, encoder_source
from .errors import CodecError

if TYPE_CHECKING:
    from ._wire import Schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversions:
    """The compiled conversions of one class.

    Attributes:
        model: source of the compiled functions.
        read: converts Google's message to a dataclass instance.
        fill: fills an empty message of Google's from an instance, `depth` levels below the outermost message.
        schema: describes the class to the compiled extension; None if bytes go through Google's class only.
    """

    model: MessageModel
    read: Callable[[Any], Any]
    fill: Callable[..., None]
    schema: Schema | None


_lock = threading.RLock()
_compiled: dict[type, Conversions] = {}
_schemas = Schemas()


def conversions_of(cls: type) -> Conversions:
    """Return the conversions of a dataclass; on first use, compile them and those of all messages inside it.

    Raises:
        CodecError: the class is not generated, or its Google class cannot be found.
    """
    found = _compiled.get(cls)
    if found is None:
        with _lock:
            found = _compiled.get(cls) or _compile(cls)
    return found


@functools.cache
def schema_with_plain(cls: type, name: str) -> Schema | None:
    """Return a schema for the extension in which one field, a Struct, is a plain dict.

    None if bytes of the class go through Google's class only.

    Raises:
        CodecError: the class has no such field.
    """
    model = conversions_of(cls).model
    field = next((each for each in model.fields if each.attribute == name), None)
    if field is None or field.repeated or field.oneof or not is_struct(field.value):
        raise CodecError(f"it has no field {name!r} that is a Struct", message_type=model.name)
    return _schemas.with_plain(model, field)


def _fill_other(message: Any, pb: Any, depth: int, name: str) -> None:
    """Fill a message from an instance whose class differs from the field's: derived, or of another tree."""
    if not isinstance(message, betterproto2.Message) or full_name(message) != name:
        raise _runtime.MisfitError(f"expected a {name}, got {type(message).__name__}")
    conversions_of(type(message)).fill(message, pb, depth)


class _Namespace:
    """The globals of all compiled functions, and the names of classes in them."""

    def __init__(self) -> None:
        self.globals: dict[str, Any] = {
            name: value for name, value in vars(_runtime).items() if not name.startswith("_")
        }
        self.globals |= {
            "UnknownFieldSet": UnknownFieldSet,
            "enc_other": _fill_other,
            "has": _runtime.HAS_FIELD,
            "merge": _runtime.MERGE_FROM_STRING,
            "new": object.__new__,
            "set_in_parent": _runtime.SET_IN_PARENT,
            "which": _runtime.WHICH_ONEOF,
        }
        for kind in (str, bytes, bool, int, float):
            self.globals[f"{kind.__name__}_only"] = frozenset((kind,)).issuperset
        self._suffixes: dict[type, str] = {}
        self._deep: dict[type, bool] = {}

    def suffix(self, cls: type) -> str:
        return self._suffixes.setdefault(cls, f"{len(self._suffixes)}_{cls.__name__}")

    def message(self, name: ValueType) -> str:
        return self.suffix(cast("type", name.cls))

    def enum(self, name: ValueType) -> str:
        cls = cast("type[betterproto2.Enum]", name.cls)
        key = f"E{self.suffix(cls)}"
        if key not in self.globals:
            self.globals[key] = _runtime.EnumTable(cls)
        return key

    def is_deep(self, name: ValueType) -> bool:
        return self.is_deep_class(cast("type", name.cls))

    def is_deep_class(self, cls: type) -> bool:
        """Return whether the class, or a message inside it at any depth, can contain itself."""
        if cls not in self._deep:
            self._deep[cls] = any(inner in reachable(inner, below=True) for inner in reachable(cls))
        return self._deep[cls]


_namespace = _Namespace()


def reachable(cls: type, *, below: bool = False) -> list[type]:
    """Return the generated classes that messages of `cls` can contain at any depth, after `cls` unless `below`."""
    root = model_of(cls).cls
    found: dict[type, None] = {}
    pending = _contained(root) if below else [root]
    while pending:
        current = pending.pop(0)
        if current not in found:
            found[current] = None
            pending += _contained(current)
    return list(found)


def _contained(cls: type) -> list[type]:
    return [cast("type", field.value.cls) for field in model_of(cls).fields if field.value.kind is Kind.MESSAGE]


def _compile(cls: type) -> Conversions:
    # Publish only when all are compiled, since they call each other.
    classes = [inner for inner in reachable(cls) if inner not in _compiled]
    models = {inner: model_of(inner) for inner in classes}
    schemas = _schemas.of(models)
    done = {inner: _compile_one(inner, model, schemas.get(inner)) for inner, model in models.items()}
    if cls not in done and cls not in _compiled:
        # A class derived from a generated one: encode its instances through Google's class.
        base = done.get(model_of(cls).cls) or _compiled[model_of(cls).cls]
        done[cls] = _compile_one(cls, base.model, base.schema)
    _compiled.update(done)
    return _compiled[cls]


def _compile_one(cls: type, model: MessageModel, schema: Schema | None) -> Conversions:
    suffix = _namespace.suffix(cls)
    scope = _namespace.globals
    scope[f"C{suffix}"] = cls
    deep = _namespace.is_deep_class(cls)
    source = f"{decoder_source(model, suffix, _namespace)}\n\n{encoder_source(model, suffix, _namespace, deep=deep)}\n"
    # Safe to exec: the text consists of field names and numbers of generated classes, never of data.
    exec(compile(source, f"<codec of {model.name}>", "exec"), scope)  # noqa: S102
    return Conversions(model=model, read=scope[f"dec_{suffix}"], fill=scope[f"enc_{suffix}"], schema=schema)
