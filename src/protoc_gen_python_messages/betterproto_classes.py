"""Generates betterproto2's dataclasses with its own generator, isolated from the project around it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

from .errors import UsageError
from .imports import Selection
from .request import declarations

_GOOGLE = "google/protobuf/__init__.py"

_POOL_NAME = "message_pool.py"
_POOL = '''\
# ruff: noqa
# fmt: off

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any, TypeVar

import betterproto2

_ClassT = TypeVar("_ClassT", bound=type)


class MessagePool(betterproto2.MessagePool):
    """The messages of this tree."""

    def register_message(self, package_name: str, message_name: str, message_type: type[betterproto2.Message]) -> None:
        super().register_message(package_name, message_name, message_type)
        setattr(message_type, "__reduce__", _reduce)


def _reduce(message: betterproto2.Message) -> tuple[object, ...]:
    """What a message is pickled as: its attributes, where betterproto2's bytes would lose nanoseconds and signs."""
    # Types know nothing of what pickle itself makes objects with.
    make: Any = getattr(copyreg, "__newobj__")
    return make, (type(message),), vars(message)


def named(*names: str) -> Callable[[_ClassT], _ClassT]:
    """Gives fields their names back: in the body of a class, Python puts the class's name before two underscores."""

    def rename(cls: _ClassT) -> _ClassT:
        changed = {f"_{cls.__name__.lstrip('_')}{name}": name for name in names}
        cls.__annotations__ = {changed.get(name, name): hint for name, hint in cls.__annotations__.items()}
        for private, name in changed.items():
            setattr(cls, name, vars(cls)[private])
            delattr(cls, private)
        return cls

    return rename


