"""`contextworker contract`: find changes of a contract that break callers, workers, running tasks and schedules."""

from __future__ import annotations

import argparse
from pathlib import Path

from .commands import COMMANDS, Commands
from .connection import FAILED, STOPPED, USAGE
from .output import complain, fail, print_json, say

__all__ = ["add_parser", "run"]

INCOMPARABLE = 3
"""Exit code if the protos could not be compared."""

_EPILOG = """\
Exit codes: 0 nothing breaks, or only warnings; 1 something breaks; 2 wrong usage; 3 the protos could not be compared.
"""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("contract", help=COMMANDS["contract"][1])
    actions: Commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True, title="actions")
    check = actions.add_parser("check", help="report everything that breaks", epilog=_EPILOG)
    _add_versions(check)
    _add_strict(check)
    output = check.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    output.add_argument("--sarif", action="store_true", help="print a SARIF 2.1.0 log, for code scanning")
    diff = actions.add_parser("diff", help="list every change, for a changelog")
    _add_versions(diff)
    diff.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    release = actions.add_parser("release", help="make the protos the released contract, if nothing breaks")
    _add_root(release)
    release.add_argument(
        "--to", type=Path, metavar="FOLDER", help="folder of the released protos (contract/ next to buf.yaml)"
    )
    release.add_argument(
        "--module",
        action="append",
        default=[],
        metavar="PATH",
        help="a module of buf.yaml to release; repeatable (all that git does not ignore)",
    )
    _add_strict(release)


def _add_versions(parser: argparse.ArgumentParser) -> None:
    _add_root(parser)
    parser.add_argument(
        "--against",
        metavar="FOLDER|IMAGE|GIT-REF",
        help="what to compare with: a folder, an image from `buf build -o`, or a git reference (contract/)",
    )


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="the folder with your buf.yaml (the current one)"
    )


def _add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from ..contracts import ContractUsageError, IncomparableError

    actions = {"check": _check, "diff": _diff, "release": _release}
    try:
        return actions[arguments.action](arguments)
    except IncomparableError as error:
        return fail(arguments, INCOMPARABLE, f"{error}; nothing is known about what breaks", code="INCOMPARABLE")
    except BrokenPipeError:
        # The reader closed the pipe; `main` ends the command.
        raise
    except (ContractUsageError, OSError) as error:
        return fail(arguments, USAGE, str(error), code="USAGE")
    except KeyboardInterrupt:
        return STOPPED


def _check(arguments: argparse.Namespace) -> int:
    from ..contracts import check
    from ..contracts.report import as_json, as_sarif, as_text

    report = check(arguments.root, arguments.against, strict=arguments.strict)
    if arguments.json:
        print_json(as_json(report))
    elif arguments.sarif:
        print_json(as_sarif(report))
    else:
        say(as_text(report))
    return FAILED if report.breaking else 0


def _diff(arguments: argparse.Namespace) -> int:
    from ..contracts import diff

    changes = diff(arguments.root, arguments.against)
    if arguments.json:
        keys = ("action", "kind", "path", "details")
        print_json({"changes": [{key: getattr(change, key) for key in keys} for change in changes]})
        return 0
    for change in changes:
        say(f"- {change}")
    if not changes:
        say("nothing changed")
    return 0


def _release(arguments: argparse.Namespace) -> int:
    from ..contracts import release
    from ..contracts.report import as_text

    folder = arguments.to or arguments.root / "contract"
    report, count = release(arguments.root, folder, arguments.module, strict=arguments.strict)
    if report is not None:
        say(as_text(report))
        if report.breaking:
            complain(f"nothing was released; {folder} stays as it is")
            return FAILED
    say(f"released {count} files to {folder}; commit it by itself")
    return 0
