"""Every error of ours can be pickled and copied: they cross processes, and libraries copy them."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import contextunity
from contextunity.core import CodecError
from contextunity.worker.client import FieldViolation, WorkerServiceError

_SRC = Path(__file__).parents[1] / "src"


def _modules() -> Iterator[str]:
    paths = [str(_SRC), *contextunity.__path__]
    prefixes = ("", "contextunity.")
    for path, prefix in zip((paths[0], next(each for each in paths[1:] if "src" in each)), prefixes, strict=True):
        for found in pkgutil.walk_packages([path], prefix):
            if not found.name.endswith("__main__") and not found.name.startswith("contextunity.gen"):
                yield found.name


def _errors() -> list[type[BaseException]]:
    found = set[type[BaseException]]()
    for name in _modules():
        module = importlib.import_module(name)
        found |= {
            each
            for each in vars(module).values()
            if inspect.isclass(each) and issubclass(each, BaseException) and each.__module__ == name
        }
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


@pytest.mark.parametrize("kind", _errors(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_errors_are_pickled_and_copied(kind: type[BaseException]) -> None:
    error = kind.__new__(kind)
    error.args = ("what is wrong",)
    error.__dict__.update(detail=("a", 1))
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert (again.args, again.__dict__) == (error.args, error.__dict__)


def test_what_an_error_says_survives() -> None:
    error = WorkerServiceError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "no",
        reason="PAYLOAD_INVALID",
        violations=[FieldViolation(field="payload.x", description="is odd")],
        retry_after=1.5,
    )
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.violations, again.retry_after) == (str(error), error.violations, 1.5)
    misfit = pickle.loads(pickle.dumps(CodecError("is odd", path="a.b", message_type="x.Y")))
    assert (str(misfit), misfit.path, misfit.violations[0].reason) == ("x.Y: a.b: is odd", "a.b", "is odd")
