"""What the activities tell Temporal of a failure."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from contextunity.modules.harvest.activities import _as_application_error
from contextunity.modules.harvest.errors import FeedNotFoundError, FeedRefusedError, FeedUnreachableError, HarvestError


@pytest.mark.parametrize(
    ("error", "kind", "final", "delay"),
    [
        (FeedUnreachableError("u", status=429, retry_after=7), "FeedUnreachable", False, timedelta(seconds=7)),
        (FeedUnreachableError("u", status=503, retry_after=10**9), "FeedUnreachable", False, timedelta(hours=1)),
        (FeedUnreachableError("u", status=503), "FeedUnreachable", False, None),
        (FeedNotFoundError("u", status=404), "FeedNotFound", True, None),
        (FeedRefusedError("u", reason="r"), "FeedRefused", True, None),
    ],
)
def test_a_failure_has_its_type_and_when_to_try_again(
    error: HarvestError, kind: str, final: bool, delay: timedelta | None
) -> None:
    def fail() -> None:
        with _as_application_error():
            raise error

    with pytest.raises(ApplicationError) as caught:
        ActivityEnvironment().run(fail)
    told = caught.value
    assert (told.type, told.non_retryable, told.next_retry_delay) == (kind, final, delay)
