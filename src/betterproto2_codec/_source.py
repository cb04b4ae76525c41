"""Generate the Python source of the two conversions of a message class.

The source is straight-line: one or two statements per field, with types, names and defaults inlined. Its names, such as
`C3` for a dataclass or `enc_3` for a conversion, are in the namespace that `_compile` keeps.
"""

from __future__ import annotations

import keyword
from typing import Protocol

from ._model import FieldModel, Kind, MessageModel, ValueType

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


class Names(Protocol):
    """Returns the names that the source uses for classes."""

    def message(self, name: ValueType) -> str:
        """Return the suffix of a message type: `C{suffix}`, `enc_{suffix}`, `dec_{suffix}`."""
        ...

    def enum(self, name: ValueType) -> str:
        """Return the name of an enum's table of members."""
        ...

    def is_deep(self, name: ValueType) -> bool:
        """Return whether messages of the type can be nested without end, so that depth must be counted."""
        ...


def decoder_source(model: MessageModel, suffix: str, names: Names) -> str:
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


def encoder_source(model: MessageModel, suffix: str, names: Names, *, deep: bool) -> str:
    """Generate `enc_{suffix}(m, pb)`, which fills Google's message; if `deep`, with a third argument `depth`."""
    lines = [f"def enc_{suffix}(m, pb, depth=0):"]
    if deep:
        lines += ["    if depth > MAX_DEPTH:", "        raise MisfitError('too deep')"]
    for field in model.fields:
        lines += _indent(_write_field(field, names))
    for members in _oneofs(model):
        count = " + ".join(f"(m.{field.attribute} is not None)" for field in members)
        lines += [f"    if {count} > 1:", "        raise MisfitError('two members of a oneof')"]
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


def _read_value(value: ValueType, source: str, names: Names) -> str:
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


def _read_field(field: FieldModel, names: Names) -> list[str]:
    source, target = _attribute(field.name), f"o.{field.attribute}"
    item = _read_value(field.value, "x", names)
    if field.key is not None:
        item = _read_value(field.value, "t[k]", names)
        return [f"t = {source}", f"{target} = {{k: {item} for k in t}} if t else {{}}"]
    if field.repeated:
        return [f"{target} = {source}[:]" if item == "x" else f"{target} = [{item} for x in {source}]"]
    value = _read_value(field.value, source, names)
    return [f"{target} = {value} if has(pb, {field.name!r}) else None" if field.presence else f"{target} = {value}"]


def _read_oneof(members: list[FieldModel], names: Names) -> list[str]:
    """Ask once which member is set, instead of once per member."""
    targets = " = ".join(f"o.{field.attribute}" for field in members)
    lines = [f"{targets} = None", f"w = which(pb, {members[0].oneof!r})", "if w is None: pass"]
    for field in members:
        value = _read_value(field.value, _attribute(field.name), names)
        lines.append(f"elif w == {field.name!r}: o.{field.attribute} = {value}")
    return lines


def _write_field(field: FieldModel, names: Names) -> list[str]:
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


def _write_present(field: FieldModel, names: Names) -> list[str]:
    value = field.value
    if value.kind in _CHECKS:
        return [*_checked(value, "v"), _put(field.name)]
    # Only SetInParent makes an empty message differ from an absent one.
    return [f"s = {_attribute(field.name)}", "set_in_parent(s)", *_fill(value, "v", "s", names)]


def _write_list(field: FieldModel, names: Names) -> list[str]:
    lines = ["if type(v) is not list:", "    v = check_list(v)", "if v:"]
    target = _attribute(field.name)
    value = field.value
    if value.kind in _CHECKS:
        return [*lines, *_indent([*_checked_all(value, "v"), f"{target}.extend(v)"])]
    return [
        *lines,
        *_indent([f"add = {target}.add", "for x in v:", *_indent(_fill(value, "x", "add()", names))]),
    ]


def _write_map(field: FieldModel, key: ValueType, names: Names) -> list[str]:
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


def _fill(value: ValueType, source: str, target: str, names: Names, *, levels: int = 1) -> list[str]:
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
