"""Find the classes of a message: its full name, its betterproto2 dataclass and Google's class."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import threading
from pathlib import Path
from typing import Any, cast

import betterproto2
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message as ProtoMessage

from ._conflicts import import_pb2
from .errors import CodecError

_POOL = "default_message_pool"
_URL = "type.googleapis.com/"
"""Prefix of a type URL, before the full name."""
_GOOGLE = "google.protobuf"
_GOOGLE_MODULES = (
    "any",
    "api",
    "descriptor",
    "duration",
    "empty",
    "field_mask",
    "source_context",
    "struct",
    "timestamp",
    "type",
    "wrappers",
)

# Temporal's sandbox gives workflow code its own sys.modules, which cannot be iterated. Generated packages are passed
# through, so search the process's sys.modules.
_modules = sys.modules
_lock = threading.RLock()
_classes: dict[str, type[betterproto2.Message]] = {}
_registrations: dict[type, tuple[type[betterproto2.Message], str, betterproto2.MessagePool]] = {}
_proto_classes: dict[type, type[ProtoMessage]] = {}
_preferred = ""


def prefer_tree(root: str) -> None:
    """Choose the generated tree that messages come from if several trees define them.

    Args:
        root: package that contains the generated tree, such as `acme.gen`.
    """
    global _preferred
    with _lock:
        _preferred = root
        _classes.clear()


def google_package() -> Any:
    """Return the module of google.protobuf's own messages, of the preferred tree or of another loaded one."""
    return _modules[message_class(f"{_GOOGLE}.Struct").__module__]


def full_name(message: betterproto2.Message | type[betterproto2.Message]) -> str:
    """Return the full proto name of a message or of its class, such as `contextunity.harvest.v1.Product`.

    A class that was derived from a generated one has the name of the generated one.

    Raises:
        CodecError: the class is not a generated betterproto2 dataclass.
    """
    cls = message if isinstance(message, type) else type(message)
    return registration(cls)[1]


def registration(cls: type) -> tuple[type[betterproto2.Message], str, betterproto2.MessagePool]:
    """Return the generated class that `cls` is or derives from, its full name, and the pool of its tree."""
    found = _registrations.get(cls)
    if found is not None:
        return found
    for base in cls.__mro__:
        pool = getattr(sys.modules.get(base.__module__), _POOL, None)
        url = pool.type_to_url.get(base) if isinstance(pool, betterproto2.MessagePool) else None
        if pool is not None and url is not None:
            if base is cls:
                # Cache generated classes only: derived ones can be created and dropped without end.
                _registrations[cls] = base, _name_in_url(url), pool
            return base, _name_in_url(url), pool
    raise CodecError(
        f"{cls.__module__}.{cls.__qualname__} is not a generated betterproto2 message; "
        "its module has no default_message_pool that knows it"
    )


def message_class(full_name: str) -> type[betterproto2.Message]:
    """Return the betterproto2 dataclass of a full proto name.

    Search all loaded generated trees, the preferred one first, and import the module of the name's package if a loaded
    tree has it.

    Raises:
        CodecError: no loaded tree has a message of that name.
    """
    found = _classes.get(full_name)
    if found is None:
        with _lock:
            found = _find_class(full_name)
            _classes[full_name] = found
    return found


def type_url(full_name: str) -> str:
    """Return the type URL of a full proto name, as in an Any."""
    return _URL + full_name


def class_in_pool(pool: betterproto2.MessagePool, full_name: str) -> type[betterproto2.Message] | None:
    """Return the dataclass of a full name in one tree, or None."""
    # betterproto2 registers messages of a file without a package in the second form.
    return pool.url_to_type.get(f"{_URL}{full_name}") or pool.url_to_type.get(f"{_URL}.{full_name}")


def proto_class(cls: type[betterproto2.Message]) -> type[ProtoMessage]:
    """Return Google's class for a dataclass.

    Raises:
        CodecError: no `_pb2` module that is loaded or in the folder of the dataclass has the message.
    """
    found = _proto_classes.get(cls)
    if found is None:
        base, name, _ = registration(cls)
        found = _proto_classes[base] = proto_class_by_name(name, base.__module__)
    return found


