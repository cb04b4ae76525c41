"""Record the state of shared modules after loading, to find and undo what a run changed in them."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from operator import is_
from typing import Any

__all__ = ["MISSING", "Snapshot"]

MISSING: Any = object()
"""Placeholder for a missing value."""


class _Namespace:
    """Names and the identities of their values."""

    __slots__ = ("drop", "keys", "now", "ours", "put", "values", "where")

    def __init__(
        self,
        where: str,
        now: Mapping[Any, Any],
        put: Callable[[Any, Any], None],
        drop: Callable[[Any], None],
        ours: Callable[[Any, Any, Any], bool] | None,
    ) -> None:
        self.where, self.now, self.put, self.drop, self.ours = where, now, put, drop, ours
        self._remember(dict(now))

    def _remember(self, now: dict[Any, Any]) -> None:
        self.keys, self.values = list(now), list(now.values())

    def restore(self) -> list[str]:
        """Restore changed names and return them; allowed changes become part of the record."""
        before = dict(zip(self.keys, self.values, strict=True))
        now = dict(self.now)  # One atomic copy: changes of other threads after it are found next time.
        kept = dict(now)
        changed = list[str]()
        for key in {**before, **now}:
            was, found = before.get(key, MISSING), now.get(key, MISSING)
            if was is found:
                continue
            if found is not MISSING and self.ours is not None and not self.ours(key, was, found):
                continue
            changed.append(str(key))
            if was is MISSING:
                self.drop(key)
                del kept[key]
            else:
                self.put(key, was)
                kept[key] = was
        self._remember(kept)
        return changed


class _Slots(Mapping[str, Any]):
    """The slots of an object that have a value."""

    def __init__(self, instance: object, names: list[str]) -> None:
        self._instance, self._names = instance, names

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self._instance, name)
        except AttributeError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names if hasattr(self._instance, name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Snapshot:
    """The namespaces of shared modules, and everything that a run can reach from them."""

    def __init__(self) -> None:
        self._namespaces = list[_Namespace]()
        self._functions = list[tuple[str, types.FunctionType, types.CodeType, Any, Any]]()
        self._cells = list[tuple[str, types.CellType, Any]]()
        self._sequences = list[tuple[str, Any, list[Any]]]()
        self._instances = list[tuple[str, Any, type, dict[str, Any]]]()

    def dictionary(
        self, where: str, namespace: dict[Any, Any], ours: Callable[[Any, Any, Any], bool] | None = None
    ) -> None:
        """Watch a dict.

        Args:
            where: its name in error messages.
            namespace: the dict itself.
            ours: takes a name, its first value or MISSING, and its new one; returns whether the change counts. Other
                changes are allowed.
        """
        self._namespaces.append(_Namespace(where, namespace, namespace.__setitem__, namespace.__delitem__, ours))

    def class_(self, where: str, cls: type, ours: Callable[[Any, Any, Any], bool]) -> None:
        def put(name: str, value: Any) -> None:
            type.__setattr__(cls, name, value)  # Bypass the metaclass.

        def drop(name: str) -> None:
            type.__delattr__(cls, name)

        self._namespaces.append(_Namespace(where, cls.__dict__, put, drop, ours))

    def instance(
        self, where: str, instance: object, attributes: dict[str, Any], ours: Callable[[Any, Any, Any], bool]
    ) -> None:
        """Watch an object's class and attributes, given as its `__dict__`."""
        self._instances.append((where, instance, type(instance), attributes))
        self.dictionary(where, attributes, ours)

    def slots(self, where: str, instance: object, names: list[str]) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(instance, name, value)

        def drop(name: str) -> None:
            object.__delattr__(instance, name)

        self._namespaces.append(_Namespace(where, _Slots(instance, names), put, drop, None))

    def function(self, where: str, function: types.FunctionType) -> None:
        remembered = (where, function, function.__code__, function.__defaults__, function.__kwdefaults__)
        self._functions.append(remembered)
        self.dictionary(where, function.__dict__)
        if function.__kwdefaults__:
            self.dictionary(f"{where}.__kwdefaults__", function.__kwdefaults__)
        for cell in function.__closure__ or ():
            self._cells.append((where, cell, _content(cell)))

    def sequence(self, where: str, value: list[Any]) -> None:
        self._sequences.append((where, value, list(value)))

    def unchanged(self) -> bool:
        """Return whether nothing changed. Takes some tens of nanoseconds per name."""
        for each in self._namespaces:
            now, was = each.now, each.values
            if len(now) != len(was):
                return False
            # list() is atomic in the interpreter, so no other thread changes anything meanwhile.
            if was and not (all(map(is_, list(now.values()), was)) and list(now) == each.keys):
                return False
        for _, function, code, defaults, keyword_defaults in self._functions:
            if function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if function.__kwdefaults__ is not keyword_defaults:
                return False
        for _, cell, content in self._cells:
            if _content(cell) is not content:
                return False
        for _, value, items in self._sequences:
            if len(value) != len(items) or not all(map(is_, list(value), items)):
                return False
        for _, instance, cls, attributes in self._instances:
            if type(instance) is not cls or instance.__dict__ is not attributes:
                return False
        return True

    def restore(self) -> list[str]:
        """Restore everything.

        Returns:
            The names that had changed, as `module.Class.attribute`.
        """
        if self.unchanged():
            return []
        changed = [f"{each.where}.{name}" for each in self._namespaces for name in each.restore()]
        for where, function, code, defaults, keyword_defaults in self._functions:
            for name, was in (("__code__", code), ("__defaults__", defaults), ("__kwdefaults__", keyword_defaults)):
                if getattr(function, name) is not was:
                    setattr(function, name, was)
                    changed.append(f"{where}.{name}")
        for where, cell, content in self._cells:
            if _content(cell) is not content:
                _fill(cell, content)
                changed.append(f"a closure variable of {where}")
        for where, value, items in self._sequences:
            if len(value) != len(items) or not all(map(is_, list(value), items)):
                value[:] = items
                changed.append(where)
        for where, instance, cls, attributes in self._instances:
            if type(instance) is not cls or instance.__dict__ is not attributes:
                object.__setattr__(instance, "__class__", cls)
                object.__setattr__(instance, "__dict__", attributes)
                changed.append(where)
        return changed


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING  # Not assigned yet.


def _fill(cell: types.CellType, content: Any) -> None:
    if content is MISSING:
        del cell.cell_contents
    else:
        cell.cell_contents = content
