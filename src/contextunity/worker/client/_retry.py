"""When a call is made again: after which failures, how long later, and until when."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import grpc

from .errors import WorkerServiceError

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How patiently a client calls again what was UNAVAILABLE.

    The same unit is sent again, so nothing is done twice. Delays double from the first to the longest, each shortened
    at random by up to a half; where the service names a delay, that one is kept at least.

    Attributes:
        attempts: calls in all, at least 1.
        initial_delay: seconds before the second attempt.
        maximum_delay: seconds between attempts at most, unless the service asks for more.
        reconnect_for: seconds for which a watch that broke is taken up again before it fails.
    """

    attempts: int = 6
    initial_delay: float = 0.1
    maximum_delay: float = 5.0
    reconnect_for: float = 120.0

    def delay(self, failures: int, failure: WorkerServiceError) -> float:
        """Seconds to wait after so many failures in a row, the given one being the last."""
        bound = min(self.maximum_delay, self.initial_delay * 2.0 ** min(failures - 1, 30))
        # Chance spreads clients that failed together; nothing secret hangs on it.
        return max(bound * random.uniform(0.5, 1.0), failure.retry_after or 0.0)  # noqa: S311


class Deadline:
    """A moment that all attempts of a call share.

    Args:
        timeout: seconds from now; None for never.
    """

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, never negative; None for no end."""
        return None if self._end is None else max(self._end - time.monotonic(), 0.0)

    def allows(self, delay: float) -> bool:
        """Says whether anything is left after a delay in seconds."""
        remaining = self.remaining()
        return remaining is None or remaining > delay


@dataclass(slots=True)
class Attempts:
    """The attempts at one call."""

    policy: RetryPolicy
    deadline: Deadline
    failures: int = 0
    _told: WorkerServiceError | None = None

    def delay_after(self, failure: WorkerServiceError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            WorkerServiceError: the failure itself, where there is no next attempt.
        """
        self.failures += 1
        if failure.code is grpc.StatusCode.DEADLINE_EXCEEDED and self._told is not None:
            # That the time was over says less than what was told while there was some.
            raise self._told from failure
        self._told = failure
        if not failure.transient or self.failures >= self.policy.attempts:
            raise failure
        delay = self.policy.delay(self.failures, failure)
        if not self.deadline.allows(delay):
            raise failure
        return delay


@dataclass(slots=True)
class Reconnects:
    """The attempts at one stream, counted anew whenever something arrives."""

    policy: RetryPolicy
    deadline: Deadline
    failures: int = 0
    began: bool = False
    since: float = field(default_factory=time.monotonic)

    def arrived(self) -> None:
        """Notes that the stream works."""
        self.failures, self.began = 0, True

    def delay_after(self, failure: WorkerServiceError) -> float:
        """Seconds to wait before the stream is taken up again.

        A stream that never began is given up as early as a call.

        Raises:
            WorkerServiceError: the failure itself, where the stream is given up.
        """
        if self.failures == 0:
            self.since = time.monotonic()
        self.failures += 1
        # A server that is told to stop cancels the streams that are still open.
        lost = failure.transient or (self.began and failure.code is grpc.StatusCode.CANCELLED)
        patient = (
            time.monotonic() - self.since < self.policy.reconnect_for
            if self.began
            else self.failures < self.policy.attempts
        )
        delay = self.policy.delay(self.failures, failure)
        if not lost or not patient or not self.deadline.allows(delay):
            raise failure
        return delay
