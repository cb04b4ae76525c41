"""Quotas of each tenant: at once, per second and per day.

Counts are in this process's memory, and also in Redis if several processes share them. Open tasks and schedules are
counted by the Temporal server, so they survive a restart; rates start full.
"""

from __future__ import annotations

import contextlib
import logging
import time
import tomllib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError
from temporalio.api.workflowservice.v1 import CountWorkflowExecutionsRequest
from temporalio.client import Client
from temporalio.service import RPCError

from .errors import EgressBudgetError, SettingsError, missing_extra
from .file_changes import FileChanges
from .grpc_errors import Reason, ServiceError, from_rpc_error
from .metrics import FETCHED_BYTES_TOTAL, QUOTA_REFUSALS_TOTAL
from .setting_errors import describe_violations
from .settings import Settings, TenantQuotas
from .temporal.search_attributes import TENANT_ATTRIBUTE, quoted

if TYPE_CHECKING:
    from .shared_quotas import SharedCounts

__all__ = [
    "EgressBudgetError",
    "Fetch",
    "OpenTasks",
    "Quotas",
    "Registered",
    "counted_fetch",
    "note",
    "on_budget",
    "open_quotas",
    "over_quota",
]

_LOG = logging.getLogger(__name__)

_LAG = 1.0
"""Seconds for which the server's count may lack a started task."""
_RECOUNT = 0.2
"""Seconds for which a count is cached while a tenant is at its limit."""
_FREE_STARTS, _PACE = 20, 1
"""While other tenants start too, so many starts of a tenant's burst follow each other without a pause, and the others
come at so many times its average rate: a burst of 100 at once would slow down Temporal for everybody."""
_MOST = 10_000
"""Tenants whose rates are remembered; the least recently used are evicted first."""
_DAY = 86_400.0
_SETTLED = 0.5
"""Seconds after which fetched amounts are sent to Redis; until then only this process counts them."""


def note(quota: str, limit: float, tenant: str, method: str, what: str = "over the quota") -> None:
    """Log and count, in the metric, a call over a quota.

    Args:
        quota: name of the quota.
        limit: limit of the quota.
        tenant: tenant of the quota; empty if it is the process's.
        method: called method of the service, or type of an activity.
        what: what happened.
    """
    _LOG.warning("%s: %s %s of %g, tenant %r", method or "a call", what, quota, limit, tenant)
    QUOTA_REFUSALS_TOTAL.add(1, quota=quota, method=method, tenant=tenant)


def over_quota(
    quota: str, limit: float, text: str, tenant: str = "", *, method: str = "", retry_after: float | None = None
) -> ServiceError:
    """Return the error for a call over a quota; log it and count it in the metric.

    Args:
        quota: name of the quota, for programs.
        limit: limit of the quota.
        text: what has reached the limit.
        tenant: tenant of the quota; empty if it is the process's.
        method: called method.
        retry_after: seconds to wait before a retry; None means the reason's own.
    """
    note(quota, limit, tenant, method)
    return ServiceError(
        Reason.QUOTA,
        f"{quota} is at its limit of {limit:g}: {text}; try again later",
        metadata={"quota": quota, "limit": f"{limit:g}"},
        retry_after=retry_after,
    )


class _File(BaseModel):
    """The file of quotas by tenant. A quota missing in a table has the default of all tenants."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tenants: Mapping[str, Mapping[str, float]] = {}


@dataclass(slots=True)
class _Bucket:
    """Remaining starts at a time."""

    left: float
    at: float


def _take(buckets: dict[str, _Bucket], tenant: str, rate: float, burst: float) -> float:
    """Take one start from a tenant's bucket; return the seconds until one is available, 0 if taken."""
    now = time.monotonic()
    bucket = buckets.pop(tenant, None) or _Bucket(burst, now)
    # Remove and insert again, to keep the order of last use.
    buckets[tenant] = bucket
    bucket.left = min(burst, bucket.left + (now - bucket.at) * rate)
    bucket.at = now
    if bucket.left < 1:
        return (1 - bucket.left) / rate
    bucket.left -= 1
    if len(buckets) > _MOST:
        del buckets[next(iter(buckets))]
    return 0.0


@dataclass(slots=True)
class _Day:
    """What a tenant has fetched in its day, which begins with the first fetch.

    Attributes:
        began: start of the day, by the monotonic clock.
        bytes: bytes fetched by this process.
        seconds: seconds spent by this process.
        shared_bytes: bytes fetched by all processes, as last read from Redis.
        shared_seconds: seconds spent by all processes, as last read from Redis.
        untold_bytes: part of `bytes` not yet sent to Redis.
        untold_seconds: part of `seconds` not yet sent to Redis.
        told_at: when amounts were last sent to Redis, by the monotonic clock.
        shared_ends: end of the day that all processes share; None if Redis has not returned one.
    """

    began: float
    bytes: int = 0
    seconds: float = 0.0
    shared_bytes: float = 0.0
    shared_seconds: float = 0.0
    untold_bytes: int = 0
    untold_seconds: float = 0.0
    told_at: float = float("-inf")
    shared_ends: float | None = None


