"""Which modules are shared by all runs, and what is said of those that are not."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError

from tests.shared_import_sandbox.conftest import prepared, sharing_runner

_SHARED = {
    "scalars": "A, B, C, D, E = None, 1, 1.5, 'text', b'bytes'",
    "tuples": "from datetime import timedelta\nA = (1, ('b', frozenset({2})), timedelta(seconds=1))",
    "names": "__all__ = ['Flow']",
    "a sentinel": "MISSING = object()",
    "times": """
        import datetime
        A, B = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc), datetime.date(1, 1, 1)
    """,
    "values of the standard library": """
        import decimal, pathlib, re, uuid, zoneinfo
        A, B, C = decimal.Decimal("1.5"), re.compile("a"), uuid.UUID(int=1)
        D, E = pathlib.Path("/a"), zoneinfo.ZoneInfo("UTC")
    """,
    "a retry policy": """
        from temporalio.common import RetryPolicy
        A = RetryPolicy(maximum_attempts=3, non_retryable_error_types=["Bad"])
    """,
    "a read-only table": "from types import MappingProxyType\nA = MappingProxyType({'a': 1})",
    "enums": """
        import enum
        class A(enum.Enum):
            ONE = "one"
            @property
            def shown(self):
                return self.value
        class B(enum.Flag):
            X = enum.auto()
            Y = enum.auto()
        C = B.X | B.Y
    """,
    "dataclasses": """
        from __future__ import annotations
        from dataclasses import dataclass, field
        @dataclass(frozen=True, kw_only=True, slots=True)
        class A:
            names: list[str] = field(default_factory=list)
            other: A | None = None
        @dataclass
        class B:
            value: int = 1
        C, D = A(names=["x"]), B()
    """,
    "named tuples and typed dicts": """
        import collections
        from typing import NamedTuple, TypedDict
        class A(NamedTuple):
            one: int = 1
        class B(TypedDict, total=False):
            one: int
        C = collections.namedtuple("C", "a b")
        D, E = A(2), C(1, 2)
    """,
    "types": """
        from typing import Any, Generic, Literal, NewType, Protocol, TypeAlias, TypeVar
        T = TypeVar("T")
        Id = NewType("Id", str)
        Word: TypeAlias = Literal["a", "b"]
        Table = dict[str, list[int] | None]
        class A(Protocol):
            def go(self) -> None: ...
        class B(Generic[T]):
            one: T
    """,
    "members of classes": """
        import abc, functools
        class A(abc.ABC):
            __slots__ = ("one",)
            @property
            def p(self): return 1
            @classmethod
            def c(cls): return 1
            @staticmethod
            def s(): return 1
            @abc.abstractmethod
            def m(self): ...
        class B(A):
            @functools.cached_property
            def q(self): return 1
            def m(self): return super().m()
        class Failure(Exception): ...
    """,
    "functions": """
        import functools, operator
        def f(a=1, *, b=(2,)):
            import json
            return json
        def wrapping(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args)
            return wrapper
        @wrapping
        def g(): ...
        h = functools.partial(f, 2, b=(3,))
        first = operator.itemgetter(0)
        upper = str.upper
    """,
    "loggers": """
        import logging
        from temporalio import workflow
        LOG, OTHER = logging.getLogger(__name__), workflow.logger
    """,
    "an activity that does as it likes": """
        from temporalio import activity
        count = 0
        @activity.defn
        def f() -> int:
            import no_such_module_at_all
            global count
            count += 1
            return count
    """,
    "compiled formats and methods with arguments": """
        import functools, struct
        HEADER = struct.Struct("!I")
        class A:
            def f(self, n): return n
            g = functools.partialmethod(f, 2)
    """,
    "a list of a module that is passed through": """
        from temporalio import workflow
        with workflow.unsafe.imports_passed_through():
            from colorsys import __all__ as NAMES
    """,
}

_OWN = {
    "a list": ("A = []", "{0}.A is a list, which a run could change"),
    "a dict": ("A = {}", "{0}.A is a dict, which a run could change"),
    "a set": ("A = {1}", "{0}.A is a set, which a run could change"),
    "a list in a tuple": ("A = ([],)", "{0}.A is a list, which a run could change"),
    "a bytearray": ("A = bytearray()", "{0}.A is a bytearray, which a run could change"),
    "a default": ("def f(a=[]): ...", "{0}.f is a list, which a run could change"),
    "a named default": ("def f(*, a={}): ...", "{0}.f is a dict, which a run could change"),
    "an attribute of a function": ("def f(): ...\nf.calls = []", "{0}.f is a list, which a run could change"),
    "an attribute of a class": ("class A:\n  a = []", "{0}.A.a is a list, which a run could change"),
    "a class in a class": ("class A:\n  class B:\n    a = {}", "{0}.A.B.a is a dict, which a run could change"),
    "a closure": (
        "def make():\n  kept = []\n  return lambda: kept\nf = make()",
        "the closure of {0}.f is a list, which a run could change",
    ),
    "a method of a list": ("keep = [].append", "{0}.keep is a list, which a run could change"),
    "a partial": ("import functools\nf = functools.partial(print, [])", "{0}.f is a list, which a run could change"),
    "a view of a list": ("from types import MappingProxyType as M\nA = M({1: []})", "{0}.A is a list"),
    "a set in a constant": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n  s: set\nB = A({1})",
        "{0}.B is a set, which a run could change",
    ),
    "a cache": (
        "import functools\n@functools.cache\ndef f(): ...",
        "{0}.f is a _lru_cache_wrapper, which a run could change",
    ),
    "a global that is assigned": (
        "n = 0\ndef f():\n  global n\n  n += 1",
        "{0}.f is a function that assigns the global n",
    ),
    "a global assigned in depth": (
        "def f():\n  def g():\n    global n\n    n = 1\n  return g",
        "{0}.f is a function that assigns the global n",
    ),
    "the back door": ("def f():\n  globals()['n'] = 1", "{0}.f is a function that calls globals()"),
    "a method that assigns": (
        "class A:\n  def f(self):\n    global n\n    n = 1",
        "{0}.A.f is a function that assigns the global n",
    ),
    "a local import": (
        "def f():\n  import no_such_module",
        "{0}.f is a function that imports no_such_module while it runs",
    ),
    "a context variable": (
        "import contextvars\nA = contextvars.ContextVar('A')",
        "{0}.A is a ContextVar, which a run could change",
    ),
    "a lock": ("import asyncio\nA = asyncio.Lock()", "{0}.A is a Lock, which a run could change"),
    "random numbers": ("import random\nA = random.Random(1)", "{0}.A is a Random, which a run could change"),
    "an object": ("class A: ...\nB = A()", "{0}.B is an A, which a run could change"),
    "an iterator": ("import itertools\nA = itertools.count()", "{0}.A is a count, which a run could change"),
    "a class made elsewhere": (
        "from dataclasses import make_dataclass\nA = make_dataclass('A', [], namespace={'a': []})",
        "types.A.a is a list, which a run could change",
    ),
    "a class of a metaclass with state": (
        "class M(type):\n  all = []\nclass A(metaclass=M): ...",
        "{0}.M.all is a list, which a run could change",
    ),
    "a model": (
        "from pydantic import BaseModel\nclass A(BaseModel):\n  a: int",
        "{0}.A is a class in which a library keeps tables (pass its module through to share it)",
    ),
    "a dict that is a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A(dict):\n  a: int = 1\nB = A()",
        "{0}.B is an A, which a run could change",
    ),
    "an error that is a dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A(Exception):\n  a: int = 1\nB = A()",
        "{0}.B is an A, which a run could change",
    ),
    "a constant that fills itself": (
        "import functools\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n"
        "  @functools.cached_property\n  def p(self): return 1\nB = A()",
        "{0}.B is an A, which a run could change",
    ),
    "an attribute of a partial": (
        "import functools\nf = functools.partial(print)\nf.kept = []",
        "{0}.f.kept is a list, which a run could change",
    ),
    "an attribute of a static method": (
        "class A:\n  @staticmethod\n  def f(): ...\nvars(A)['f'].kept = []",
        "{0}.A.f.kept is a list, which a run could change",
    ),
    "an attribute of a cached property": (
        "import functools\nclass A:\n  @functools.cached_property\n  def f(self): ...\nA.f.kept = []",
        "{0}.A.f is a list, which a run could change",
    ),
    "a class that says it is of the interpreter": (
        "class A:\n  __module__ = 'builtins'\n  kept = []",
        "builtins.A.kept is a list, which a run could change",
    ),
    "a class derived from a restricted one": (
        "import datetime\nclass A(datetime.datetime): ...",
        "{0}.A is a class derived from a restricted one",
    ),
    "a constant that could be a tuple": (
        "A = []",
        "a list, which a run could change (use a tuple if no run changes it)",
    ),
    "a constant that could be a view": ("A = {}", "(use a types.MappingProxyType if no run changes it)"),
}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.INFO, "shared_import_sandbox")
    return lambda: caplog.text


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in _SHARED.items()])
async def test_it_is_shared(written: Callable[[str], Any], told: Callable[[], str], text: str) -> None:
    module = written(text)
    assert prepared(sharing_runner(), module.Flow).usable, told()
    assert f"workflow module {module.__name__}: imported once, for all runs" in told()


@pytest.mark.parametrize(("text", "reason"), [pytest.param(*each, id=name) for name, each in _OWN.items()])
async def test_it_is_imported_for_each_run(
    written: Callable[[str], Any], told: Callable[[], str], text: str, reason: str
) -> None:
    module = written(text)
    assert not prepared(sharing_runner(), module.Flow).usable
    assert f"workflow module {module.__name__}: imported again for each run, because" in told()
    assert reason.format(module.__name__) in told()


async def test_what_a_module_imports_counts_too(written: Callable[[str], Any], told: Callable[[], str]) -> None:
    helper = written("CACHE = {}")
    module = written(f"import {helper.__name__}")
    assert not prepared(sharing_runner(), module.Flow).usable
    assert f"{helper.__name__}.CACHE is a dict" in told()
    assert prepared(sharing_runner(helper.__name__), module.Flow).usable


@pytest.mark.parametrize(
    "text", ["from . import late", "from .late import X", "from lazy import late", "import lazy.late"]
)
async def test_a_module_of_a_package_that_is_imported_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: Callable[[str], Any], told: Callable[[], str], text: str
) -> None:
    (tmp_path / "lazy").mkdir()
    (tmp_path / "lazy/__init__.py").write_text("")
    (tmp_path / "lazy/late.py").write_text("X = 1")
    (tmp_path / "lazy/helper.py").write_text(f"def f():\n  {text}")
    for name in ("lazy", "lazy.helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    module = written("import lazy.helper")
    assert not prepared(sharing_runner(), module.Flow).usable
    assert "lazy.helper.f is a function that imports lazy.late while it runs" in told()


async def test_a_module_that_looking_fails_at(written: Callable[[str], Any], caplog: pytest.LogCaptureFixture) -> None:
    module = written(
        """
        class Told(type):
            def __call__(cls): ...
            @property
            def __module__(cls): raise LookupError("nobody knows")
        class A(metaclass=Told): ...
        """
    )
    shared = prepared(sharing_runner(), module.Flow)
    assert not shared.usable
    assert "imported again for each run, because inspecting it failed: LookupError('nobody knows')" in caplog.text


async def test_a_module_that_cannot_be_imported_is_refused_as_before(written: Callable[[str], Any]) -> None:
    module = written("import random\nfrom temporalio import workflow\nif workflow.unsafe.in_sandbox(): random.random()")
    with pytest.raises(RestrictedWorkflowAccessError, match=r"Cannot access random\.random"):
        prepared(sharing_runner(), module.Flow)
