"""What `dev` says once everything runs: where it is, and commands to paste into another terminal."""

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
"""Whose token the example is: a secret of all projects verifies any."""


def welcome(stack: DevServer, *, with_token: bool = False) -> str:
    """The addresses of what runs, and what to do next.

    Args:
        stack: what runs.
        with_token: whether callers are asked for tokens.
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
    """The command line that starts what a module gives as its example.

    Args:
        example: payload of a StartWorkflow.
        target: where the service is.
    """
    words = [_program("contextworker"), "start", str(example.get("workflow_type", ""))]
    # An object is no flag to type; then all of it is given as it is.
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
            "Callers are asked for tokens; export one in the other terminal, where the secret is set as here:",
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
        lines += ["Look at what there is:", ""]
        lines += [f"  {contextworker} {command} {more}".rstrip() for command in ("list", "contracts")]
        payload = json.dumps({"payload": next(iter(examples.values()))})
        lines += ["", "Any gRPC client does the same; with reflection, no proto files are needed:", ""]
        lines += [_buf_curl(target, "StartWorkflow", payload, with_token), ""]
    return "\n".join(lines)


def _target(target: str) -> list[str]:
    default = DEFAULT_TARGET.replace("localhost", "127.0.0.1")
    return [] if target in (DEFAULT_TARGET, default) else ["--target", target]


def _mint_command(examples: Iterable[Mapping[str, Any]]) -> str:
    """The command that gives the terminal a token for what the examples do."""
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
    """How to call a program from the current folder; it is beside the interpreter where an environment brings it."""
    sibling = Path(sys.executable).parent / name
    if not sibling.exists():
        return name
    return str(sibling.relative_to(Path.cwd())) if sibling.is_relative_to(Path.cwd()) else str(sibling)
