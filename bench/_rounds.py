"""Times functions against each other: many short samples, each of the functions in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["interleave", "time_interleaved"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_SAMPLE_SECONDS = 0.05
"""How long a sample takes at least: far above what the clock and the scheduler add to it."""


def interleave(rounds: int, subjects: Mapping[_Key, Callable[[], _Value]]) -> dict[_Key, list[_Value]]:
    """Calls each function once a round, every second round in the opposite order, and collects what they give."""
    values: dict[_Key, list[_Value]] = {key: [] for key in subjects}
    for round_number in range(rounds):
        keys = list(subjects)[:: 1 if round_number % 2 == 0 else -1]
        for key in keys:
            values[key].append(subjects[key]())
    return values


def time_interleaved(rounds: int, subjects: Mapping[_Key, Callable[[], object]]) -> dict[_Key, list[float]]:
    """Seconds that a call of each function takes, once a round.

    The garbage collector stays on, since what a function allocates is part of what it costs; what was there before is
    kept out of its way.
    """
    calls = {key: _calls_a_sample(function) for key, function in subjects.items()}
    gc.collect()
    gc.freeze()
    try:
        return interleave(rounds, {key: _sampler(function, calls[key]) for key, function in subjects.items()})
    finally:
        gc.unfreeze()


def _sampler(function: Callable[[], object], calls: int) -> Callable[[], float]:
    def sample() -> float:
        gc.collect()
        repeat = range(calls)
        began = time.perf_counter()
        for _ in repeat:
            function()
        return (time.perf_counter() - began) / calls

    return sample


def _calls_a_sample(function: Callable[[], object]) -> int:
    function()
    calls = 1
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            function()
        took = time.perf_counter() - began
        if took >= _SAMPLE_SECONDS:
            return calls
        calls = max(calls + 1, min(calls * 10, int(calls * _SAMPLE_SECONDS * 1.2 / max(took, 1e-9))))
