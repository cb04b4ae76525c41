"""JSON Schema (2020-12) of a message as the service reads it: ProtoJSON, held strictly, with the rules of its proto.

A schema accepts whatever the service accepts. What JSON Schema cannot say, such as CEL, stands in a `$comment`; there,
and only there, the service refuses more. docs/contract.md says it for users.

`_messages.py` is where it begins: objects, lists and maps. `_values.py` has the single values, `_rules.py` reads the
rules, and `_patterns.py` has the regular expressions.
"""

from __future__ import annotations

from ._messages import message_schema
from ._rules import rules_of

__all__ = ["message_schema", "rules_of"]