class Quotas:
    """Quotas of tenants, and their use.

    Args:
        defaults: quotas of tenants that are not in the file.
        path: file of quotas by tenant; None without one.
        shared: counts of several processes; None if this process counts alone.

    Raises:
        SettingsError: the file cannot be read, or has an invalid value. Later this is only logged, and the quotas stay
            as they were.
    """

    def __init__(
        self, defaults: TenantQuotas | None = None, path: Path | None = None, shared: SharedCounts | None = None
    ) -> None:
        self._defaults, self._path, self._shared = defaults or TenantQuotas(), path, shared
        self._by_tenant = dict[str, TenantQuotas]()
        self._changes = FileChanges(*([] if path is None else [path]))
        self._starts, self._paces = dict[str, _Bucket](), dict[str, _Bucket]()
        self._no_start_until = dict[str, float]()
        self._days = dict[str, _Day]()
        if path is not None:
            self._read(path)

    @property
    def is_shared(self) -> bool:
        """Whether several processes share counts."""
        return self._shared is not None

    def of(self, tenant: str) -> TenantQuotas:
        """Return the quotas of a tenant."""
        if self._path is not None and self._changes.due():
            try:
                if self._changes.found():
                    self._read(self._path)
            except SettingsError as error:
                _LOG.error("quotas file not reloaded, the old quotas stay: %s", error)
        return self._by_tenant.get(tenant, self._defaults)

    async def take_start(self, tenant: str, method: str = "") -> None:
        """Count a start.

        Raises:
            ServiceError: the tenant is over its rate of starts.
        """
        quotas = self.of(tenant)
        wait: float | None = None
        if self._shared is not None:
            wait = await self._shared.take_rate(tenant, quotas.starts_per_second, quotas.starts_burst)
        if wait is None:
            # Counts are not shared, or Redis does not answer.
            wait = _take(self._starts, tenant, quotas.starts_per_second, quotas.starts_burst)
        if wait > 0:
            if len(self._no_start_until) >= _MOST:
                self._no_start_until.clear()
            self._no_start_until[tenant] = time.monotonic() + wait
            raise self._too_many_starts(tenant, method, wait)

    def start_error(self, tenant: str, method: str) -> ServiceError | None:
        """Return the error of a start that is over the rate, before its unit is read; None if it may not be.

        Nothing is counted: `take_start` does that, and has rejected another start a moment ago.
        """
        until = self._no_start_until.get(tenant)
        if until is None:
            return None
        wait = until - time.monotonic()
        if wait > 0:
            return self._too_many_starts(tenant, method, wait)
        del self._no_start_until[tenant]
        return None

    def _too_many_starts(self, tenant: str, method: str, wait: float) -> ServiceError:
        rate = self.of(tenant).starts_per_second
        return over_quota(
            "starts_per_second", rate, "too many starts per second", tenant, method=method, retry_after=wait
        )

    def pause_after_start(self, tenant: str) -> float:
        """Return the seconds that a tenant's next start waits while other tenants start too; count one start."""
        rate = _PACE * self.of(tenant).starts_per_second
        pause = _take(self._paces, tenant, rate, _FREE_STARTS)
        return min(pause, 1 / rate)

    @contextlib.asynccontextmanager
    async def holding(self, quota: str, limit: int, tenant: str, method: str) -> AsyncGenerator[None]:
        """Hold a tenant's slot in all processes while the context is open; do nothing if counts are not shared.

        Raises:
            ServiceError: all slots are taken.
        """
        if self._shared is None:
            yield
            return
        held = await self._shared.take_one(quota, tenant, limit)
        if held is False:
            raise over_quota(quota, limit, "too many are running in all processes together", tenant, method=method)
        try:
            yield
        finally:
            if held is not None:
                # The call is answered or cancelled by now, and must not wait for Redis.
                self._shared.give_back(held)

    async def spend(
        self, tenant: str, count: int, seconds: float, *, settle: bool = False
    ) -> tuple[str, float, float] | None:
        """Count what was fetched for a tenant; with 0 and 0, only check the budget.

        Args:
            tenant: tenant of the fetch.
            count: received bytes.
            seconds: seconds that it took.
            settle: whether to send the amounts to Redis now, as at the beginning and end of a fetch.

        Returns:
            The exceeded quota, its limit, and the seconds until it is free again; None if within all quotas.
        """
        now, quotas = time.monotonic(), self.of(tenant)
        day = self._days.get(tenant)
        if day is None or now - day.began >= _DAY:
            if day is None and len(self._days) >= _MOST:
                self._days = {key: each for key, each in self._days.items() if now - each.began < _DAY}
            day = self._days[tenant] = _Day(began=now)
        day.bytes += count
        day.seconds += seconds
        day.untold_bytes += count
        day.untold_seconds += seconds
        if self._shared is not None and (settle or now - day.told_at >= _SETTLED):
            await self._tell(self._shared, tenant, day, now)
        fetched = max(day.bytes, day.shared_bytes + day.untold_bytes)
        spent = max(day.seconds, day.shared_seconds + day.untold_seconds)
        ends = day.began + _DAY if day.shared_ends is None else day.shared_ends
        # The check before a fetch is for at least one byte.
        if fetched + (count == 0) > quotas.egress_bytes:
            return "egress_bytes", quotas.egress_bytes, max(1.0, ends - now)
        if spent >= quotas.egress_seconds:
            return "egress_seconds", quotas.egress_seconds, max(1.0, ends - now)
        return None

    async def _tell(self, shared: SharedCounts, tenant: str, day: _Day, now: float) -> None:
        day.told_at = now
        told_bytes, told_seconds = day.untold_bytes, day.untold_seconds
        day.untold_bytes, day.untold_seconds = 0, 0.0
        known = await shared.spend(tenant, told_bytes, told_seconds, _DAY)
        if known is None:
            day.untold_bytes += told_bytes
            day.untold_seconds += told_seconds
            return
        day.shared_bytes, day.shared_seconds, left = known
        day.shared_ends = now + left

    def _read(self, path: Path) -> None:
        try:
            read = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError([f"quotas_file = {str(path)!r}: not a readable TOML file: {error}"]) from None
        except ValidationError as error:
            raise SettingsError(describe_violations(error, _File, {}, f"{path.name}: ")) from None
        by_tenant, violations = dict[str, TenantQuotas](), list[str]()
        for tenant, given in read.tenants.items():
            try:
                by_tenant[tenant] = TenantQuotas.model_validate({**self._defaults.model_dump(), **given})
            except ValidationError as error:
                violations += describe_violations(error, TenantQuotas, {}, f"{path.name}: tenants.{tenant}.")
        if violations:
            raise SettingsError(violations)
        self._by_tenant = by_tenant


