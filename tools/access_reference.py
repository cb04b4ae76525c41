"""Writes docs/reference/access.md from the service's table of methods.

`python tools/access_reference.py` writes it; with `--check` it exits with 1 where the file is not what it would write.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from temporalio.client import Client

from contextunity.worker.auth import IMPLIED, Access
from contextunity.worker.grpc_errors import Reason
from contextunity.worker.modules.registry import WorkerRegistry
from contextunity.worker.service import Method, WorkerService

_FILE = Path(__file__).resolve().parent.parent / "docs/reference/access.md"

_HEAD = """\
# Who may do what

<!-- Written by tools/access_reference.py from the service's table of methods; run `make generate` to update it. -->

Every method of the service, what it requires of its caller, and what it answers to callers without that.
This applies if the deployment requires tokens ([security.md](../security.md)); otherwise everybody may do everything.

| method | permission, one of | scopes | about | other tenant's | tenant refused | no tenant | other project's | that run code |
|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501 - in Markdown a row is a line

_FOOT = """
The order of the checks is: the token, the permission, the scopes, the content, the tenant, the project, and last whether the schedule runs code.

- *permission, one of*: without any of them, `PERMISSION_MISSING`. No permission implies one of them.
- *scopes*: the list of the unit's `security` that the method checks. If it is not empty, the token must hold one of its scopes, or a permission that implies one; otherwise `SCOPE_MISSING`. The other list is not checked, and the answer repeats both.
- *other tenant's*: the subject of the method belongs to a tenant that the token does not have, and the request names no tenant.
- *tenant refused*: the request names a tenant that the token does not have.
- *no tenant*: the token is for no tenant, and the request names none.
- *other project's*: the token is bound to a project (`project_binding.kind` is `project`), and the request names another one, or its subject belongs to another one. Tokens of the kind `platform`, and unbound ones, see all projects of their tenants.
- *that run code*: the permission required for schedules whose workflow runs callers' code, such as `execute_code`; without it, `PERMISSION_MISSING`.

| in the table | what happens |
|---|---|
| a name in capitals | the call ends with this reason; see [errors.md](../errors.md) |
| left out | the answer omits it |
| its own | the call applies to the caller's own tenant |
| as any | this is not checked |

For scopes only, these permissions imply others:

| permission | implies |
|---|---|
"""  # noqa: E501 - as is a paragraph


def render(methods: Iterable[Method]) -> str:
    """Return the text of the file."""
    implied = ([f"`{name}`", _names(others)] for name, others in IMPLIED.items())
    return _HEAD + _lines(map(_row, methods)) + _FOOT + _lines(implied)


def _lines(rows: Iterable[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(method: Method) -> list[str]:
    answers = method.subject.value
    return [
        f"`{method.name}`",
        _names(method.permissions),
        "`security.write`" if method.access is Access.WRITE else "`security.read`",
        answers.what,
        *map(_cell, (answers.other_tenant, answers.named_tenant, answers.no_tenant, answers.other_project)),
        _names(method.code_permissions) or "as any",
    ]


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _cell(answer: Reason | str) -> str:
    return f"`{answer.name}`" if isinstance(answer, Reason) else answer


async def _methods() -> list[Method]:
    # The table hangs on a client, which has nothing to do here and never connects.
    client = await Client.connect("127.0.0.1:1", lazy=True)
    return list(WorkerService(client, WorkerRegistry()).methods.values())


def main() -> int:
    """Writes the file, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the file is not up to date")
    arguments = parser.parse_args()
    text = render(asyncio.run(_methods()))
    if arguments.check:
        if not _FILE.exists() or _FILE.read_text(encoding="utf-8") != text:
            print(f"{_FILE} is not what the table of methods gives; commit what 'make generate' writes")
            return 1
        return 0
    _FILE.parent.mkdir(parents=True, exist_ok=True)
    _FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
