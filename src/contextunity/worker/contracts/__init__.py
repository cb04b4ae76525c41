"""Find breaking changes of a contract: `contextworker contract check`, `diff` and `release`.

Read `findings` first, which lists every rule, then `gate`, which the commands call. `versions` builds both versions
with buf, `schema` reads one version, and `compare` compares them: `temporal` compares the Temporal options, `inputs`
with `narrowing` and `accepted` what messages accept. Nothing here needs a service or the source tree.
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
