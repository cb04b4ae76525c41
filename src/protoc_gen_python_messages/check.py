"""Checks a request before anything is generated: packages, and names that are impossible in Python."""

from __future__ import annotations

import keyword
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from betterproto2_compiler import casing
from google.protobuf import descriptor_pb2

from .errors import Diagnostic, raise_errors
from .imports import Selection
from .request import Declaration, declarations, is_importable_name, module_of

_Files = Sequence[descriptor_pb2.FileDescriptorProto]
_IMPORTED = frozenset(
    (
        *("AsyncIterable", "AsyncIterator", "Descriptor", "EnumDescriptor", "Iterable", "Iterator", "Self"),
        *("TYPE_CHECKING", "betterproto2", "betterproto2_grpclib", "builtins", "dataclass", "datetime", "dateutil"),
        *("default_message_pool", "grpc", "grpclib", "re", "typing", "warnings"),
    )
)
"""Names that betterproto2's generator imports into every module, at least until it knows which are used."""

_TIMES = (".google.protobuf.Duration", ".google.protobuf.Timestamp")


def module_errors(targets: _Files) -> Iterator[Diagnostic]:
    """Yield files whose `_pb2` modules overwrite another, or cannot be imported."""
    by_module: dict[str, list[str]] = defaultdict(list)
    for file in targets:
        by_module[module_of(file.name)].append(file.name)
    folders = {".".join(parts[:length]) for parts in _packages(targets) for length in range(1, len(parts) + 1)}
    imported = {name for file in targets for name in file.dependency}
    for file in targets:
        module = module_of(file.name)
        if file.syntax == "editions":
            yield _error(file, 'editions are not supported; write syntax = "proto3"')
        others = [name for name in by_module[module] if name != file.name]
        if others:
            path = module.replace(".", "/")
            yield _error(file, f"it and {', '.join(others)} become one module, {path}.py; rename one of them")
        if module in folders:
            yield _error(file, f"its module {module} has the name of a package; rename the file or the package")
        # The modules of their services import them too.
        wrong = [part for part in module.split(".") if not is_importable_name(part)]
        if wrong and (file.service or file.name in imported):
            yield _error(file, f"{wrong[0]!r} is not possible in a Python import; rename the file or its folder")
    pool = next((file for file in targets if file.package.partition(".")[0] == "message_pool"), None)
    if pool is not None:
        yield _error(pool, "a package message_pool hides betterproto2's module of that name; rename the package")


def reference_errors(declarations: Sequence[Declaration]) -> Iterator[Diagnostic]:
    """Yield fields whose types are in packages that Python cannot import by their names here."""
    package_of = {f".{declaration.full_name}": declaration.file.package for declaration in declarations}
    for declaration in declarations:
        for index, type_name in declaration.references():
            package = package_of.get(type_name, "")
            here, there = _parts(declaration.file.package), _parts(package)
            word = _unimportable_part(here, there)
            if there and there[:-1] == here and there[-1] in _IMPORTED:
                yield declaration.error(
                    f"package {package} has the name of what its module imports as {there[-1]}; rename the package",
                    (2, index),
                )
            elif word:
                yield declaration.error(
                    f"{word!r} in package {package} is not possible in a Python import; rename the package",
                    (2, index),
                )


def class_errors(declarations: Sequence[Declaration], packages: set[str]) -> Iterator[Diagnostic]:
    """Yield messages and enums with an invalid class name, or the class name of another one.

    Args:
        declarations: the messages and enums of the packages to generate.
        packages: names of all proto packages.
    """
    used: dict[str, set[str]] = defaultdict(set)
    for declaration in declarations:
        used[declaration.file.package] |= _modules_used(declaration)
    named: dict[tuple[str, str], list[Declaration]] = defaultdict(list)
    for declaration in declarations:
        named[declaration.file.package, class_name(declaration.name)].append(declaration)
    for (package, name), same in named.items():
        for declaration in same:
            others = [other.full_name for other in same if other is not declaration]
            if others:
                yield declaration.error(f"it and {', '.join(others)} become one class, {name}; rename one of them")
            if not is_importable_name(name):
                yield declaration.error(f"it becomes {name!r}, which is not a valid class name; rename it")
            elif name == "DeprecationWarning" and "warnings" in used[package]:
                yield declaration.error("it hides Python's DeprecationWarning from deprecated messages; rename it")
            elif f"{package}.{name}" in packages:
                yield declaration.error(f"package {package}.{name} hides its class; rename one of them")
    yield from _child_package_errors(used, declarations, packages)