@dataclass(slots=True)
class _Budget:
    """The tenant whose quotas fetches count against."""

    quotas: Quotas
    tenant: str
    method: str


_BUDGET: ContextVar[_Budget | None] = ContextVar("egress_budget", default=None)


@contextlib.contextmanager
def on_budget(quotas: Quotas, tenant: str, method: str) -> Generator[None]:
    """Count what `egress.stream` fetches while the context is open against a tenant's budget.

    Args:
        quotas: quotas of tenants.
        tenant: tenant of the fetch.
        method: what fetches, such as the type of an activity.
    """
    token = _BUDGET.set(_Budget(quotas, tenant, method))
    try:
        yield
    finally:
        _BUDGET.reset(token)


@dataclass(slots=True)
class Fetch:
    """A fetch that counts against a budget."""

    _budget: _Budget
    _since: float

    async def count(self, size: int) -> None:
        """Count received bytes, and the time that they took.

        Raises:
            EgressBudgetError: the budget is exceeded.
        """
        budget = self._budget
        FETCHED_BYTES_TOTAL.add(size, activity_type=budget.method, tenant=budget.tenant)
        found = await self.spend(size)
        if found is not None:
            error = EgressBudgetError(budget.tenant, *found)
            note(error.quota, error.limit, error.tenant, budget.method)
            raise error

    async def spend(self, size: int, *, settle: bool = False) -> tuple[str, float, float] | None:
        """Count like `spend`, but return the exceeded quota instead of raising. See `Quotas.spend`."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return await self._budget.quotas.spend(self._budget.tenant, size, seconds, settle=settle)


@contextlib.asynccontextmanager
async def counted_fetch() -> AsyncGenerator[Fetch | None]:
    """Count a fetch while the context is open, if it has a budget.

    Raises:
        EgressBudgetError: the budget is already used up.
    """
    budget = _BUDGET.get()
    if budget is None:
        yield None
        return
    fetch = Fetch(budget, time.monotonic())
    await fetch.spend(0, settle=True)
    await fetch.count(0)
    try:
        yield fetch
    finally:
        # This fetch is done; the next one is rejected.
        await fetch.spend(0, settle=True)


@contextlib.asynccontextmanager
async def open_quotas(settings: Settings) -> AsyncGenerator[Quotas]:
    """Open the quotas of a process, with a connection to Redis if configured.

    Raises:
        SettingsError: the file of quotas is invalid, or Redis is configured and its client is not installed.
    """
    if settings.quotas_redis_url is None:
        yield Quotas(settings.quotas, settings.quotas_file)
        return
    try:
        from .shared_quotas import SharedCounts
    except ModuleNotFoundError as error:
        raise missing_extra(error, ("redis",), "CONTEXTWORKER_QUOTAS_REDIS_URL", "redis") from None
    async with SharedCounts(settings.quotas_redis_url.get_secret_value()) as shared:
        yield Quotas(settings.quotas, settings.quotas_file, shared)


@dataclass(slots=True)
class _Count:
    counted: int = 0
    at: float = float("-inf")
    started: deque[float] = field(default_factory=deque[float])

    def estimate(self) -> int:
        """The server's count of tasks, and recent starts that it may lack."""
        while self.started and self.started[0] < self.at - _LAG:
            self.started.popleft()
        return self.counted + len(self.started)


