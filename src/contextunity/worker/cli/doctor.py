"""`contextworker doctor`: check the machine of a service or worker, and print what is wrong and the way out."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from .commands import COMMANDS, Commands
from .connection import (
    DEFAULT_TARGET,
    FAILED,
    STOPPED,
    USAGE,
    UsageError,
    add_json,
    add_options,
    address_and_credentials,
    open_channel,
    open_client,
)
from .output import fail, print_json, say

if TYPE_CHECKING:
    from ..doctor.findings import Finding
    from ..doctor.run import Machine, Service

__all__ = ["add_parser", "run"]

_DESCRIPTION = """\
Checks this machine as a service or worker on it would find it: with the same settings, environment and current folder.
Every line is ok, warn, fail or skip, with what was found and what to do. It changes nothing, and prints no secrets.
"""
_TIMEOUT = 10.0


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("doctor", help=COMMANDS["doctor"][1], description=_DESCRIPTION)
    parser.add_argument("--quiet", action="store_true", help="print only warnings and failures, and the last line")
    add_json(parser, "print one JSON document: a list of {check, status, value, detail, fix}")
    add_options(parser, timeout=_TIMEOUT)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return 0, or 1 if something failed."""
    from ..doctor.findings import Status
    from ..doctor.run import Machine

    # What the readers of files and keys log, the report says better.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        machine = Machine(service="", timeout=arguments.timeout)
        machine.service = _service(arguments, machine)
        findings = asyncio.run(_report(machine, arguments))
    except UsageError as error:
        return fail(arguments, USAGE, str(error), code="USAGE")
    except KeyboardInterrupt:
        return STOPPED
    if arguments.json:
        print_json([_plain(finding) for finding in findings])
    else:
        counts = Counter(finding.status for finding in findings)
        say(
            f"\n{counts[Status.OK]} ok, {counts[Status.WARN]} warnings, {counts[Status.FAIL]} failed, "
            f"{counts[Status.SKIP]} skipped"
        )
    return FAILED if any(finding.status is Status.FAIL for finding in findings) else 0


async def _report(machine: Machine, arguments: argparse.Namespace) -> list[Finding]:
    from ..doctor.findings import Status
    from ..doctor.run import run_checks
    from ..doctor.table import CHECKS

    findings: list[Finding] = []
    async for finding in run_checks(machine, CHECKS):
        findings.append(finding)
        if not arguments.json and not (arguments.quiet and finding.status in (Status.OK, Status.SKIP)):
            _show(finding)
    return findings


def _show(finding: Finding) -> None:
    detail = f"  ({finding.detail})" if finding.detail else ""
    say(f"{finding.status.value:<4}  {finding.check:<34}  {finding.value}{detail}")
    if finding.fix:
        say(f"      {'':<34}  → {finding.fix}")


def _plain(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "status": finding.status.value,
        "value": finding.value,
        "detail": finding.detail,
        "fix": finding.fix,
    }


def _service(arguments: argparse.Namespace, machine: Machine) -> Service | str:
    """Return how to reach the service: as named, or else where the settings have one listen on this machine."""
    from ..doctor.run import Service

    settings = machine.settings
    is_named = arguments.target != DEFAULT_TARGET or bool(os.environ.get("CONTEXTWORKER_TARGET"))
    if not is_named:
        if settings.port == 0:
            return "the service listens on any free port; name it with --target HOST:PORT"
        scheme = "https://" if settings.tls_cert_file is not None else ""
        arguments.target = f"{scheme}localhost:{settings.port}"
    # Wrong options end the command here, before anything is checked.
    address, credentials = address_and_credentials(arguments)
    open_client(arguments).close()
    return Service(
        target=arguments.target,
        is_named=is_named,
        address=address,
        has_tls=credentials is not None,
        open_client=lambda: open_client(arguments),
        open_channel=lambda: open_channel(arguments),
    )
