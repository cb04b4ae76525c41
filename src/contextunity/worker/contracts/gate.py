"""`contextworker contract`: check finds breaking changes, diff lists all, release checks and updates the baseline."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from .changes import ContractChange, changes
from .compare import compare
from .findings import RULES, Finding, Place, Severity, order
from .schema import Schema
from .versions import Buf, Comparison, ContractUsageError, own_protos, versions

__all__ = ["EXCEPTIONS_FILE", "Report", "check", "diff", "release"]

EXCEPTIONS_FILE = "contract-exceptions.toml"
"""In the same folder as buf.yaml."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Result of a check.

    Attributes:
        against: what the protos were compared with.
        strict: whether warnings are errors.
        findings: findings without an exception, by file and line.
        excepted: findings with an exception, each with its reason.
    """

    against: str
    strict: bool
    findings: Sequence[Finding]
    excepted: Sequence[Finding]

    def count(self, severity: Severity) -> int:
        """Count the findings of a severity."""
        return sum(each.severity(strict=self.strict) is severity for each in self.findings)

    @property
    def breaking(self) -> bool:
        """Whether there is an error."""
        return self.count(Severity.ERROR) > 0


def check(root: Path, against: str | None, *, strict: bool = False) -> Report:
    """Compare the protos of a folder with an earlier version of them.

    Args:
        root: the folder with the buf.yaml.
        against: a folder, an image or a git reference; None means the folder `contract` next to buf.yaml.
        strict: whether warnings are errors.

    Raises:
        ContractUsageError: an argument or the exceptions file is invalid.
        IncomparableError: the two versions cannot be compared.
    """
    return _check(root, against, strict=strict)[0]


def _check(root: Path, against: str | None, *, strict: bool) -> tuple[Report, Schema]:
    exceptions = _read_exceptions(root / EXCEPTIONS_FILE)
    comparison = versions(root, against)
    return _judge(root, comparison, exceptions, strict=strict), comparison.new


def _judge(root: Path, comparison: Comparison, exceptions: Sequence[_Exception], *, strict: bool) -> Report:
    found = sorted([*comparison.wire, *compare(comparison.old, comparison.new)], key=order)
    findings, excepted, used = list[Finding](), list[Finding](), set[int]()
    for finding in found:
        number = next((index for index, each in enumerate(exceptions) if each.covers(finding)), None)
        if number is None:
            findings.append(finding)
        else:
            used.add(number)
            excepted.append(replace(finding, reason=exceptions[number].reason))
    findings += [each.unused(root) for index, each in enumerate(exceptions) if index not in used]
    return Report(against=comparison.against, strict=strict, findings=findings, excepted=excepted)


def diff(root: Path, against: str | None) -> list[ContractChange]:
    """List every change of a contract since an earlier version, breaking or not. See `check` for the arguments."""
    comparison = versions(root, against)
    return changes(comparison.old, comparison.new)


def release(root: Path, folder: Path, modules: list[str], *, strict: bool = False) -> tuple[Report | None, int]:
    """Copy the protos into the baseline folder, unless something breaks. Return the check's report and the file count.

    Args:
        root: the folder with the buf.yaml.
        folder: the baseline; if it has no protos yet, it is written without a check.
        modules: modules of buf.yaml to release; empty means all except those that git ignores.
        strict: whether warnings are errors.
    """
    report = None
    if folder.is_dir() and any(folder.rglob("*.proto")):
        report, schema = _check(root, str(folder), strict=strict)
        if report.breaking:
            return report, 0
    else:
        schema = Schema(Buf(root).build(".", f"the protos in {root} do not compile"))
    contents = {name: path.read_bytes() for name, path in own_protos(root, schema, modules, folder).items()}
    for stale in list(folder.rglob("*.proto")):
        stale.unlink()
        with suppress(OSError):  # The folder is not empty.
            stale.parent.rmdir()
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if report is not None:
        # Each exception was for a difference from the old baseline, so the next check would report all as unused.
        (root / EXCEPTIONS_FILE).unlink(missing_ok=True)
    return report, len(contents)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Exception:
    rule: str
    path: str
    reason: str
    line: int

    def covers(self, finding: Finding) -> bool:
        """Whether the exception covers a finding: its declaration, an enclosing one, its file, or a folder of that."""
        if self.rule != finding.rule.id:
            return False
        files = [place.file for place in (finding.new, finding.old) if place is not None]
        if self.path in (finding.path, *files) or finding.path.startswith(f"{self.path}."):
            return True
        # Of what a file as a whole says, the path is the file by the name that imports have for it.
        return any(path.startswith(f"{self.path}/") for path in (finding.path, *files))

    def unused(self, root: Path) -> Finding:
        """Return the finding for an exception that applies to nothing."""
        text = f"no finding of {self.rule} is at {self.path}"
        place = Place((root / EXCEPTIONS_FILE).as_posix(), self.line)
        return Finding(rule=RULES["EXCEPTION_UNUSED"], path=self.path, text=text, new=place, old=None, breaks=())


_KEYS = ("rule", "path", "reason")


def _read_exceptions(file: Path) -> list[_Exception]:
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ContractUsageError(f"{file} cannot be read: {error}") from None
    tables: list[Any] = data.pop("exception", [])
    if data or type(tables) is not list:
        raise ContractUsageError(f"{file} may only hold tables [[exception]], each with rule, path and reason")
    heads = (number for number, line in enumerate(text.splitlines(), 1) if _HEAD.match(line))
    return [_exception(entry, Place(str(file), next(heads, 0))) for entry in tables]


_HEAD = re.compile(r"\s*\[\[\s*exception\s*\]\]")


def _exception(entry: Any, place: Place) -> _Exception:
    if not isinstance(entry, dict):
        raise ContractUsageError(f"{place}: an exception is a table with rule, path and reason")
    given = cast("dict[str, Any]", entry)
    unknown = sorted(set(given) - set(_KEYS))
    if unknown:
        raise ContractUsageError(f"{place}: {unknown[0]!r} is unknown; an exception has rule, path and reason")
    texts = {key: str(given.get(key, "")).strip() for key in _KEYS if isinstance(given.get(key, ""), str)}
    for key in _KEYS:
        if not texts.get(key):
            raise ContractUsageError(f"{place}: the exception needs a {key}, a non-empty string")
    return _Exception(rule=texts["rule"], path=texts["path"], reason=texts["reason"], line=place.line)
