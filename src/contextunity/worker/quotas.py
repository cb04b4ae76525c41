"""What each tenant may take at once and a second, kept in this process's memory."""

from __future__ import annotations

import logging

from .status import Reason, ServiceError

__all__ = ["over"]

_LOG = logging.getLogger(__name__)


def over(quota: str, limit: float, text: str, tenant: str = "", *, retry_after: float | None = None) -> ServiceError:
    """The error for a call that is over a quota; the log has a line of it.

    Args:
        quota: its name, for programs.
        limit: how much there may be.
        text: what there is too much of, after `QUOTA is at its limit of LIMIT: `.
        tenant: whose it is; empty where it is the process's.
        retry_after: seconds after which to try again; the reason's own where it is None.
    """
    _LOG.warning("over the quota %s of %g, tenant %r", quota, limit, tenant)
    return ServiceError(
        Reason.QUOTA,
        f"{quota} is at its limit of {limit:g}: {text}",
        metadata={"quota": quota, "limit": f"{limit:g}"},
        retry_after=retry_after,
    )
