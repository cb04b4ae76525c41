"""Errors of the worker: those that end a command with a message, those of callers and those of what it fetches.

What a call is answered is in `grpc_errors.py`, what a workflow or activity fails with in `temporal/errors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from contextunity.core.errors import ContextUnityError

__all__ = [
    "AuthenticationError",
    "EgressBudgetError",
    "EgressRefusedError",
    "PortTakenError",
    "RegistryError",
    "SearchAttributesError",
    "SettingsError",
    "TemporalUnreachableError",
    "TooManyRedirectsError",
    "UnknownModuleError",
    "WorkerError",
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