def _child_package_errors(
    used: Mapping[str, set[str]], declarations: Iterable[Declaration], packages: set[str]
) -> Iterator[Diagnostic]:
    """An imported subpackage is an attribute of the package, and would replace a module with the same name there."""
    files = {declaration.file.package: declaration.file for declaration in reversed(list(declarations))}
    for package, names in used.items():
        for name in sorted(names):
            child = f"{package}.{name}"
            if any(other == child or other.startswith(f"{child}.") for other in packages):
                text = f"package {child} hides Python's module {name} from the messages of {package}; rename it"
                yield _error(files[package], text)


def _modules_used(declaration: Declaration) -> set[str]:
    """Return modules that a class needs after its own module was imported, for warnings and for types."""
    if not isinstance(declaration.proto, descriptor_pb2.DescriptorProto):
        return set()
    fields = declaration.proto.field
    used = set[str]()
    if declaration.proto.options.deprecated or any(field.options.deprecated for field in fields):
        used.add("warnings")
    if any(type_name in _TIMES for _, type_name in declaration.references()):
        used.add("datetime")
    return used


def _unimportable_part(here: Sequence[str], there: Sequence[str]) -> str:
    """Return the part of a package's name that is invalid in betterproto2's relative import; empty for none."""
    shared = 0
    while shared < min(len(here), len(there)) and here[shared] == there[shared]:
        shared += 1
    said = there[shared:] or ([] if len(here) == len(there) else there[-1:])
    return next((part for part in said if keyword.iskeyword(part)), "")


def _packages(files: _Files) -> list[list[str]]:
    return [_parts(file.package) for file in files]


def _parts(package: str) -> list[str]:
    return package.split(".") if package else []


def _error(file: descriptor_pb2.FileDescriptorProto, text: str) -> Diagnostic:
    return Diagnostic(file=file.name, line=0, text=text)


_Field = descriptor_pb2.FieldDescriptorProto
_SPECIAL = re.compile(r"__.*__")
_RESERVED_IN_ENUM = re.compile(r"mro|_[^_]_|_[^_].*[^_]_|__.*")
_SHADOWED_IN_MESSAGE = ("_abc_impl", "_betterproto", "_get_field_default", "_unknown_fields")
_SHADOWED_IN_ENUM = (
    "betterproto_renamed_proto_names_to_value",
    "betterproto_value_to_renamed_proto_names",
    "from_string",
)
_USED_IN_ENUM = ("classmethod",)


def field_errors(message: descriptor_pb2.DescriptorProto, message_name: str) -> Iterator[tuple[int, str]]:
    """Yield the errors of a message's fields: the field's index, and a text that follows its name.

    Args:
        message: its descriptor.
        message_name: name of the message in its package, such as `Outer.Inner`.
    """
    names = [field_name(field.name) for field in message.field]
    private = f"_{class_name(message_name).lstrip('_')}__"
    by_name: dict[str, list[str]] = defaultdict(list)
    for name, field in zip(names, message.field, strict=True):
        by_name[name].append(field.name)
    deprecated = any(field.options.deprecated for field in message.field)
    for index, (name, field) in enumerate(zip(names, message.field, strict=True)):
        others = [other for other in by_name[name] if other != field.name]
        if others:
            yield index, f"and {', '.join(others)} have the same name in Python, {name}; rename one of them"
        if name == "betterproto2" and index + 1 < len(names):
            yield index, "hides the module betterproto2 from the fields after it; rename it, or declare it last"
        if name in _SHADOWED_IN_MESSAGE or _SPECIAL.fullmatch(name):
            yield index, "replaces an attribute that the dataclass needs; rename it"
        if name.startswith(private) and name.removeprefix(private[:-2]) in names:
            yield index, f"is what Python makes of {name.removeprefix(private[:-2])} in this class; rename one of them"
        if name == "is_set" and deprecated:
            yield index, "hides the method that warns of the message's deprecated fields; rename it"
        yield from ((index, reason) for reason in _type_errors(field))


