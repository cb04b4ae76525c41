"""What each tenant may take at once and a second, kept in this process's memory.

Open tasks are counted by the Temporal server, so they are known after a restart too; rates begin full.
"""

from __future__ import annotations

import logging
import time
import tomllib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from temporalio.api.workflowservice.v1 import CountWorkflowExecutionsRequest
from temporalio.client import Client
from temporalio.service import RPCError

from .errors import SettingsError
from .settings import TenantQuotas, describe_faults
from .status import Reason, ServiceError, from_rpc_error
from .tenancy import TENANT_ATTRIBUTE

__all__ = ["OpenTasks", "Quotas", "over"]

_LOG = logging.getLogger(__name__)

_LOOK = 1.0
"""Seconds after which the file is looked at again: a call to the file system, no more where it has not changed."""
_LAG = 1.0
"""Seconds for which the server's count may leave out a task that was started."""
_RECOUNT = 0.2
"""Seconds for which a count is good while a tenant is at its limit."""
_MOST = 10_000
"""Tenants whose rates are remembered; those that have been full for the longest time go first."""


def over(quota: str, limit: float, text: str, tenant: str = "", *, retry_after: float | None = None) -> ServiceError:
    """The error for a call that is over a quota; the log has a line of it.

    Args:
        quota: its name, for programs.
        limit: how much there may be.
        text: what there is too much of.
        tenant: whose it is; empty where it is the process's.
        retry_after: seconds after which to try again; the reason's own where it is None.
    """
    _LOG.warning("over the quota %s of %g, tenant %r", quota, limit, tenant)
    return ServiceError(
        Reason.QUOTA,
        f"{quota} is at its limit of {limit:g}: {text}; try again in a while",
        metadata={"quota": quota, "limit": f"{limit:g}"},
        retry_after=retry_after,
    )


class _File(BaseModel):
    """The file of quotas by tenant. What a table leaves out is as it is for all."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tenants: Mapping[str, Mapping[str, float]] = {}


@dataclass(slots=True)
class _Bucket:
    """Starts that are left, as of a time."""

    left: float
    at: float


class Quotas:
    """What tenants may take, and the rates that they have taken.

    Args:
        defaults: of tenants that the file does not name.
        path: the file of quotas by tenant; None for none.

    Raises:
        SettingsError: the file cannot be read, or a value in it is wrong; later on that is an error in the log, and
            what was read before goes on.
    """

    def __init__(self, defaults: TenantQuotas | None = None, path: Path | None = None) -> None:
        self._defaults, self._path = defaults or TenantQuotas(), path
        self._by_tenant = dict[str, TenantQuotas]()
        self._stamp: object = None
        self._looked = time.monotonic()
        self._buckets = dict[str, _Bucket]()
        if path is not None:
            self._read(path)

    def of(self, tenant: str) -> TenantQuotas:
        """The quotas of a tenant."""
        if self._path is not None and time.monotonic() - self._looked >= _LOOK:
            self._looked = time.monotonic()
            try:
                self._read(self._path)
            except SettingsError as error:
                _LOG.error("the quotas stay as they were: %s", error)
        return self._by_tenant.get(tenant, self._defaults)

    def take_start(self, tenant: str) -> None:
        """Counts a start.

        Raises:
            ServiceError: the tenant has started as much as it may for now.
        """
        quotas, now = self.of(tenant), time.monotonic()
        bucket = self._buckets.pop(tenant, None) or _Bucket(quotas.starts_burst, now)
        # Taken out and put in again, so that those that were used last stand last.
        self._buckets[tenant] = bucket
        bucket.left = min(quotas.starts_burst, bucket.left + (now - bucket.at) * quotas.starts_per_second)
        bucket.at = now
        if bucket.left < 1:
            text = "as many starts a second"
            wait = (1 - bucket.left) / quotas.starts_per_second
            raise over("starts_per_second", quotas.starts_per_second, text, tenant, retry_after=wait)
        bucket.left -= 1
        if len(self._buckets) > _MOST:
            del self._buckets[next(iter(self._buckets))]

    def _read(self, path: Path) -> None:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            # Whatever comes of it: a file that is wrong is told of once.
            self._stamp = stamp
            read = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError([f"quotas_file = {str(path)!r}: not a TOML file that can be read: {error}"]) from None
        except ValidationError as error:
            raise SettingsError(describe_faults(error, {}, f"{path.name}: ")) from None
        by_tenant, faults = dict[str, TenantQuotas](), list[str]()
        for tenant, given in read.tenants.items():
            try:
                by_tenant[tenant] = TenantQuotas.model_validate({**self._defaults.model_dump(), **given})
            except ValidationError as error:
                faults += describe_faults(error, {}, f"{path.name}: tenants.{tenant}.")
        if faults:
            raise SettingsError(faults)
        self._by_tenant = by_tenant


@dataclass(slots=True)
class _Count:
    counted: int = 0
    at: float = float("-inf")
    started: deque[float] = field(default_factory=deque[float])

    def estimate(self) -> int:
        """Tasks that were counted, and those that the count may have left out."""
        while self.started and self.started[0] < self.at - _LAG:
            self.started.popleft()
        return self.counted + len(self.started)


class OpenTasks:
    """How many tasks of tenants have not ended, by workflow_type."""

    def __init__(self, client: Client, rpc_timeout: timedelta) -> None:
        self._client, self._rpc_timeout = client, rpc_timeout
        self._counts = dict[tuple[str, str], _Count]()

    async def take(self, tenant: str, workflow_type: str, quota: str, limit: int) -> None:
        """Counts a task that is about to be started.

        Raises:
            ServiceError: there are as many as there may be; or Temporal does not answer.
        """
        count = self._counts.setdefault((tenant, workflow_type), _Count())
        now = time.monotonic()
        if count.at < 0 or (count.estimate() >= limit and now - count.at > _RECOUNT):
            count.counted, count.at = await self._ask(tenant, workflow_type), now
        if count.estimate() >= limit:
            raise over(quota, limit, f"as many of {workflow_type!r} have not ended", tenant)
        count.started.append(now)

    async def _ask(self, tenant: str, workflow_type: str) -> int:
        conditions = {TENANT_ATTRIBUTE.name: tenant, "WorkflowType": workflow_type, "ExecutionStatus": "Running"}
        query = " AND ".join(f"{name} = {_quoted(value)}" for name, value in conditions.items())
        request = CountWorkflowExecutionsRequest(namespace=self._client.namespace, query=query)
        try:
            answer = await self._client.workflow_service.count_workflow_executions(
                request, retry=True, timeout=self._rpc_timeout
            )
        except RPCError as error:
            raise from_rpc_error(error) from error
        return answer.count


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
