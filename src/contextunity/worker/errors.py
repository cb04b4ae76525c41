"""Errors of the worker: errors that end a command with a message, errors of callers, and errors of fetches.

`grpc_errors.py` has the errors of calls, `temporal/errors.py` those of workflows and activities.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from contextunity.core.errors import ContextUnityError

__all__ = [
    "AuthenticationError",
    "EgressBudgetError",
    "EgressRefusedError",
    "KeyPendingError",
    "PortTakenError",
    "RegistryError",
    "SearchAttributesError",
    "SettingsError",
    "TemporalUnreachableError",
    "TooManyRedirectsError",
    "UnknownModuleError",
    "WorkerError",
    "missing_extra",
    "namespace_unknown",
]


class WorkerError(ContextUnityError):
    """Base of the errors that a person at the command line can fix. `exit_code` is the exit code of the process."""

    exit_code = 1


class SettingsError(WorkerError):
    """Settings are invalid; `faults` has each invalid value with its place.

    `usable` has the settings without the invalid values, so that what depends on the others can be checked too.
    """

    exit_code = 2

    def __init__(self, violations: Sequence[str], usable: object = None) -> None:
        self.faults = tuple(violations)
        self.usable = usable
        super().__init__("\n".join(["invalid settings:", *(f"  - {violation}" for violation in self.faults)]))


def missing_extra(error: ModuleNotFoundError, packages: Collection[str], setting: str, extra: str) -> SettingsError:
    """Return the error for a setting that needs an optional package, which is not installed.

    Args:
        error: the failed import; raised again if it is of another package.
        packages: top-level names of the optional packages.
        setting: the setting that needs it.
        extra: extra of contextworker that installs it.
    """
    if (error.name or "").partition(".")[0] not in packages:
        raise error
    return SettingsError([f"{setting}: its package is missing; run pip install 'contextworker[{extra}]'"])


class RegistryError(WorkerError):
    """Modules do not load or do not match their contracts; `faults` has all errors."""

    exit_code = 2

    def __init__(self, violations: Sequence[str]) -> None:
        self.faults = tuple(violations)
        super().__init__("\n".join(["invalid modules:", *(f"  - {violation}" for violation in self.faults)]))


class UnknownModuleError(WorkerError):
    """`--modules` names an unknown module."""

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
            f"no Temporal server answers at {address} ({reason}). Set TEMPORAL_ADDRESS to a running server, or start "
            "everything at once, including a Temporal server, with `python -m contextunity.worker dev`."
        )


class SearchAttributesError(WorkerError):
    """The namespace lacks search attributes that tasks are started with, and we may not register them.

    Attributes:
        missing: type, and what sets it, by name of each that is not there.
        other_types: type, what sets it, and the type that the server has, by name of each that is there as another.
    """

    def __init__(
        self,
        namespace: str,
        missing: Mapping[str, tuple[str, str]],
        other_types: Mapping[str, tuple[str, str, str]],
        reason: str,
    ) -> None:
        self.missing, self.other_types = dict(missing), dict(other_types)
        lines = list[str]()
        if missing or not other_types:
            lines.append(
                f"search attributes of the namespace {namespace!r} cannot be {'registered' if missing else 'read'}: "
                f"{reason}"
            )
        lines += [f"  - {name} of type {kind}, which {who} sets" for name, (kind, who) in self.missing.items()]
        if missing:
            flags = " ".join(f"--name {name} --type {kind}" for name, (kind, _) in self.missing.items())
            lines.append(
                f"Have an operator run: temporal operator search-attribute create --namespace {namespace} {flags}"
            )
        lines += [
            f"search attribute {name} is of type {there} in the namespace {namespace!r}, and {who} sets it as {kind}; "
            "rename it in the contract, or have an operator remove it: temporal operator search-attribute remove "
            f"--namespace {namespace} --name {name}"
            for name, (kind, who, there) in self.other_types.items()
        ]
        super().__init__("\n".join(lines))


def namespace_unknown(namespace: str) -> str:
    """What is wrong, and the way out, where the Temporal server lacks a namespace."""
    return (
        f"the Temporal server has no namespace {namespace!r}. Have its operator set TEMPORAL_NAMESPACE to one that it "
        f"has, or create this one: temporal operator namespace create --namespace {shlex.quote(namespace)}"
    )


class PortTakenError(WorkerError):
    """An address to listen on is used by another process, or cannot be bound."""

    def __init__(self, address: str, setting: str, reason: str) -> None:
        self.address, self.setting = address, setting
        super().__init__(
            f"cannot listen on {address}: {reason}. Stop what listens there, or choose another port with {setting}."
        )


class AuthenticationError(ContextUnityError):
    """A call has no token, or an invalid one, or one that cannot be checked now.

    Attributes:
        reason: a stable word for programs, of the table in docs/security.md, such as `TOKEN_MISSING`.
        is_unchecked: whether the token may be valid, but the service cannot check it now.
    """

    def __init__(self, reason: str, text: str, *, is_unchecked: bool = False) -> None:
        self.reason, self.is_unchecked = reason, is_unchecked
        super().__init__(text)


class KeyPendingError(AuthenticationError):
    """No key verifies a token, and the issuer's keys are being fetched anew.

    Attributes:
        fetched: is set once they are there, or could not be fetched; then the token is to be verified again.
    """

    def __init__(self, fetched: asyncio.Event) -> None:
        self.fetched = fetched
        super().__init__("TOKEN_INVALID", "no key verifies the token")


class EgressRefusedError(ContextUnityError):
    """A URL must not be fetched. A retry does not help.

    Attributes:
        host: requested host; empty if there is none.
        address: address that it resolves to; empty if it was rejected by its name.
        reason: reason, in a few words.
        setting: setting that would allow it; empty if there is none.
    """

    def __init__(self, host: str, *, reason: str, address: str = "", setting: str = "") -> None:
        """Initialize with what is rejected, and how to allow it."""
        self.host, self.address, self.reason, self.setting = host, address, reason, setting
        super().__init__(f"{reason}; {setting}" if setting else reason)


class TooManyRedirectsError(EgressRefusedError):
    """A URL redirects too often."""


class EgressBudgetError(ContextUnityError):
    """A tenant has used its daily fetch budget. It may fetch again later.

    Attributes:
        tenant: tenant of the budget.
        quota: `egress_bytes` or `egress_seconds`.
        limit: limit of the quota per day.
        frees_in: seconds until the tenant may fetch again.
    """

    def __init__(self, tenant: str, quota: str, limit: float, frees_in: float) -> None:
        self.tenant, self.quota, self.limit, self.frees_in = tenant, quota, limit, frees_in
        at = datetime.now(UTC) + timedelta(seconds=frees_in)
        super().__init__(
            f"the tenant {tenant!r} has used its daily budget {quota} = {limit:,.0f}; it may fetch again in "
            f"{frees_in:,.0f} s, at {at:%Y-%m-%dT%H:%M:%SZ}"
        )