def _type_errors(field: descriptor_pb2.FieldDescriptorProto) -> Iterator[str]:
    if field.type == _Field.TYPE_GROUP:
        yield "is a group, which dataclasses cannot hold; use a message"
    elif field.label == _Field.LABEL_REQUIRED:
        yield 'is required, which dataclasses cannot say; make it optional, or use syntax = "proto3"'


def value_errors(enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[tuple[int, str]]:
    """Yield the errors of an enum's values: the value's index, and a text that follows its name."""
    members = member_names(enum)
    renamed = any(member != value.name for member, value in zip(members, enum.value, strict=True))
    for index, (member, value) in enumerate(zip(members, enum.value, strict=True)):
        becomes = "" if member == value.name else f"becomes {member}, which "
        if _RESERVED_IN_ENUM.fullmatch(member):
            yield index, f"{becomes}is a name that Python's Enum reserves; rename it"
        elif member in _SHADOWED_IN_ENUM:
            yield index, f"{becomes}replaces a method of betterproto2.Enum; rename it"
        elif member in _USED_IN_ENUM and renamed:
            yield index, f"{becomes}hides Python's name from the rest of the enum's class; rename it"


_FIELDS, _VALUES = 2, 2
"""Field numbers of DescriptorProto.field and EnumDescriptorProto.value."""


def check(selection: Selection) -> None:
    """Check the files to generate, and other files of the same packages.

    Raises:
        UsageError: something cannot be generated; the text has all errors.
    """
    files = selection.files
    asked = [file for file in files if file.name in selection.targets]
    packages = {file.package for file in asked}
    every = declarations(file for file in selection.described if not file.name.startswith("google/protobuf/"))
    own = [declaration for declaration in every if declaration.file.package in packages]
    raise_errors(
        (
            *selection.errors,
            *module_errors(asked),
            *reference_errors(every),
            *class_errors(own, {file.package for file in files}),
            *_member_errors(own),
        )
    )


def _member_errors(own: Iterable[Declaration]) -> Iterator[Diagnostic]:
    for declaration in own:
        if isinstance(declaration.proto, descriptor_pb2.EnumDescriptorProto):
            for index, text in value_errors(declaration.proto):
                yield declaration.error(f"value {declaration.proto.value[index].name} {text}", (_VALUES, index))
        else:
            for index, text in field_errors(declaration.proto, declaration.name):
                yield declaration.error(f"field {declaration.proto.field[index].name} {text}", (_FIELDS, index))


def class_name(name: str) -> str:
    """Return the class name of a message or enum; a nested one is `Outer.Inner` here."""
    return casing.pascal_case(name)


def field_name(name: str) -> str:
    """Return the attribute name of a field."""
    return casing.safe_snake_case(name)


def member_names(enum: descriptor_pb2.EnumDescriptorProto) -> list[str]:
    """Return the names of an enum's members, in the order of its values.

    If all values begin with the enum's own name, the prefix is removed.
    """
    names = [value.name for value in enum.value]
    prefix = _prefix(enum.name, names[0]) if names else ""
    if prefix and all(name.startswith(prefix) for name in names):
        names = [name.removeprefix(prefix) for name in names]
    return [casing.sanitize_name(name) for name in names]


def _prefix(enum: str, first: str) -> str:
    """Return the prefix of the first value's name that equals the enum's name except for case and underscores."""
    for length in range(1, len(first) + 1):
        if first[:length].replace("_", "").lower() == enum.replace("_", "").lower():
            return f"{first[:length]}_"
    return ""
