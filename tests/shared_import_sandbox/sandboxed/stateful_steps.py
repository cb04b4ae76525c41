"""Workflows that change what all runs share, in ways that only show when they run; each gives how often it did so."""

from __future__ import annotations

import enum
import sys
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from temporalio import workflow
from temporalio.common import RetryPolicy


class Color(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    left: int = 1


@dataclass
class Settings:
    count: int = 0


class Others(Settings): ...


class Slotted:
    __slots__ = ("count",)


@dataclass(slots=True)
class SlottedSettings:
    count: int = 0


def helper(count: int = 0, *, named: int = 0) -> int:
    return count


def _counter() -> Any:
    count = 0

    def counted() -> int:
        nonlocal count
        count += 1
        return count

    return counted


POLICY = RetryPolicy(initial_interval=timedelta(seconds=1), non_retryable_error_types=["No"])
SETTINGS = Settings()
SLOTTED = SlottedSettings()
TABLE = MappingProxyType({"settings": Settings()})
PAIR = Pair()
backend: object = None
counter = _counter()


class Changes:
    seen = 0

    @classmethod
    def class_attribute(cls) -> int:
        cls.seen += 1
        return cls.seen

    @staticmethod
    def class_attribute_that_is_new() -> int:
        Changes.made = getattr(Changes, "made", 0) + 1  # type: ignore[attr-defined]
        return Changes.made  # type: ignore[attr-defined]

    @staticmethod
    def workflow_class_attribute() -> int:
        Stateful.runs += 1
        return Stateful.runs

    @staticmethod
    def method_of_a_class() -> int:
        before = Changes.__dict__.get("is_odd")
        Changes.is_odd = lambda self: True  # type: ignore[attr-defined]
        return 1 if before is None else 2

    @staticmethod
    def deleted_class_attribute() -> int:
        there = hasattr(Slotted, "count")
        if there:
            del Slotted.count
        return 1 if there else 2

    @staticmethod
    def enum_member() -> int:
        Color.RED.label = getattr(Color.RED, "label", 0) + 1  # type: ignore[attr-defined]
        return Color.RED.label  # type: ignore[attr-defined]

    @staticmethod
    def function_attribute() -> int:
        helper.calls = getattr(helper, "calls", 0) + 1  # type: ignore[attr-defined]
        return helper.calls  # type: ignore[attr-defined]

    @staticmethod
    def function_defaults() -> int:
        found = helper()
        helper.__defaults__ = (found + 1,)
        return helper()

    @staticmethod
    def function_defaults_in_place() -> int:
        defaults: Any = helper.__kwdefaults__
        defaults["named"] += 1
        found: int = defaults["named"]
        return found

    @staticmethod
    def attributes_of_a_constant() -> int:
        SETTINGS.__dict__ = {"count": SETTINGS.count + 1}
        return SETTINGS.count

    @staticmethod
    def class_of_a_constant() -> int:
        before = type(SETTINGS)
        SETTINGS.__class__ = Others
        return 1 if before is Settings else 2

    @staticmethod
    def member_of_an_enum() -> int:
        found = len(Color)
        Color._member_names_.append("GREEN")
        return found

    @staticmethod
    def value_of_an_enum() -> int:
        found = len(Color._value2member_map_)
        Color._value2member_map_[2] = Color.RED
        return found

    @staticmethod
    def module_in_a_name() -> int:
        module: Any = sys.modules[__name__]
        before = module.backend
        module.backend = enum
        return 1 if before is None else 2

    @staticmethod
    def function_code() -> int:
        found = helper(1)
        helper.__code__ = (lambda count=0, *, named=0: count + 1).__code__
        return found

    @staticmethod
    def closure() -> int:
        found: int = counter()
        return found

    @staticmethod
    def field_of_a_constant() -> int:
        POLICY.maximum_attempts += 1
        return POLICY.maximum_attempts

    @staticmethod
    def list_of_a_constant() -> int:
        assert isinstance(POLICY.non_retryable_error_types, list)
        POLICY.non_retryable_error_types.append("More")
        return len(POLICY.non_retryable_error_types) - 1

    @staticmethod
    def dataclass_constant() -> int:
        SETTINGS.count += 1
        return SETTINGS.count

    @staticmethod
    def slotted_constant() -> int:
        SLOTTED.count += 1
        return SLOTTED.count

    @staticmethod
    def value_in_a_view() -> int:
        TABLE["settings"].count += 1
        return TABLE["settings"].count

    @staticmethod
    def module_attribute() -> int:
        module: Any = sys.modules[__name__]
        module.LEFT = getattr(module, "LEFT", 0) + 1
        found: int = module.LEFT
        return found

    @staticmethod
    def module_by_vars() -> int:
        names = vars(sys.modules[__name__])
        names["LEFT"] = names.get("LEFT", 0) + 1
        found: int = names["LEFT"]
        return found

    @staticmethod
    def main_module() -> int:
        module: Any = sys.modules["__main__"]
        module.LEFT = getattr(module, "LEFT", 0) + 1
        found: int = module.LEFT
        return found

    @staticmethod
    def made_module() -> int:
        module: Any = sys.modules.setdefault("made_up", ModuleType("made_up"))
        module.LEFT = getattr(module, "LEFT", 0) + 1
        found: int = module.LEFT
        return found

    @staticmethod
    def annotations() -> int:
        notes = Settings.__annotations__
        notes["more"] = notes.get("more", 0) + 1  # type: ignore[operator]
        return notes["more"]  # type: ignore[return-value]


CHANGES = tuple(name for name in vars(Changes) if not name.startswith("_") and name != "seen")


@workflow.defn(name="Stateful")
class Stateful:
    runs = 0

    def __init__(self) -> None:
        self._change = ""
        self._told = 0
        self._over = False

    @workflow.run
    async def run(self, change: str, waits: bool = False) -> int:
        if waits:
            await workflow.wait_condition(lambda: self._over or self._change != "")
            change = self._change
        if not self._over:
            self._told = getattr(Changes, change)()
            # What was changed has to hold until the end of a run, across workflow tasks.
            await workflow.sleep(timedelta(milliseconds=1))
        return self._told

    @workflow.signal
    def go(self, change: str) -> None:
        self._change = change

    @workflow.signal
    def stop(self) -> None:
        self._over = True

    @workflow.query
    def attribute(self) -> int:
        return Changes.seen


@workflow.defn(name="Leaving")
class Leaving:
    left = 0

    def __init__(self) -> None:
        self._over = False

    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.wait_condition(lambda: self._over)
        finally:
            if not self._over:
                Leaving.left += 1

    @workflow.signal
    def stop(self) -> None:
        self._over = True

    @workflow.query
    def waits(self) -> bool:
        return True


@workflow.defn(name="Steady")
class Steady:
    @workflow.run
    async def run(self, number: int) -> list[int]:
        found = list[int]()
        for _ in range(5):
            await workflow.sleep(timedelta(milliseconds=1))
            found.append(number)
        return found


@workflow.defn(name="Steady")
class Unsteady:
    @workflow.run
    async def run(self, number: int) -> list[int]:
        return [number]