# betterproto2's constructor has no types, and strict checks refuse to call such a one by its name.
_make_pool: Callable[[], MessagePool] = MessagePool
default_message_pool = _make_pool()
'''

_HEADER = """\
# ruff: noqa
# fmt: off
# A field may hide what its class inherits, and private fields get their names back.
# mypy: disable-error-code="assignment, misc"
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false, reportIncompatibleMethodOverride=false
# pyright: reportIncompatibleVariableOverride=false, reportUnusedImport=false
"""
_GOOGLE_HEADER = """\
# ruff: noqa
# fmt: off
# The methods of these classes are betterproto2's own, which are not strict.
# mypy: disable-error-code="import-untyped, misc, no-untyped-def, override, unused-ignore"
# pyright: basic
"""

_CLASS = re.compile(r"^(?P<head>(?:@.*\n)*)(?P<body>class \w+\(.*\):\n(?:(?:    .*)?\n)*)", re.MULTILINE)
_PRIVATE_FIELD = re.compile(r"^    (__\w+): \"", re.MULTILINE)
_NAME = re.compile(r"^    (\w+)(?:: \"| = )", re.MULTILINE)
_HINT = re.compile(r"^(?P<before>    \w+: \"|    def .*? -> )(?P<hint>[^\"\n]*)", re.MULTILINE)
_BUILTIN = re.compile(r"(?<![\w.])(?:builtins\.)?(bool|bytes|dict|float|int|list|str)\b")
_TIME = re.compile(r"(?<![\w.])datetime\.(?=datetime|timedelta)")
_HIDDEN = frozenset(("bool", "builtins", "bytes", "datetime", "dict", "float", "int", "list", "str"))
_IMPORT_OF_ONE = re.compile(r"^from [\w.]+ import (\w+)\n", re.MULTILINE)
_IMPORTED = "\nimport betterproto2\n"
_POOL_IMPORT = "message_pool import default_message_pool\n"


def generate(selection: Selection) -> dict[str, str]:
    """Generate the packages of the targets, and the used parts of others.

    Returns:
        Text by path, relative to the output folder.
    """
    files = selection.described
    if not files:
        return {}
    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=[file.name for file in files],
        proto_file=[_with_presence(file) for file in files],
        parameter="client_generation=none,server_generation=none",
    )
    wanted = {"/".join([*package.split("."), "__init__.py"]).lstrip("/") for package in selection.packages}
    # In an empty folder, because the generator skips each __init__.py that exists in the current one.
    with tempfile.TemporaryDirectory() as folder:
        # Without its own configuration, ruff would use that of a parent folder or of the user.
        (Path(folder) / "ruff.toml").touch()
        done = subprocess.run(
            [sys.executable, "-m", "betterproto2_compiler.plugin.main"],
            input=request.SerializeToString(deterministic=True),
            capture_output=True,
            check=False,
            cwd=folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        )
        if done.returncode:
            raise UsageError(f"betterproto2's generator failed: {_reason(done.stderr, Path(folder))}")
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    texts = {file.name: file.content for file in response.file if _is_wanted(file.name, wanted)}
    private = {field.name for each in declarations(files) for field in _fields(each.proto) if _is_private(field.name)}
    return {name: _finished(name, text, private) for name, text in texts.items()}


def _finished(name: str, text: str, private: set[str]) -> str:
    if name == _POOL_NAME:
        return _POOL
    if not text:
        return text
    if name == _GOOGLE:
        return _GOOGLE_HEADER + text
    return _HEADER + _with_private_names(_with_plain_hints(text), private)


def _with_presence(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Return a file whose `optional` fields are proto3's; betterproto2 treats proto2's as fields without presence."""
    # A file without a syntax is proto2.
    if file.syntax not in ("", "proto2"):
        return file
    copy = descriptor_pb2.FileDescriptorProto()
    copy.CopyFrom(file)
    pending = list(copy.message_type)
    while pending:
        message = pending.pop()
        pending += message.nested_type
        for field in message.field:
            field.proto3_optional = _is_optional(field) and not message.options.map_entry
    return copy


def _is_optional(field: descriptor_pb2.FieldDescriptorProto) -> bool:
    return field.label == field.LABEL_OPTIONAL and not field.HasField("oneof_index")


def _reason(stderr: bytes, folder: Path) -> str:
    left = folder / "invalid-generated-code.py"
    if left.exists():
        try:
            compile(left.read_text(encoding="utf-8"), "", "exec")
        except SyntaxError as error:
            return f"it wrote invalid Python: {(error.text or '').strip()}"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed no message"


def _fields(
    proto: descriptor_pb2.DescriptorProto | descriptor_pb2.EnumDescriptorProto,
) -> Iterable[descriptor_pb2.FieldDescriptorProto]:
    return proto.field if isinstance(proto, descriptor_pb2.DescriptorProto) else ()


def _is_private(name: str) -> bool:
    """Return whether Python mangles the name in the body of a class."""
    return name.startswith("__") and not name.endswith("__")


def _with_private_names(text: str, private: set[str]) -> str:
    """Restore the names of fields such as `__doc__x` in a module's classes.

    Args:
        text: the module.
        private: names of such fields in any message.
    """

    def with_decorator(found: re.Match[str]) -> str:
        names = [name for name in _PRIVATE_FIELD.findall(found["body"]) if name in private]
        decorator = f"@_named({', '.join(map(repr, names))})\n" if names else ""
        return f"{found['head']}{decorator}{found['body']}"

    named = _CLASS.sub(with_decorator, text) if private else text
    imported = _POOL_IMPORT.replace("\n", ", named as _named\n")
    return named if named == text else named.replace(_POOL_IMPORT, imported, 1)


def _with_plain_hints(text: str) -> str:
    """Rename imports and types, so that no field or value shadows a type after it, and no class an import."""
    text = _IMPORT_OF_ONE.sub(lambda found: "" if f"\nclass {found[1]}(" in text else found[0], text)

    def with_hints(found: re.Match[str]) -> str:
        body = found["body"]
        if not _HIDDEN.intersection(_NAME.findall(body)):
            return found[0]
        return found["head"] + _HINT.sub(lambda hint: hint["before"] + _plain(hint["hint"]), body)

    plain = _CLASS.sub(with_hints, text)
    modules = [name for name in ("builtins", "datetime") if f"_{name}." in plain]
    imports = "".join(f"import {name} as _{name}\n" for name in modules)
    return plain.replace(_IMPORTED, f"\n{imports}{_IMPORTED[1:]}", 1)


def _plain(hint: str) -> str:
    return _TIME.sub("_datetime.", _BUILTIN.sub(r"_builtins.\1", hint))


def _is_wanted(name: str, wanted: set[str]) -> bool:
    if name in (_POOL_NAME, "py.typed", _GOOGLE) or name in wanted:
        return True
    folder = name.removesuffix("__init__.py")
    return name.endswith("__init__.py") and any(path.startswith(folder) for path in (*wanted, _GOOGLE))
