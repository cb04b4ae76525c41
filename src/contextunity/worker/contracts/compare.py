"""Compare two versions of a contract by all families of rules except buf's own."""

from __future__ import annotations

from .findings import Finding, Findings
from .inputs import compare_inputs
from .schema import Schema
from .temporal import compare_temporal, match_elements

__all__ = ["compare"]


def compare(old: Schema, new: Schema) -> list[Finding]:
    """Return every breaking change of the new version, except those that buf's own rules find."""
    findings = Findings()
    pairs = match_elements(old, new)
    compare_temporal(old, new, pairs, findings)
    compare_inputs(old, new, pairs, findings)
    return findings.sorted()
