"""The gate that keeps a contract's promises: `contextworker contract check`, `diff` and `release`.

Read `findings` first, which lists all that can be found, then `gate`, which is what the commands call. `versions` gets
the two versions by way of buf, `schema` reads one, `compare` holds them against each other: `temporal` what Temporal
goes by, `inputs` with `narrowing` and `accepted` what messages accept. Nothing here needs a service or the source tree.
"""

from .compare import compare
from .findings import RULES, Finding, Place, Rule, Severity
from .gate import Report, check, diff, release
from .schema import IncomparableError, Schema
from .versions import ContractUsageError

__all__ = [
    "RULES",
    "ContractUsageError",
    "Finding",
    "IncomparableError",
    "Place",
    "Report",
    "Rule",
    "Schema",
    "Severity",
    "check",
    "compare",
    "diff",
    "release",
]
