"""Places for activities that mostly wait for others, such as feeds and tools: bounded in all, and for each tenant.

Which tenant a task is of is known only once a worker has it, and by then it holds one of the worker's slots. So an
activity that finds no place does not wait there: it gives its slot back, and its workflow asks again later, by a timer
that takes nothing of the worker. It needs nothing of the Temporal server, so it holds on servers without fairness too.
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
"""Type of the ApplicationError of an activity that found no place."""
_SHORTEST_WAIT, _LONGEST_WAIT = 0.25, 10.0

_Value = TypeVar("_Value")


class ConcurrencyLimit:
    """Bounds how many activities of a kind run at once in a worker.

    All is done on one event loop, without a wait in between, so it needs no lock.

    Args:
        what: they do, in the plural, for the error: `fetches`.
        total: of them in the worker.
        limits: of them for one value of a key, by key: `{"tenant": 8}` lets 8 of each tenant run.
    """

    def __init__(self, what: str, total: int, limits: Mapping[str, int]) -> None:
        self._what, self._total, self._limits = what, total, dict(limits)
        self._taken = Counter[tuple[str, str]]()
        self._running = 0

    @contextlib.contextmanager
    def hold(self, **keys: str) -> Generator[None, None, None]:
        """Holds a place while the context is open.

        Args:
            keys: value of each key that is limited, such as `tenant="acme"`.

        Raises:
            ApplicationError: LIMIT_REACHED; none is free, in all or for one of these values.
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
        # Everyday life, and nothing for the log. The workflow asks again, so the retry policy must not.
        return ApplicationError(
            f"all places for {self._what} are taken: {which}; the workflow asks again by itself",
            type=LIMIT_REACHED,
            non_retryable=True,
            category=ApplicationErrorCategory.BENIGN,
        )


async def retry_until_free(call: Callable[[], Awaitable[_Value]], busy: str = LIMIT_REACHED) -> _Value:
    """In a workflow: calls an activity, and where it finds no place again a little later, each time later.

    Args:
        call: calls the activity once.
        busy: type of the ApplicationError by which it says that it found no place.

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
