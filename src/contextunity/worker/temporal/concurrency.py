"""Limits for activities that mostly wait, such as fetches and tools: in total, and per tenant.

A worker only knows the tenant of a task when the task already occupies a slot. So an activity without a free place does
not wait there: it frees its slot, and its workflow retries later with a timer, which costs the worker nothing. This
needs no feature of the Temporal server, so it also works on servers without fairness.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Mapping
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, ApplicationErrorCategory

__all__ = ["LIMIT_REACHED", "ConcurrencyLimit", "retry_until_free"]

LIMIT_REACHED = "PlacesTaken"
"""Type of the ApplicationError of an activity without a free place."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.25, 10.0

_Value = TypeVar("_Value")


class ConcurrencyLimit:
    """Limits how many activities of a kind run at once in a worker.

    It is used on one event loop, without awaiting in between, so it needs no lock.

    Args:
        what: the activities in the plural, for the error: `fetches`.
        total: limit of the worker.
        limits: limits per value of a key, by key: `{"tenant": 8}` allows 8 per tenant.
    """

    def __init__(self, what: str, total: int, limits: Mapping[str, int]) -> None:
        self._what, self._total, self._limits = what, total, dict(limits)
        self._taken = Counter[tuple[str, str]]()
        self._running = 0

    @contextlib.contextmanager
    def hold(self, **keys: str) -> Generator[None, None, None]:
        """Hold a place while the context is open.

        Args:
            keys: value of each limited key, such as `tenant="acme"`.

        Raises:
            ApplicationError: LIMIT_REACHED; no place is free, in total or for one of these values.
        """
        held = [(key, keys[key]) for key in self._limits]
        if self._running >= self._total:
            raise self._error(f"{self._total} in this worker")
        for key, value in held:
            if self._taken[key, value] >= self._limits[key]:
                raise self._error(f"{self._limits[key]} for the {key} {value!r}")
        self._running += 1
        self._taken.update(held)
        try:
            yield
        finally:
            self._running -= 1
            self._taken.subtract(held)
            for each in held:
                if not self._taken[each]:
                    del self._taken[each]

    def _error(self, which: str) -> ApplicationError:
        # This is normal, so it is not logged. The workflow retries, so the retry policy must not.
        return ApplicationError(
            f"all places for {self._what} are taken: {which}; the workflow retries by itself",
            type=LIMIT_REACHED,
            non_retryable=True,
            category=ApplicationErrorCategory.BENIGN,
        )


async def retry_until_free(call: Callable[[], Awaitable[_Value]], busy: str = LIMIT_REACHED) -> _Value:
    """Call an activity from a workflow, and retry with growing delays while there is no free place.

    Args:
        call: calls the activity once.
        busy: type of the ApplicationError if there is no free place.

    Raises:
        ActivityError: it failed for another reason.
    """
    wait = _SHORTEST_WAIT
    while True:
        try:
            return await call()
        except ActivityError as error:
            if not (isinstance(error.cause, ApplicationError) and error.cause.type == busy):
                raise
        await workflow.sleep(timedelta(seconds=wait))
        wait = min(2 * wait, _LONGEST_WAIT)
