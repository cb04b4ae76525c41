"""Decide whether the modules that a sandbox imported can serve all runs: no run must be able to change them.

The inspection runs once, when the worker starts. It finds lists, dicts and objects of unknown kinds in modules and
classes, and functions that assign globals. It also creates the snapshot that detects changes at run time, such as an
assigned class attribute.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import gc
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ._bytecode import code_faults
from ._fixed_values import (
    DESCRIPTORS,
    KNOWN_CODE,
    MADE_BY_LIBRARIES,
    MADE_LATER,
    MADE_LATER_BY_ENUMS,
    MAINTAINED,
    hint,
    is_activity,
    is_fixed,
    is_plain,
)
from ._sdk import StandingSandbox, host_modules, is_proxy, unwrapped
from ._snapshot import MISSING, Snapshot

__all__ = ["Proof", "prove"]

_ENOUGH = 3
"""Number of faults after which the inspection stops: a large library that is not passed through has thousands."""

_IMMUTABLE = 1 << 8
"""Py_TPFLAGS_IMMUTABLETYPE: the interpreter rejects assignments to attributes of the class."""

_TABLES_OF_CLASSES = frozenset({"__dataclass_fields__", "_field_defaults"})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """The result of an inspection.

    Attributes:
        faults: the first reasons why the modules cannot be shared; empty if they can.
        derived: names of classes that are derived from restricted ones, which the SDK does not support.
        snapshot: everything that a run could reach and change.
    """

    faults: tuple[str, ...]
    derived: tuple[str, ...]
    snapshot: Snapshot


def prove(sandbox: StandingSandbox, fixed_types: Iterable[type] = ()) -> Proof:
    """Inspect everything that the modules of a sandbox contain.

    Args:
        sandbox: has the modules imported.
        fixed_types: more classes whose instances no run can change.
    """
    prover = _Prover(sandbox, frozenset(fixed_types))
    prover.look()
    return Proof(faults=tuple(dict.fromkeys(prover.faults)), derived=tuple(prover.derived), snapshot=prover.snapshot)


class _Prover:
    def __init__(self, sandbox: StandingSandbox, fixed_types: frozenset[type]) -> None:
        self._fixed_types = fixed_types
        self.faults = list[str]()
        self.derived = list[str]()
        self.snapshot = Snapshot()
        self._sandbox = sandbox
        self._modules = sandbox.own_modules()
        self._namespaces = {id(vars(module)) for module in self._modules.values()}
        host = {name: module for name, module in list(host_modules().items()) if type(module) is types.ModuleType}
        self._host_namespaces = {id(vars(module)) for module in host.values()} - self._namespaces
        # Values of passed-through modules are shared by all runs in the SDK's own sandbox, too.
        self._host_values = {
            id(value)
            for name, module in host.items()
            if name not in self._modules and (sandbox.passed_through(name) or name in sandbox.modules)
            for value in list(vars(module).values())
        }
        self._seen = dict[int, object]()
        self._left = deque[tuple[str, Any, bool]]()

    def look(self) -> None:
        for name, module in self._modules.items():
            self._namespace(name, vars(module))
        self.snapshot.dictionary("sys.modules", self._sandbox.modules, self._module_counts)
        while self._left and len(self.faults) < _ENOUGH:
            where, value, nested = self._left.popleft()
            fault = self._fault(where, unwrapped(value), nested)
            if fault:
                self.faults.append(f"{where} is {fault}")

    def _counts(self, name: str, was: Any, value: Any) -> bool:
        """Return whether a new value of a module's name, or a new entry of sys.modules, is more than an import's."""
        if name in MADE_LATER:
            return False
        if was is not MISSING:
            return unwrapped(value) is not unwrapped(was)
        return not any(unwrapped(value) is module for module in list(host_modules().values()))

    def _module_counts(self, name: str, was: Any, value: Any) -> bool:
        # importlib ignores passed-through modules, for example when zoneinfo loads tzdata.
        late = was is MISSING and type(value) is types.ModuleType and self._sandbox.passed_through(name)
        return not late and self._counts(name, was, value)

    def _namespace(self, where: str, namespace: dict[str, Any]) -> None:
        self.snapshot.dictionary(where, namespace, self._counts)
        self._names(where, namespace)

    def _names(self, where: str, names: Mapping[str, Any]) -> None:
        for name, value in list(names.items()):
            if name == "__annotations__" and _exactly(value, dict):
                self.snapshot.dictionary(f"{where}.{name}", value)
            elif name == "__all__" and _exactly(value, list):
                self.snapshot.sequence(f"{where}.{name}", value)
            elif name in _TABLES_OF_CLASSES and _exactly(value, dict):
                self.snapshot.dictionary(f"{where}.{name}", value)
                self._all(f"{where}.{name}", *value.values())
            elif name not in MAINTAINED:
                self._all(f"{where}.{name}", value)

    def _all(self, where: str, *values: Any, nested: bool = False) -> None:
        self._left.extend((where, value, nested) for value in values)

    def _fault(self, where: str, value: Any, nested: bool) -> str | None:
        """Return why a value cannot be shared, or None. Values that it refers to are queued."""
        if is_proxy(value):  # Do not read its attributes.
            self.derived.append(where)
            return "a class derived from a restricted one"
        if (
            is_fixed(value)
            or type(value) in self._fixed_types
            or id(value) in self._seen
            or id(value) in self._host_values
        ):
            return None
        self._seen[id(value)] = value
        if isinstance(value, types.ModuleType):
            known = id(vars(value)) in self._namespaces | self._host_namespaces
            return None if known else "a module that was not imported"
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(where, value)
        if self._wraps(where, value) or self._holds(where, value, nested):
            return None
        article = "an" if type(value).__name__[0] in "aeiouAEIOU" else "a"
        return f"{article} {type(value).__name__}, which a run could change{hint(value)}"

    def _wraps(self, where: str, value: Any) -> bool:
        """Inspect wrappers of functions, such as methods and properties; return False for other values."""
        if _is(value, classmethod, staticmethod):
            self._own_names(where, value)
            self._all(where, value.__func__)
        elif _exactly(value, property, types.DynamicClassAttribute, enum.property):
            self._all(where, value.fget, value.fset, value.fdel)
        elif _is(value, functools.cached_property):
            self.snapshot.dictionary(where, value.__dict__)
            self._all(where, type(value), *(each for name, each in value.__dict__.items() if name != "lock"))
        elif _is(value, functools.partial, functools.partialmethod):
            if _is(value, functools.partial):
                self._own_names(where, value)
            else:
                self.snapshot.dictionary(where, value.__dict__)
            self._dictionary(where, value.keywords)
            self._all(where, value.func, value.args)
        elif _is(value, types.MethodType):
            self._all(where, value.__func__, value.__self__)
        elif _is(value, types.BuiltinFunctionType, types.MethodWrapperType):
            self._all(where, value.__self__)
        elif _is(value, dataclasses.Field):
            self._all(where, value.default, value.default_factory, value.metadata)
        else:
            return _is(value, *DESCRIPTORS)
        return True

    def _own_names(self, where: str, value: Any) -> None:
        self.snapshot.dictionary(where, value.__dict__)
        self._all(where, type(value))
        self._names(where, value.__dict__)

    def _holds(self, where: str, value: Any, nested: bool) -> bool:
        """Inspect immutable containers of other values; return False for other values."""
        if not (_exactly(value, types.MappingProxyType, list, dict) or is_plain(value)):
            return False
        if _is(value, tuple, frozenset):
            self._all(where, type(value), *value, *self._attributes(where, value), nested=nested)
        elif _is(value, enum.Enum):
            self._all(where, type(value), *self._attributes(where, value))
        elif _is(value, types.MappingProxyType):
            (behind,) = gc.get_referents(value)
            if not _exactly(behind, dict):
                return False
            self._dictionary(where, behind, nested=nested)
        elif dataclasses.is_dataclass(value):
            self._all(where, type(value), *self._attributes(where, value), nested=True)
        # A list inside a constant such as a RetryPolicy is rarely meant to change; on its own it may be state.
        elif nested and _exactly(value, list):
            self.snapshot.sequence(where, value)
            self._all(where, *value, nested=True)
        elif nested and _exactly(value, dict):
            self._dictionary(where, value, nested=True)
        else:
            return False
        return True

    def _dictionary(self, where: str, value: dict[Any, Any], *, nested: bool = False) -> None:
        self.snapshot.dictionary(where, value)
        self._all(where, *value, *value.values(), nested=nested)

    def _attributes(self, where: str, value: Any) -> list[Any]:
        found = list[Any]()
        own: dict[str, Any] | None = getattr(value, "__dict__", None)
        if own is not None:
            self.snapshot.instance(where, value, own, lambda name, _was, _now: name != MADE_LATER_BY_ENUMS)
            found += own.values()
        slots = [
            name
            for cls in type(value).__mro__
            for name, member in vars(cls).items()
            if isinstance(member, types.MemberDescriptorType)
        ]
        if slots:
            self.snapshot.slots(where, value, slots)
            found += [getattr(value, name) for name in slots if hasattr(value, name)]
        return found

    def _is_hosts(self, value: Any) -> bool:
        """Return whether a class or function is the one that the process's own module has under its name."""
        found: Any = host_modules().get(getattr(value, "__module__", None) or "")
        for name in str(value.__qualname__).split("."):
            found = vars(found).get(name) if isinstance(found, types.ModuleType | type) else None
        return found is value

    def _class(self, cls: type) -> str | None:
        if cls.__flags__ & _IMMUTABLE or self._is_hosts(cls):
            return None
        if MADE_BY_LIBRARIES & vars(cls).keys():
            return "a class in which a library keeps tables (pass its module through to share it)"
        where = f"{cls.__module__}.{cls.__qualname__}"
        self.snapshot.class_(where, cls, lambda name, _was, _now: name not in MADE_LATER)
        if enum.Enum in cls.__mro__:
            self._tables_of_enum(where, cls)
        self._all(where, type(cls), *cls.__bases__)
        self._names(where, dict(self._members(cls)))
        return None

    def _tables_of_enum(self, where: str, cls: type) -> None:
        tables: Mapping[str, Any] = vars(cls)
        self.snapshot.dictionary(f"{where}._member_map_", tables["_member_map_"])
        self.snapshot.sequence(f"{where}._member_names_", tables["_member_names_"])
        if enum.Flag not in cls.__mro__:  # Combinations of flags are created on first use.
            self.snapshot.dictionary(f"{where}._value2member_map_", tables["_value2member_map_"])

    def _members(self, cls: type) -> Iterator[tuple[str, Any]]:
        members: Mapping[str, Any] = vars(cls)
        for name, value in members.items():
            # Skip the enum's internal tables.
            if not (issubclass(cls, enum.Enum) and name[:1] == name[-1:] == "_" and isinstance(value, dict | list)):
                yield name, value
        if issubclass(cls, enum.Enum):
            yield from cls.__members__.items()

    def _function(self, where: str, function: types.FunctionType) -> str | None:
        if self._is_hosts(function):
            return None
        self.snapshot.function(where, function)
        self._all(where, function.__defaults__, *(function.__kwdefaults__ or {}).values(), *vars(function).values())
        if function.__code__ not in KNOWN_CODE:
            self._all(f"the closure of {where}", *(_contents(function.__closure__ or ())))
        if id(function.__globals__) in self._host_namespaces:
            return None
        if id(function.__globals__) not in self._namespaces:
            self._namespaces.add(id(function.__globals__))
            self._namespace(f"the globals of {where}", function.__globals__)
        # Activities do not run in the sandbox.
        faults = iter(()) if is_activity(function) else code_faults(function, self._missing)
        return next((f"a function that {fault}" for fault in faults), None)

    def _missing(self, name: str, names: Sequence[str]) -> str | None:
        """Return the module that `from name import names` would import now, if any; for `code_faults`."""
        modules = self._sandbox.modules
        if self._sandbox.passed_through(name):
            return None
        if name not in modules:
            return name
        module: Any = unwrapped(modules[name])
        found: dict[str, Any] = module.__dict__
        absent = (f"{name}.{each}" for each in names if each not in found and each != "*")
        return next((each for each in absent if each not in modules), None) if "__path__" in found else None


def _contents(cells: tuple[types.CellType, ...]) -> Iterator[Any]:
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # Not assigned yet.


def _is(value: Any, *kinds: type[Any]) -> bool:
    """Call `isinstance`, without narrowing the type of the value for type checkers."""
    return isinstance(value, kinds)


def _exactly(value: Any, *kinds: type[Any]) -> bool:
    """Return whether a value is of exactly one of the types, not of a derived one."""
    return type(value) in kinds
