"""The connection of commands to the service, and their messages for its errors."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .output import did_you_mean, fail

if TYPE_CHECKING:
    import grpc

    from ..client import SyncWorkerClient, WorkerServiceError

__all__ = [
    "DEFAULT_TARGET",
    "UsageError",
    "add_json",
    "add_options",
    "address_and_credentials",
    "open_channel",
    "open_client",
    "run_with_client",
]

DEFAULT_TARGET = "localhost:50052"

FAILED, USAGE, UNREACHABLE, STOPPED = 1, 2, 3, 130
"""Exit codes other than 0."""

Command = Callable[["SyncWorkerClient", argparse.Namespace], int]


class UsageError(Exception):
    """Wrong usage; the text says why, and what to type instead."""


def add_options(parser: argparse.ArgumentParser, *, timeout: float = 30.0) -> None:
    """Add the options of every command that calls the service; `timeout` is the default of --timeout."""
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--target",
        default=os.environ.get("CONTEXTWORKER_TARGET") or DEFAULT_TARGET,
        metavar="HOST:PORT",
        help=f"address of the service; https:// uses TLS (CONTEXTWORKER_TARGET, else {DEFAULT_TARGET})",
    )
    group.add_argument(
        "--tenant",
        "--tenant-id",
        dest="tenant",
        default=os.environ.get("CONTEXTWORKER_TENANT", ""),
        metavar="NAME",
        help="tenant of the tasks (CONTEXTWORKER_TENANT)",
    )
    group.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with the token, read for each call (CONTEXTWORKER_TOKEN has the token itself)",
    )
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="PEM file of the authority to trust; uses TLS")
    group.add_argument(
        "--client-cert-file", type=Path, metavar="FILE", help="PEM file of the client's certificate; uses TLS"
    )
    group.add_argument("--client-key-file", type=Path, metavar="FILE", help="PEM file of its private key")
    group.add_argument(
        "--server-name", default="", metavar="NAME", help="name in the service's certificate, if not that of the target"
    )
    group.add_argument(
        "--timeout", type=_seconds, default=timeout, metavar="SECONDS", help=f"timeout of a call ({timeout:g})"
    )


def add_json(parser: argparse.ArgumentParser, what: str = "print one JSON document, for programs") -> None:
    """Add the option --json."""
    parser.add_argument("--json", action="store_true", help=what)


def open_client(arguments: argparse.Namespace) -> SyncWorkerClient:
    """Return the client for the options.

    Raises:
        UsageError: an option is invalid, or its file cannot be read.
    """
    from ..client import RetryPolicy, SyncWorkerClient

    token_file: Path | None = arguments.token_file
    if token_file is not None:
        _read(token_file)
    try:
        return SyncWorkerClient(
            arguments.target,
            token=(lambda: _read(token_file).strip())
            if token_file is not None
            else os.environ.get("CONTEXTWORKER_TOKEN") or None,
            tenant_id=arguments.tenant,
            tls=_tls(arguments),
            server_name=arguments.server_name,
            timeout=arguments.timeout,
            # An interactive user waits: report an unreachable service soon.
            retry=RetryPolicy(attempts=4),
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def address_and_credentials(arguments: argparse.Namespace) -> tuple[str, grpc.ChannelCredentials | None]:
    """Return the address of the service, and the credentials of a connection to it; None for plaintext.

    Raises:
        UsageError: an option is invalid, or its file cannot be read.
    """
    from ..client._channel import address_of

    try:
        return address_of(arguments.target, _tls(arguments))
    except ValueError as error:
        raise UsageError(str(error)) from None


def open_channel(arguments: argparse.Namespace) -> grpc.Channel:
    """Return a channel for the options, for what is no method of WorkerService.

    Raises:
        UsageError: an option is invalid, or its file cannot be read.
    """
    import grpc

    from ..client._channel import options_of

    address, credentials = address_and_credentials(arguments)
    options = options_of(arguments.server_name)
    if credentials is None:
        return grpc.insecure_channel(address, options=options)
    return grpc.secure_channel(address, credentials, options=options)


def run_with_client(command: Command, arguments: argparse.Namespace, names: Mapping[str, str] | None = None) -> int:
    """Run a command, report any error in one clear message, and return the exit code.

    Args:
        command: the command.
        arguments: parsed arguments; `json` selects the form of errors.
        names: names for fields of the request in messages, such as their flags.
    """
    from contextunity.core.errors import CodecError

    from ..client import TaskFailedError, WorkerServiceError

    try:
        with open_client(arguments) as client:
            return command(client, arguments)
    except WorkerServiceError as error:
        return _fail(error, arguments, names or {})
    except TaskFailedError as error:
        return fail(arguments, FAILED, str(error), code="TASK_FAILED")
    except (UsageError, CodecError, ValueError) as error:
        return fail(arguments, USAGE, str(error), code="USAGE")
    except KeyboardInterrupt:
        return STOPPED


def _fail(error: WorkerServiceError, arguments: argparse.Namespace, names: Mapping[str, str]) -> int:
    # The service lists the known handlers of a task, and the known workflow types.
    known = [name for name in error.metadata.get("known", "").split(", ") if name]
    typed = next((error.metadata[key] for key in _MISTYPED if error.metadata.get(key)), "")
    meant = did_you_mean(typed, known)
    details = {
        "code": error.code.name,
        "reason": error.reason,
        "violations": [{"field": each.field, "description": each.description} for each in error.violations],
        "metadata": error.metadata,
        "trace_id": error.trace_id,
    }
    exit_code = UNREACHABLE if error.unreachable else FAILED
    return fail(arguments, exit_code, error.message + meant, text=_text(error, meant, arguments, names), **details)


_MISTYPED = ("signal", "query", "update", "workflow_type")
"""Return words of an error's metadata that may be mistyped, the one nearest to the command's end first."""


def _text(error: WorkerServiceError, meant: str, arguments: argparse.Namespace, names: Mapping[str, str]) -> str:
    head = error.reason or error.code.name
    if len(error.violations) > 1:
        lines = [f"{head}: the request does not fit:"]
    elif error.violations:
        lines = [f"{head}:"]
    else:
        lines = [f"{head}: {error.message}{meant}"]
    described = [
        # Fields without a flag are words of the command; nobody typed a body.
        f"{names.get(each.field, each.field.removeprefix('body.'))}: {each.description}"
        if each.field
        else each.description
        for each in error.violations
    ]
    lines = [f"{lines[0]} {described[0]}"] if len(described) == 1 else [*lines, *(f"  - {each}" for each in described)]
    if error.reason == "TOKEN_REFUSED":
        lines.append("  here the token comes from --token-file FILE or CONTEXTWORKER_TOKEN")
    if error.unreachable:
        lines.append(
            f"  {arguments.program} dev runs one here; --target HOST:PORT or CONTEXTWORKER_TARGET names another"
        )
    if error.code.name in ("INTERNAL", "UNKNOWN") and error.trace_id:
        lines.append(f"  trace_id {error.trace_id}")
    return "\n".join(lines)


def _tls(arguments: argparse.Namespace) -> grpc.ChannelCredentials | bool:
    import grpc

    ca_file, cert_file, key_file = arguments.ca_file, arguments.client_cert_file, arguments.client_key_file
    if (cert_file is None) != (key_file is None):
        raise UsageError("--client-cert-file and --client-key-file go together; give both or neither")
    if ca_file is None and cert_file is None:
        return False
    key = None if key_file is None else _read(key_file)
    if key is not None and "PRIVATE KEY-----" not in key:
        raise UsageError(f"{key_file} has no private key in PEM: a block that begins with -----BEGIN PRIVATE KEY-----")
    return grpc.ssl_channel_credentials(
        None if ca_file is None else _certificates(ca_file),
        None if key is None else key.encode(),
        None if cert_file is None else _certificates(cert_file),
    )


def _certificates(path: Path) -> bytes:
    text = _read(path)
    if "-----BEGIN CERTIFICATE-----" not in text:
        # gRPC would report that the service is unreachable.
        raise UsageError(f"{path} has no certificate in PEM: a block that begins with -----BEGIN CERTIFICATE-----")
    return text.encode()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path} cannot be read: {reason or error}") from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, such as 30 or 0.5")
    return value
