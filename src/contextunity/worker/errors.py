"""Errors of the worker that end a command with a message instead of a traceback."""

from __future__ import annotations

from collections.abc import Sequence

from contextunity.core.errors import ContextUnityError

__all__ = [
    "PortTakenError",
    "RegistryError",
    "SettingsError",
    "TemporalUnreachableError",
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


class PortTakenError(WorkerError):
    """An address to listen on is in use by another process, or not ours to bind."""

    def __init__(self, address: str, setting: str, reason: str) -> None:
        self.address, self.setting = address, setting
        super().__init__(
            f"cannot listen on {address}: {reason}. Stop what listens there, or choose another port with {setting}."
        )
