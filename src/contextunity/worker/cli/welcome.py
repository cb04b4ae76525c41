"""The welcome text of `dev`: addresses, and commands to copy."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..devserver import DevServer
from .connection import DEFAULT_TARGET

__all__ = ["start_command", "welcome"]

_PROJECT = "my_project"
"""Project of the example's token: a secret for all projects verifies any."""


def welcome(stack: DevServer, *, with_token: bool = False) -> str:
    """Return the addresses of the running parts, and what to do next.

    Args:
        stack: the running parts.
        with_token: whether callers need tokens.
    """
    return f"""\
ContextWorker runs. Ctrl-C stops it.

  WorkerService   {stack.grpc.target}
  HTTP with JSON  http{"s" if stack.grpc.has_tls else ""}://{stack.grpc.http_target}
  Temporal        {stack.temporal.address}
  Temporal web UI {stack.temporal.ui_url}
  modules         {", ".join(module.config.name for module in stack.modules) or "none"}
  state           {stack.temporal.database.parent}

{_examples(stack, with_token)}"""


def start_command(example: Mapping[str, Any], target: str) -> str:
    """Return the command that starts a module's example.

    Args:
        example: payload of a StartWorkflow.
        target: the service's address.
    """
    words = [_program("contextworker"), "start", str(example.get("workflow_type", ""))]
    # A nested object has no readable flag, so use --input for everything.
    plain = not any(isinstance(value, dict | list) for value in example.values())
    if plain:
        for name, value in example.items():
            if name != "workflow_type":
                words += [f"--{name.replace('_', '-')}", str(value)]
    else:
        parameters = {name: value for name, value in example.items() if name not in ("workflow_type", "tenant_id")}
        words += ["--tenant", str(example["tenant_id"])] if "tenant_id" in example else []
        words += ["--input", json.dumps(parameters)]
    return shlex.join([*words, "--watch", *_target(target)])


def _examples(stack: DevServer, with_token: bool) -> str:
    target = f"https://{stack.grpc.target}" if stack.grpc.has_tls else stack.grpc.target
    examples = {module.config.name: dict(module.config.example) for module in stack.modules if module.config.example}
    lines = list[str]()
    if with_token and examples:
        lines += [
            "Callers need tokens; export one in the other terminal, with the same secret as here:",
            "",
            f"  {_mint_command(examples.values())}",
            "",
        ]
    for name, example in examples.items():
        lines += [
            f"Start the module {name} from another terminal, and watch it:",
            "",
            f"  {start_command(example, target)}",
            "",
        ]
    if examples:
        contextworker = _program("contextworker")
        more = " ".join(_target(target))
        lines += ["List tasks and contracts:", ""]
        lines += [f"  {contextworker} {command} {more}".rstrip() for command in ("list", "contracts")]
        payload = json.dumps({"payload": next(iter(examples.values()))})
        lines += ["", "Any gRPC client works; with reflection, no proto files are needed:", ""]
        lines += [_buf_curl(target, "StartWorkflow", payload, with_token), ""]
    return "\n".join(lines)


def _target(target: str) -> list[str]:
    default = DEFAULT_TARGET.replace("localhost", "127.0.0.1")
    return [] if target in (DEFAULT_TARGET, default) else ["--target", target]


def _mint_command(examples: Iterable[Mapping[str, Any]]) -> str:
    """Return the command that exports a token for the examples."""
    tenants = sorted({str(example["tenant_id"]) for example in examples if "tenant_id" in example}) or [_PROJECT]
    words = [_program("contextworker"), "token", "mint", "--project", _PROJECT]
    for tenant in tenants:
        words += ["--tenant", tenant]
    words += ["--permission", "worker:execute", "--permission", "worker:read"]
    return f'export CONTEXTWORKER_TOKEN="$({shlex.join(words)})"'


def _buf_curl(target: str, method: str, data: str, with_token: bool) -> str:
    # Over TLS client and server agree on HTTP/2; in plaintext buf has to be told.
    plain, origin = ("", target) if "://" in target else (" --http2-prior-knowledge", f"http://{target}")
    address = f"{origin}/contextunity.worker.WorkerService/{method}"
    shown = ' -H "authorization: Bearer $CONTEXTWORKER_TOKEN"' if with_token else ""
    return f"  {_program('buf')} curl --protocol grpc{plain}{shown} -d '{data}' {address}"


def _program(name: str) -> str:
    """Return how to call a program from the current folder; a virtual environment has it next to the interpreter."""
    sibling = Path(sys.executable).parent / name
    if not sibling.exists():
        return name
    return str(sibling.relative_to(Path.cwd())) if sibling.is_relative_to(Path.cwd()) else str(sibling)
