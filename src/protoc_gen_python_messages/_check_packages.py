"""Files, packages and classes whose names meet in Python, or that no import statement can say."""

from __future__ import annotations

import builtins
import keyword
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf import descriptor_pb2

from ._declarations import Declaration
from ._faults import Fault
from ._modules import is_speakable, module_of
from ._names import class_name, field_name

_Files = Sequence[descriptor_pb2.FileDescriptorProto]
_IMPORTED = frozenset(
    (
        *("AsyncIterable", "AsyncIterator", "Descriptor", "EnumDescriptor", "Iterable", "Iterator", "Self"),
        *("TYPE_CHECKING", "betterproto2", "betterproto2_grpclib", "builtins", "dataclass", "datetime", "dateutil"),
        *("default_message_pool", "grpc", "grpclib", "re", "typing", "warnings"),
    )
)
"""Names that betterproto2's generator imports into every module, at least until it has seen which are used."""

_TIMES = (".google.protobuf.Duration", ".google.protobuf.Timestamp")


def module_faults(targets: _Files) -> Iterator[Fault]:
    """Yields the files whose `_pb2` modules overwrite another's, or that others cannot import."""
    by_module: dict[str, list[str]] = defaultdict(list)
    for file in targets:
        by_module[module_of(file.name)].append(file.name)
    folders = {".".join(parts[:length]) for parts in _packages(targets) for length in range(1, len(parts) + 1)}
    imported = {name for file in targets for name in file.dependency}
    for file in targets:
        module = module_of(file.name)
        if file.syntax == "editions":
            yield _fault(file, 'editions are not supported; write syntax = "proto3"')
        others = [name for name in by_module[module] if name != file.name]
        if others:
            path = module.replace(".", "/")
            yield _fault(file, f"it and {', '.join(others)} become one module, {path}.py; rename one of them")
        if module in folders:
            yield _fault(file, f"its module {module} has the name of a package; rename the file or the package")
        # Modules for their own services import them, too.
        wrong = [part for part in module.split(".") if not is_speakable(part)]
        if wrong and (file.service or file.name in imported):
            yield _fault(file, f"no import statement of Python can say {wrong[0]!r}; rename the file or its folder")
    pool = next((file for file in targets if file.package.partition(".")[0] == "message_pool"), None)
    if pool is not None:
        yield _fault(pool, "a package message_pool hides betterproto2's module of that name; rename the package")


def reference_faults(declarations: Sequence[Declaration]) -> Iterator[Fault]:
    """Yields the fields whose types lie in packages that Python cannot import here under their names."""
    package_of = {f".{declaration.full_name}": declaration.file.package for declaration in declarations}
    for declaration in declarations:
        for index, type_name in declaration.references():
            package = package_of.get(type_name, "")
            here, there = _parts(declaration.file.package), _parts(package)
            word = _unspeakable(here, there)
            if there and there[:-1] == here and there[-1] in _IMPORTED:
                yield declaration.fault(
                    f"package {package} has the name of what its module imports as {there[-1]}; rename the package",
                    (2, index),
                )
            elif word:
                yield declaration.fault(
                    f"no import statement of Python can say {word!r} of package {package}; rename the package",
                    (2, index),
                )


def class_faults(declarations: Sequence[Declaration], packages: set[str]) -> Iterator[Fault]:
    """Yields the messages and enums that get a class name that another has, or that cannot be one.

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
                yield declaration.fault(f"it and {', '.join(others)} become one class, {name}; rename one of them")
            if not is_speakable(name):
                yield declaration.fault(f"it becomes {name!r}, which is no name of a class; rename it")
            elif name == "DeprecationWarning" and "warnings" in used[package]:
                yield declaration.fault("it hides Python's DeprecationWarning from deprecated messages; rename it")
            elif f"{package}.{name}" in packages:
                yield declaration.fault(f"package {package}.{name} hides its class; rename one of them")
    yield from _child_package_faults(used, declarations, packages)


def _child_package_faults(
    used: Mapping[str, set[str]], declarations: Iterable[Declaration], packages: set[str]
) -> Iterator[Fault]:
    """A subpackage, once imported, is an attribute of the package, where a module of that name has been."""
    files = {declaration.file.package: declaration.file for declaration in reversed(list(declarations))}
    for package, names in used.items():
        for name in sorted(names):
            child = f"{package}.{name}"
            if any(other == child or other.startswith(f"{child}.") for other in packages):
                text = f"package {child} hides Python's module {name} from the messages of {package}; rename it"
                yield _fault(files[package], text)


def _modules_used(declaration: Declaration) -> set[str]:
    """Modules that a class needs after its own module has been imported, for warnings and for types."""
    if not isinstance(declaration.proto, descriptor_pb2.DescriptorProto):
        return set()
    fields = declaration.proto.field
    used = set[str]()
    if declaration.proto.options.deprecated or any(field.options.deprecated for field in fields):
        used.add("warnings")
    if any(field_name(field.name) in dir(builtins) for field in fields):
        used.add("builtins")
    if any(type_name in _TIMES for _, type_name in declaration.references()):
        used.add("datetime")
    return used


def _unspeakable(here: Sequence[str], there: Sequence[str]) -> str:
    """The part of a package's name that cannot stand in the relative import that betterproto2 writes; or nothing."""
    shared = 0
    while shared < min(len(here), len(there)) and here[shared] == there[shared]:
        shared += 1
    said = there[shared:] or ([] if len(here) == len(there) else there[-1:])
    return next((part for part in said if keyword.iskeyword(part)), "")


def _packages(files: _Files) -> list[list[str]]:
    return [_parts(file.package) for file in files]


def _parts(package: str) -> list[str]:
    return package.split(".") if package else []


def _fault(file: descriptor_pb2.FileDescriptorProto, text: str) -> Fault:
    return Fault(file=file.name, line=0, text=text)
