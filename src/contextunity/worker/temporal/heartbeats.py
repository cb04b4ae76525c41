"""Sends heartbeats for every activity whose contract has a heartbeat timeout, without code in the activity.

The timeout then detects a worker that died, sooner than the timeout of a whole attempt. These heartbeats do not show
that the activity makes progress: `start_to_close_timeout` limits that. With HEARTBEATS_BY_ACTIVITY, the activity sends
them itself, and the timeout detects a hanging one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    ActivityOutboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from python_temporal.contract import ActivityContract, contract_of

__all__ = ["HeartbeatInterceptor"]

_LOG = logging.getLogger(__name__)
_BEATS_PER_TIMEOUT = 4


class HeartbeatInterceptor(Interceptor):
    """Sends heartbeats while an activity with a heartbeat timeout runs, with the details that it last sent."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Send heartbeats around each activity."""
        return _Inbound(next)


class _Inbound(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor) -> None:
        super().__init__(next)
        self._details: tuple[Any, ...] = ()

    def init(self, outbound: ActivityOutboundInterceptor) -> None:
        super().init(_Outbound(outbound, self))

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        timeout = info.heartbeat_timeout
        contract = contract_of(input.fn, None)
        if not timeout or (isinstance(contract, ActivityContract) and contract.heartbeats_by_activity):
            return await super().execute_activity(input)
        # Keep the details of an earlier attempt until this one sends newer ones.
        self._details = tuple(info.heartbeat_details)
        beat = asyncio.create_task(
            self._beat(timeout / _BEATS_PER_TIMEOUT, from_thread=not inspect.iscoroutinefunction(input.fn))
        )
        try:
            return await super().execute_activity(input)
        finally:
            beat.cancel()
            (outcome,) = await asyncio.gather(beat, return_exceptions=True)
            if isinstance(outcome, Exception):
                # The activity's own outcome counts; at worst the server retries it after the heartbeat timeout.
                _LOG.warning("heartbeats of activity %s stopped: %r", info.activity_type, outcome)

    async def _beat(self, interval: timedelta, *, from_thread: bool) -> None:
        while True:
            await asyncio.sleep(interval.total_seconds())
            if from_thread:
                # The SDK makes a synchronous activity's heartbeat wait for the event loop, so it must not run there.
                await asyncio.to_thread(activity.heartbeat, *self._details)
            else:
                activity.heartbeat(*self._details)

    def remember(self, details: tuple[Any, ...]) -> None:
        self._details = details


class _Outbound(ActivityOutboundInterceptor):
    def __init__(self, next: ActivityOutboundInterceptor, inbound: _Inbound) -> None:
        super().__init__(next)
        self._inbound = inbound

    def heartbeat(self, *details: Any) -> None:
        self._inbound.remember(details)
        super().heartbeat(*details)
