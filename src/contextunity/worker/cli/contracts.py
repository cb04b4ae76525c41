"""`contextworker contracts`: list workflows with their inputs, outputs, queries, signals and updates."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands import COMMANDS, Commands
from .connection import UsageError, add_options, run_with_client
from .output import did_you_mean, headline, print_json, print_table, say
from .watching import follow_up

if TYPE_CHECKING:
    from contextunity.gen.contextunity.worker import ContractDescription, HandlerDescription

    from ..client import SyncWorkerClient

__all__ = ["add_parser", "run"]


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("contracts", help=COMMANDS["contracts"][1])
    parser.add_argument("workflow_type", nargs="*", metavar="WORKFLOW_TYPE", help="show all details of these")
    parser.add_argument("--handler", metavar="NAME", help="with a schema: of this query, signal or update")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document, for programs")
    form.add_argument("--schema", metavar="WORKFLOW_TYPE", help="print the JSON Schema of its input")
    form.add_argument("--output-schema", metavar="WORKFLOW_TYPE", help="print the JSON Schema of its output")
    form.add_argument(
        "--manifest", action="store_true", help="print names, queues, time limits, retries, ids and types as JSON"
    )
    form.add_argument(
        "--descriptors",
        type=Path,
        metavar="FILE",
        help="write the proto files with annotations as a FileDescriptorSet, for buf and protoc",
    )
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    return run_with_client(_contracts, arguments)


def _contracts(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    from contextunity.core import codec

    if arguments.schema or arguments.output_schema:
        return _print_schema(client, arguments)
    if arguments.handler:
        raise UsageError("--handler goes with --schema or --output-schema")
    if arguments.manifest:
        return _print_manifest(client, arguments)
    if arguments.descriptors:
        return _write_descriptors(client, arguments)
    contracts = client.describe_contracts(*arguments.workflow_type).contracts
    if arguments.json:
        print_json({"contracts": [codec.to_dict(each, preserving_proto_field_name=True) for each in contracts]})
        return 0
    if arguments.workflow_type:
        for contract in contracts:
            _show(contract)
        return 0
    if not contracts:
        say("the service has no modules")
        return 0
    print_table(
        ("workflow_type", "module", "task_queue", "what it does"),
        [(each.workflow_type, each.module, each.task_queue, headline(each.description)) for each in contracts],
    )
    say(f"\nAll about one of them:\n  {follow_up(arguments, 'contracts', contracts[0].workflow_type)}")
    return 0


def _print_schema(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    workflow_type = arguments.schema or arguments.output_schema
    if arguments.workflow_type:
        raise UsageError(f"a schema is of one workflow_type, here {workflow_type}; leave the others out")
    (contract,) = client.describe_contracts(workflow_type, include_schemas=True).contracts
    described: ContractDescription | HandlerDescription = contract
    if arguments.handler:
        handlers = {each.name: each for each in (*contract.queries, *contract.signals, *contract.updates)}
        if arguments.handler not in handlers:
            known = ", ".join(sorted(handlers)) or "none"
            text = f"{workflow_type} has no query, signal or update {arguments.handler}; it has {known}"
            raise UsageError(text + did_you_mean(arguments.handler, handlers))
        described = handlers[arguments.handler]
    schema = described.input_schema if arguments.schema else described.output_schema
    # Indented and in the schema's order: schemas are stored in files and read by people.
    print_json(json.loads(schema), pretty=True, sort_keys=False)
    return 0


def _print_manifest(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    from contextunity.core import codec

    answer = client.describe_contracts(*arguments.workflow_type, include_options=True)
    contracts = list[dict[str, Any]]()
    for contract in answer.contracts:
        told: dict[str, Any] = codec.to_dict(replace(contract, fields=[]), preserving_proto_field_name=True)
        options = told.pop("options", {})
        contracts.append({**told, **options})
    activities = [codec.to_dict(each, preserving_proto_field_name=True) for each in answer.activities]
    print_json({"contracts": contracts, "activities": activities})
    return 0


def _write_descriptors(client: SyncWorkerClient, arguments: argparse.Namespace) -> int:
    answer = client.describe_contracts(*arguments.workflow_type, include_descriptors=True)
    try:
        arguments.descriptors.write_bytes(answer.file_descriptor_set)
    except OSError as error:
        raise UsageError(f"cannot write {arguments.descriptors}: {error.strerror}") from None
    return 0


def _show(contract: ContractDescription) -> None:
    say(f"{contract.workflow_type}{' (deprecated)' if contract.deprecated else ''}")
    for line in contract.description.splitlines():
        say(f"  {line}".rstrip())
    facts = {
        "aliases": ", ".join(contract.aliases),
        "module": contract.module,
        "task_queue": contract.task_queue,
        "workflow id": contract.id_expression or "a new one for each unit",
        "while one with its id runs": contract.id_conflict_policy or "FAIL",
        "output": contract.output_type or "none",
        "input": contract.input_type or "none",
    }
    say("")
    for name, value in facts.items():
        if value:
            say(f"  {name:<14} {value}")
    for field in contract.fields:
        kind = f"repeated {field.type}" if field.repeated else field.type
        words = f" ({', '.join(field.enum_values)})" if field.enum_values else ""
        rules = f" [{'; '.join(field.rules)}]" if field.rules else ""
        say(f"    {field.name:<20} {kind}{words}{rules}")
        if field.description:
            say(f"    {'':<20}   {' '.join(field.description.split())}")
    for title, handlers in (
        ("queries", contract.queries),
        ("signals", contract.signals),
        ("updates", contract.updates),
    ):
        _show_handlers(title, handlers)
    say("")


def _show_handlers(title: str, handlers: Sequence[HandlerDescription]) -> None:
    if not handlers:
        return
    say(f"  {title}")
    for handler in handlers:
        form = f"{handler.input_type or 'nothing'} → {handler.output_type or 'nothing'}"
        say(f"    {handler.name:<20} {form}")
        if handler.description:
            say(f"    {'':<20}   {headline(handler.description)}")
