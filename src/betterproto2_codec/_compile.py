"""Compile the conversions of message classes, once per class and on first use."""

from __future__ import annotations

import functools
import keyword
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import betterproto2
from google.protobuf.unknown_fields import UnknownFieldSet

from . import _runtime
from ._classes import full_name
from ._model import FieldModel, Kind, MessageModel, ValueType, is_struct, model_of
from ._schema import Schemas
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
        raise _runtime.InvalidValueError(f"expected a {name}, got {type(message).__name__}")
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
        """Return the suffix of the names of a class: `C{suffix}`, `enc_{suffix}`, `dec_{suffix}`."""
        return self._suffixes.setdefault(cls, f"{len(self._suffixes)}_{cls.__name__}")

    def message(self, name: ValueType) -> str:
        return self.suffix(cast("type", name.cls))

    def enum(self, name: ValueType) -> str:
        """Return the name of an enum's table of members."""
        cls = cast("type[betterproto2.Enum]", name.cls)
        key = f"E{self.suffix(cls)}"
        if key not in self.globals:
            self.globals[key] = _runtime.EnumTable(cls)
        return key

    def is_deep(self, name: ValueType) -> bool:
        """Return whether messages of the type can be nested without end, so that depth must be counted."""
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
    source = (
        f"{_decoder_source(model, suffix, _namespace)}\n\n{_encoder_source(model, suffix, _namespace, deep=deep)}\n"
    )
    # Safe to exec: the text consists of field names and numbers of generated classes, never of data.
    exec(compile(source, f"<codec of {model.name}>", "exec"), scope)  # noqa: S102
    return Conversions(model=model, read=scope[f"dec_{suffix}"], fill=scope[f"enc_{suffix}"], schema=schema)


# The source of a conversion is straight-line: one or two statements per field, with types, names and defaults inlined.

_CHECKS = {
    Kind.STRING: "check_str",
    Kind.BYTES: "check_bytes",
    Kind.BOOL: "check_bool",
    Kind.INT: "check_int",
    Kind.ENUM: "check_int",
    Kind.DOUBLE: "check_double",
    Kind.FLOAT: "check_float",
}
_TYPES = {
    Kind.STRING: "str",
    Kind.BYTES: "bytes",
    Kind.BOOL: "bool",
    Kind.INT: "int",
    Kind.DOUBLE: "float",
}
_FILLERS = {Kind.TIMESTAMP: "datetime_to_proto", Kind.DURATION: "timedelta_to_proto"}
_READERS = {Kind.TIMESTAMP: "datetime_from_proto", Kind.DURATION: "timedelta_from_proto"}


def _decoder_source(model: MessageModel, suffix: str, names: _Namespace) -> str:
    """Generate `dec_{suffix}(pb)`, which returns a dataclass instance."""
    lines = [f"def dec_{suffix}(pb):", f"    o = new(C{suffix})"]
    oneofs = _oneofs(model)
    in_oneof = {field.number for members in oneofs for field in members}
    for field in model.fields:
        if field.number not in in_oneof:
            lines += _indent(_read_field(field, names))
    for members in oneofs:
        lines += _indent(_read_oneof(members, names))
    lines += ["    o._unknown_fields = unknown_fields(pb) if UnknownFieldSet(pb) else b''", "    return o"]
    return "\n".join(lines)


def _encoder_source(model: MessageModel, suffix: str, names: _Namespace, *, deep: bool) -> str:
    """Generate `enc_{suffix}(m, pb)`, which fills Google's message; if `deep`, with a third argument `depth`."""
    lines = [f"def enc_{suffix}(m, pb, depth=0):"]
    if deep:
        lines += ["    if depth > MAX_DEPTH:", "        raise InvalidValueError('too deep')"]
    for field in model.fields:
        lines += _indent(_write_field(field, names))
    for members in _oneofs(model):
        count = " + ".join(f"(m.{field.attribute} is not None)" for field in members)
        lines += [f"    if {count} > 1:", "        raise InvalidValueError('two members of a oneof')"]
    lines += ["    v = m._unknown_fields", "    if v:", "        merge(pb, v)"]
    return "\n".join(lines)


def _oneofs(model: MessageModel) -> list[list[FieldModel]]:
    groups: dict[str, list[FieldModel]] = {}
    for field in model.fields:
        if field.oneof:
            groups.setdefault(field.oneof, []).append(field)
    return [members for members in groups.values() if len(members) > 1]


def _attribute(name: str) -> str:
    """Return the expression for a field of Google's message; Python's grammar rejects some names after a dot."""
    return f"getattr(pb, {name!r})" if keyword.iskeyword(name) else f"pb.{name}"


def _read_value(value: ValueType, source: str, names: _Namespace) -> str:
    match value.kind:
        case Kind.MESSAGE:
            return f"dec_{names.message(value)}({source})"
        case Kind.ENUM:
            return f"{names.enum(value)}[{source}]"
        case Kind.WRAPPER:
            return f"{source}.value"
        case Kind.TIMESTAMP | Kind.DURATION:
            return f"{_READERS[value.kind]}({source})"
        case _:
            return source


def _read_field(field: FieldModel, names: _Namespace) -> list[str]:
    source, target = _attribute(field.name), f"o.{field.attribute}"
    item = _read_value(field.value, "x", names)
    if field.key is not None:
        item = _read_value(field.value, "t[k]", names)
        return [f"t = {source}", f"{target} = {{k: {item} for k in t}} if t else {{}}"]
    if field.repeated:
        return [f"{target} = {source}[:]" if item == "x" else f"{target} = [{item} for x in {source}]"]
    value = _read_value(field.value, source, names)
    return [f"{target} = {value} if has(pb, {field.name!r}) else None" if field.presence else f"{target} = {value}"]


