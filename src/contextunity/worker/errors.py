"""Errors of the worker: those that end a command with a message, those of callers and those of what it fetches.

What a call is answered is in `grpc_errors.py`, what a workflow or activity fails with in `temporal/errors.py`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from contextunity.core.errors import ContextUnityError

__all__ = [
    "AuthenticationError",
    "EgressBudgetError",
    "EgressRefusedError",
    "PortTakenError",
    "RegistryError",
    "SettingsError",
    "TemporalUnreachableError",
    "TooManyRedirectsError",
    "UnknownModuleError",
    "WorkerError",
    "namespace_unknown",
]


class WorkerError(ContextUnityError):
    """Base of the errors that a person at the command line can mend. `exit_code` is what the process ends with."""

    exit_code = 1


class SettingsError(WorkerError):
    """Settings are wrong; `faults` names each wrong value with its place.

    `usable` holds the settings without the wrong values, so that what depends on the others can be checked as well.
    """

    exit_code = 2

    def __init__(self, violations: Sequence[str], usable: object = None) -> None:
        self.faults = tuple(violations)
        self.usable = usable
        super().__init__("\n".join(["settings are not usable:", *(f"  - {violation}" for violation in self.faults)]))


class RegistryError(WorkerError):
    """Modules do not load or do not match their contracts; `faults` lists all that was found."""

    exit_code = 2

    def __init__(self, violations: Sequence[str]) -> None:
        self.faults = tuple(violations)
        super().__init__("\n".join(["modules are not usable:", *(f"  - {violation}" for violation in self.faults)]))


class UnknownModuleError(WorkerError):
    """`--modules` names something that was not discovered."""

    exit_code = 2

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        self.unknown, self.known = tuple(unknown), tuple(known)
        names = ", ".join(repr(name) for name in unknown)
        super().__init__(
            f"unknown module{'s' if len(self.unknown) > 1 else ''} {names}; "
            f"known modules: {', '.join(self.known) or 'none'}"
        )


class TemporalUnreachableError(WorkerError):
    """No Temporal server answers at `address`."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(
            f"no Temporal server answers at {address} ({reason}). Set TEMPORAL_ADDRESS to one that runs, or start "
            "everything at once, a Temporal server included, with `python -m contextunity.worker dev`."
        )


def namespace_unknown(namespace: str) -> str:
    """What is wrong, and the way out, where the Temporal server lacks a namespace."""
    return (
        f"the Temporal server has no namespace {namespace!r}. Have its operator set TEMPORAL_NAMESPACE to one that it "
        f"has, or create this one: temporal operator namespace create --namespace {shlex.quote(namespace)}"
    )


class PortTakenError(WorkerError):
    """An address to listen on is in use by another process, or not ours to bind."""

    def __init__(self, address: str, setting: str, reason: str) -> None:
        self.address, self.setting = address, setting
        super().__init__(
            f"cannot listen on {address}: {reason}. Stop what listens there, or choose another port with {setting}."
        )


class AuthenticationError(ContextUnityError):
    """A call does not say who calls, or says it in a way that cannot be believed.

    Attributes:
        reason: a stable word for programs: `TOKEN_MISSING`, `TOKEN_MALFORMED`, `TOKEN_INVALID`, `TOKEN_WRONG_PROJECT`,
            `TOKEN_EXPIRED` or `TOKEN_NOT_YET_VALID`.
    """

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


class EgressRefusedError(ContextUnityError):
    """An address is not fetched from, whatever it would answer. Trying again is of no use.

    Attributes:
        host: the host asked for, as text; empty where there is none.
        address: the address that it leads to, as text; empty where it was refused by its name.
        reason: why, in a few words.
        setting: what would have to be set where this is wanted; empty where no setting opens it.
    """

    def __init__(self, host: str, *, reason: str, address: str = "", setting: str = "") -> None:
        """Say what is refused, and how to have it allowed."""
        self.host, self.address, self.reason, self.setting = host, address, reason, setting
        super().__init__(f"{reason}; {setting}" if setting else reason)


class TooManyRedirectsError(EgressRefusedError):
    """An address leads on and on."""


class EgressBudgetError(ContextUnityError):
    """A tenant has fetched as much as it may in a day. It may again later.

    Attributes:
        tenant: whose budget it is.
        quota: `egress_bytes` or `egress_seconds`.
        limit: how much there may be of it a day.
        frees_in: seconds after which the tenant may fetch again.
    """

    def __init__(self, tenant: str, quota: str, limit: float, frees_in: float) -> None:
        self.tenant, self.quota, self.limit, self.frees_in = tenant, quota, limit, frees_in
        at = datetime.now(UTC) + timedelta(seconds=frees_in)
        super().__init__(
            f"the tenant {tenant!r} has fetched as much as it may in a day: {quota} = {limit:,.0f} of its quotas; it "
            f"may again in {frees_in:,.0f} s, at {at:%Y-%m-%dT%H:%M:%SZ}"
        )