class OpenTasks:
    """Counts the open tasks of tenants by workflow_type."""

    def __init__(self, client: Client, rpc_timeout: timedelta) -> None:
        self._client, self._rpc_timeout = client, rpc_timeout
        self._counts = dict[tuple[str, str], _Count]()

    async def take(self, tenant: str, workflow_type: str, quota: str, limit: int, method: str = "") -> None:
        """Count a task that is about to be started.

        Raises:
            ServiceError: the tenant is at its limit, or Temporal does not answer.
        """
        count = self._counts.setdefault((tenant, workflow_type), _Count())
        now = time.monotonic()
        if count.at < 0 or (count.estimate() >= limit and now - count.at > _RECOUNT):
            count.counted, count.at = await self._ask(tenant, workflow_type), now
        if count.estimate() >= limit:
            raise over_quota(quota, limit, f"too many tasks of {workflow_type!r} are open", tenant, method=method)
        count.started.append(now)

    async def _ask(self, tenant: str, workflow_type: str) -> int:
        conditions = {TENANT_ATTRIBUTE.name: tenant, "WorkflowType": workflow_type, "ExecutionStatus": "Running"}
        query = " AND ".join(f"{name} = {quoted(value)}" for name, value in conditions.items())
        request = CountWorkflowExecutionsRequest(namespace=self._client.namespace, query=query)
        try:
            answer = await self._client.workflow_service.count_workflow_executions(
                request, retry=True, timeout=self._rpc_timeout
            )
        except RPCError as error:
            raise from_rpc_error(error) from error
        return answer.count


@dataclass(slots=True)
class _Listed:
    names: frozenset[str] = frozenset()
    at: float = float("-inf")
    added: dict[str, float] = field(default_factory=dict[str, float])

    def all(self) -> set[str]:
        """Listed schedules, and recent ones that the list may lack."""
        self.added = {name: at for name, at in self.added.items() if at > self.at - _LAG}
        return {*self.names, *self.added}


class Registered:
    """Counts the schedules of tenants, by their ids on the Temporal server.

    Args:
        ask: lists the schedules of a tenant.
    """

    def __init__(self, ask: Callable[[str], Awaitable[AbstractSet[str]]]) -> None:
        self._ask = ask
        self._tenants = dict[str, _Listed]()

    async def take(
        self,
        tenant: str,
        wanted: AbstractSet[str],
        limit: int,
        *,
        pruned: Callable[[str], bool],
        exists: Callable[[str], Awaitable[bool]],
        method: str = "",
    ) -> None:
        """Count schedules that are about to be registered; existing ones are not counted again.

        Args:
            tenant: tenant of the schedules.
            wanted: ids of the schedules.
            limit: how many the tenant may have.
            pruned: returns whether a schedule that is not wanted is removed.
            exists: returns whether an unlisted schedule exists on the server: the list lags behind.
            method: called method.

        Raises:
            ServiceError: new schedules would exceed the limit.
        """
        listed = self._tenants.pop(tenant, None) or _Listed()
        self._tenants[tenant] = listed
        if len(self._tenants) > _MOST:
            del self._tenants[next(iter(self._tenants))]
        now = time.monotonic()
        for again in (False, True):
            if now - listed.at > (0.0 if again else _LAG):
                listed.names, listed.at = frozenset(await self._ask(tenant)), now
            kept = {name for name in listed.all() if name in wanted or not pruned(name)}
            if len(kept | wanted) <= limit:
                break
        else:
            new = [name for name in sorted(wanted - kept) if not await exists(name)]
            if new and len(kept) + len(new) > limit:
                text = f"{len(kept)} are registered, and {len(new)} would be added; delete some, or prune"
                raise over_quota("schedules", limit, text, tenant, method=method)
        for name in wanted - kept:
            listed.added[name] = now