def _read_oneof(members: list[FieldModel], names: _Namespace) -> list[str]:
    """Ask once which member is set, instead of once per member."""
    targets = " = ".join(f"o.{field.attribute}" for field in members)
    lines = [f"{targets} = None", f"w = which(pb, {members[0].oneof!r})", "if w is None: pass"]
    for field in members:
        value = _read_value(field.value, _attribute(field.name), names)
        lines.append(f"elif w == {field.name!r}: o.{field.attribute} = {value}")
    return lines


def _write_field(field: FieldModel, names: _Namespace) -> list[str]:
    lines = [f"v = m.{field.attribute}"]
    if field.key is not None:
        return [*lines, *_write_map(field, field.key, names)]
    if field.repeated:
        return [*lines, *_write_list(field, names)]
    if field.presence:
        return [*lines, "if v is not None:", *_indent(_write_present(field, names))]
    return [*lines, *_write_implicit(field)]


def _write_implicit(field: FieldModel) -> list[str]:
    """Encode a field without presence: skip its default, but never accept a wrong type as the default."""
    put = _put(field.name)
    match field.value.kind:
        case Kind.STRING:
            return ["if type(v) is not str:", "    v = check_str(v)", "if v:", f"    {put}"]
        case Kind.BYTES:
            return ["if type(v) is not bytes:", "    v = check_bytes(v)", "if v:", f"    {put}"]
        case Kind.BOOL:
            return ["if v is True:", f"    {put}", "elif v is not False:", "    check_bool(v)"]
        case Kind.INT:
            return ["if v != 0:", f"    {put}"]
        case Kind.ENUM:
            return ["if v != 0:", "    v = check_int(v)", f"    {put}"]
        case Kind.DOUBLE:
            # Written even if zero: negative zero is not the default, but compares equal to it.
            return ["if type(v) is not float:", "    v = check_double(v)", put]
        case _:
            return ["v = check_float(v)", put]


def _write_present(field: FieldModel, names: _Namespace) -> list[str]:
    value = field.value
    if value.kind in _CHECKS:
        return [*_checked(value, "v"), _put(field.name)]
    # Only SetInParent makes an empty message differ from an absent one.
    return [f"s = {_attribute(field.name)}", "set_in_parent(s)", *_fill(value, "v", "s", names)]


def _write_list(field: FieldModel, names: _Namespace) -> list[str]:
    lines = ["if type(v) is not list:", "    v = check_list(v)", "if v:"]
    target = _attribute(field.name)
    value = field.value
    if value.kind in _CHECKS:
        return [*lines, *_indent([*_checked_all(value, "v"), f"{target}.extend(v)"])]
    return [
        *lines,
        *_indent([f"add = {target}.add", "for x in v:", *_indent(_fill(value, "x", "add()", names))]),
    ]


def _write_map(field: FieldModel, key: ValueType, names: _Namespace) -> list[str]:
    value = field.value
    body = [f"t = {_attribute(field.name)}"]
    if key.kind is not Kind.INT:
        body += [f"if not {_TYPES[key.kind]}_only(map(type, v)):", f"    for x in v: {_CHECKS[key.kind]}(x)"]
    if value.kind in _CHECKS:
        body += ["for k, x in v.items():", *_indent([*_checked(value, "x"), "t[k] = x"])]
    else:
        # Reading t[k] creates the entry.
        body += ["for k, x in v.items():", *_indent(["s = t[k]", *_fill(value, "x", "s", names, levels=2)])]
    return ["if type(v) is not dict:", "    v = check_dict(v)", "if v:", *_indent(body)]


def _fill(value: ValueType, source: str, target: str, names: _Namespace, *, levels: int = 1) -> list[str]:
    """Return statements that put `source` into the message `target`."""
    match value.kind:
        case Kind.MESSAGE:
            suffix = names.message(value)
            depth = f", depth + {levels}" if names.is_deep(value) else ""
            return [
                f"if type({source}) is C{suffix}:",
                f"    enc_{suffix}({source}, {target}{depth})",
                "else:",
                f"    enc_other({source}, {target}, depth + {levels}, {value.name!r})",
            ]
        case Kind.TIMESTAMP | Kind.DURATION:
            return [f"{_FILLERS[value.kind]}({source}, {target})"]
        case _:
            assert value.inner is not None
            return [f"s = {target}", *_checked(value.inner, source), f"s.value = {source}"]


def _checked(value: ValueType, source: str) -> list[str]:
    expected = _TYPES.get(value.kind)
    check = f"{source} = {_CHECKS[value.kind]}({source})"
    if expected is None:
        return [check]
    return [f"if type({source}) is not {expected}:", f"    {check}"]


def _checked_all(value: ValueType, source: str) -> list[str]:
    """Check the elements of a list, at C speed if all have exactly the expected type."""
    expected = _TYPES.get(value.kind)
    check = f"{source} = [{_CHECKS[value.kind]}(x) for x in {source}]"
    if expected is None:
        return [check]
    return [f"if not {expected}_only(map(type, {source})):", f"    {check}"]


def _put(name: str) -> str:
    if keyword.iskeyword(name):
        return f"setattr(pb, {name!r}, v)"
    return f"pb.{name} = v"


def _indent(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