def proto_class_by_name(name: str, module: str) -> type[ProtoMessage]:
    """Return Google's class of a full name, importing the `_pb2` modules in the folder of `module`."""
    found = _loaded_proto_class(name)
    if found is None:
        import_pb2_beside(module, google=name.startswith(_GOOGLE + "."))
        found = _loaded_proto_class(name)
    if found is None:
        # The folder of a dataclass follows the proto's package, that of a _pb2 module follows its file. If the two
        # differ, any module of the tree can have it.
        _import_pb2_of_tree(module)
        found = _loaded_proto_class(name)
    if found is None:
        raise CodecError(
            f"it has no Google class: no _pb2 module in the tree of {module} defines it; "
            "generate both with protoc-gen-python_messages",
            message_type=name,
        )
    return found


def import_pb2_beside(module: str, *, google: bool) -> None:
    """Import the `_pb2` modules in the folder of a generated package."""
    if google:
        for stem in _GOOGLE_MODULES:
            importlib.import_module(f"{_GOOGLE}.{stem}_pb2")
    for info in pkgutil.iter_modules(getattr(sys.modules.get(module), "__path__", None) or ()):
        if info.name.endswith("_pb2"):
            _import_pb2(f"{module}.{info.name}")


def import_all_pb2() -> None:
    """Import the `_pb2` modules of every loaded dataclass, so that Google's JSON finds the types inside Any."""
    modules = {cls.__module__ for pool in loaded_pools() for cls in tuple(pool.type_to_url)}
    for module in sorted(modules):
        import_pb2_beside(module, google=False)


def loaded_pools() -> list[betterproto2.MessagePool]:
    """Return the pools of all loaded trees, the preferred one first."""
    return [pool for _, pool in _loaded_trees()]


def _import_pb2(name: str) -> None:
    try:
        import_pb2(name)
    except (ImportError, TypeError) as error:
        raise CodecError(f"{name} cannot be imported: {error}") from error


def _import_pb2_of_tree(module: str) -> None:
    pool = getattr(_modules.get(module), _POOL, None)
    for root, other in _loaded_trees():
        if other is pool:
            for folder in getattr(_modules.get(root), "__path__", ()):
                for path in sorted(Path(folder).rglob("*_pb2.py")):
                    parts = path.relative_to(folder).with_suffix("").parts
                    _import_pb2(".".join((root, *parts)))


def _loaded_proto_class(name: str) -> type[ProtoMessage] | None:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        return None
    return message_factory.GetMessageClass(descriptor)


def _find_class(name: str) -> type[betterproto2.Message]:
    trees = _loaded_trees()
    for _, pool in trees:
        found = class_in_pool(pool, name)
        if found is not None:
            return found
    for root, pool in trees:
        _import_package_of(name, root)
        found = class_in_pool(pool, name)
        if found is not None:
            return found
    raise CodecError(f"no loaded tree has a message {name!r}; import the package it is generated in")


def _import_package_of(name: str, root: str) -> None:
    """Import the deepest existing package of `root` along a dotted name."""
    module = root
    for part in name.split(".")[:-1]:
        parent = _modules.get(module)
        names = {info.name for info in pkgutil.iter_modules(getattr(parent, "__path__", None) or ())}
        if part not in names:
            return
        module = f"{module}.{part}" if module else part
        importlib.import_module(module)


def _loaded_trees() -> list[tuple[str, betterproto2.MessagePool]]:
    trees: list[tuple[str, betterproto2.MessagePool]] = []
    for name, module in tuple(_modules.items()):
        if name.rpartition(".")[2] != "message_pool":
            continue
        pool = cast("Any", getattr(module, _POOL, None))
        if isinstance(pool, betterproto2.MessagePool):
            trees.append((name.rpartition(".")[0], pool))
    return sorted(trees, key=lambda tree: tree[0] != _preferred)


def _name_in_url(url: str) -> str:
    return url.rpartition("/")[2].removeprefix(".")
