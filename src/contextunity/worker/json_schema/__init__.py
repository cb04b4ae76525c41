"""JSON Schema (2020-12) of a message as the service reads it: strict ProtoJSON, with the rules of its proto.

A schema accepts everything that the service accepts. Rules that JSON Schema cannot express, such as CEL, are in a
`$comment`; only for these does the service reject more. docs/contract.md explains it for users.

Start with `_messages.py`: objects, lists and maps. `_values.py` has scalar values, `_rules.py` reads the rules, and
`_patterns.py` has the regular expressions.
"""

from __future__ import annotations

from ._messages import message_schema
from ._rules import rules_of

__all__ = ["message_schema", "rules_of"]
