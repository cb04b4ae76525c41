"""The plugin's own options, the `opt` of buf.gen.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ._faults import UsageError

__all__ = ["IGNORABLE", "Options", "parse_options"]

_PACKAGE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_DOCS = re.compile(r"[\w./-]+\.md")

IGNORABLE = ("cli", "nexus", "patches", "xns")
"""Families of annotations for other generators that a user may choose to pass over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of the plugin.

    Attributes:
        package: dotted Python package that the output folder is, such as `acme.gen`; empty where it is on the path.
        docs: name of a Markdown reference of all services to write into the output folder; empty for none.
        code: whether to write the Python modules.
        ignore: families of annotations to pass over instead of refusing them.
        parameter: the options as given, for the header of generated files.
    """

    package: str = ""
    docs: str = ""
    code: bool = True
    ignore: frozenset[str] = frozenset()
    parameter: str = ""


def parse_options(parameter: str) -> Options:
    """Parses the plugin's parameter, `name=value` pairs separated by commas.

    Raises:
        UsageError: an option is unknown, repeated or ill-formed.
    """
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in parameter.split(","))):
        name, _, value = item.partition("=")
        if name not in ("package", "docs", "code", "ignore"):
            raise UsageError(f"unknown option {name!r}; options are package=, docs=, code= and ignore=")
        if name in values:
            raise UsageError(f"option {name!r} is given twice")
        values[name] = value
    return Options(
        package=_matching("package", values.get("package"), _PACKAGE, "a dotted Python package name"),
        docs=_matching("docs", values.get("docs"), _DOCS, "a path that ends with .md"),
        code=_boolean("code", values.get("code", "true")),
        ignore=_families(values.get("ignore", "")),
        parameter=",".join(f"{name}={values[name]}" for name in sorted(values)),
    )


def _matching(name: str, value: str | None, pattern: re.Pattern[str], what: str) -> str:
    if value is None:
        return ""
    if not pattern.fullmatch(value) or ".." in value.split("/"):
        raise UsageError(f"option {name}={value!r} is not {what}")
    return value


def _boolean(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise UsageError(f"option {name}={value!r} is neither true nor false")
    return value == "true"


def _families(value: str) -> frozenset[str]:
    families = frozenset(filter(None, value.split("+")))
    unknown = sorted(families - set(IGNORABLE))
    if unknown:
        raise UsageError(f"option ignore={value!r} names {unknown[0]!r}; join any of {', '.join(IGNORABLE)} by +")
    return families
