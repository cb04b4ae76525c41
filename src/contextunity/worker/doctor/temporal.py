"""Checks of the Temporal server: connection, namespace, search attributes, pollers of task queues, and its clock."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    GetSystemInfoRequest,
    ListWorkflowExecutionsRequest,
    PollActivityTaskQueueRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from ..errors import SearchAttributesError, TemporalUnreachableError, WorkerError, namespace_unknown
from ..modules.registry import WorkerRegistry
from ..readiness import recent_pollers
from ..settings import is_loopback
from ..temporal.client import connection_config
from ..temporal.errors import missing_namespace
from ..temporal.search_attributes import unregistered_attributes
from ..temporal.worker import task_queues
from .findings import Finding, fail, ok, skip, warn
from .run import Machine

__all__ = ["check_attributes", "check_clock", "check_queues", "check_temporal", "clock_finding"]

_CLOCK_QUEUE = "contextworker-doctor"
"""A task queue without tasks; the server notes when it is polled, which tells its time."""
_LITTLE, _TOO_MUCH = timedelta(seconds=2), timedelta(seconds=60)
"""Differences of clocks from which there is a warning, and a failure: tokens and timeouts are wrong by then."""
_DENIED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED)


async def _client(machine: Machine) -> Client:
    client = await machine.client()
    if isinstance(client, WorkerError):
        raise client
    return client


async def check_temporal(machine: Machine) -> list[Finding]:
    """Check the connection, the server's version, the namespace, and the permission to list."""
    config = connection_config(machine.settings)
    address, namespace = str(config["target_host"]), str(config.get("namespace") or "default")
    client = await machine.client()
    if isinstance(client, WorkerError):
        reason = client.reason if isinstance(client, TemporalUnreachableError) else str(client)
        fix = "set TEMPORAL_ADDRESS to a running server, or start everything with contextworker dev"
        return [fail("temporal.address", f"{address}: {reason}", fix=fix), _encryption(config, address)]
    findings = [ok("temporal.address", f"{address} answers"), _encryption(config, address)]
    info = await client.workflow_service.get_system_info(GetSystemInfoRequest())
    findings.append(ok("temporal.version", info.server_version or "not told"))
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=namespace))
        findings.append(ok("temporal.namespace", namespace))
    except RPCError as error:
        if missing_namespace(error) or error.status is RPCStatusCode.NOT_FOUND:
            fault, _, fix = namespace_unknown(namespace).partition(". ")
            return [*findings, fail("temporal.namespace", fault, fix=fix)]
        findings.append(_refused("temporal.namespace", error, "describe the namespace"))
    try:
        request = ListWorkflowExecutionsRequest(namespace=namespace, page_size=1)
        await client.workflow_service.list_workflow_executions(request)
        findings.append(ok("temporal.listing", "allowed"))
    except RPCError as error:
        findings.append(_refused("temporal.listing", error, "list tasks"))
    return findings


def _encryption(config: dict[str, object], address: str) -> Finding:
    if config.get("tls") or (config.get("api_key") and config.get("tls") is not False):
        return ok("temporal.tls", "encrypted")
    if is_loopback(address.rpartition(":")[0]):
        return ok("temporal.tls", "plaintext, on this machine")
    fix = "set TEMPORAL_TLS=true if the server has it, or let the network keep others out"
    return warn("temporal.tls", "plaintext", "who reads the network reads payloads that are not encrypted", fix=fix)


def _refused(check: str, error: RPCError, what: str) -> Finding:
    if error.status in _DENIED:
        return fail(check, f"not allowed to {what}", error.message, fix="have the server's operator allow it")
    return fail(check, f"cannot {what}: {error.message or error.status.name}", fix="see the server's log")


async def check_attributes(machine: Machine) -> list[Finding]:
    """Check that the namespace has the search attributes that contracts set."""
    client, registry = await _client(machine), await machine.registry()
    contracts = registry.workflows.values() if isinstance(registry, WorkerRegistry) else ()
    try:
        found = await unregistered_attributes(client, contracts)
    except SearchAttributesError as error:
        fix = "have the server's operator allow it"
        return [fail("temporal.attributes", "cannot be read", str(error), fix=fix)]
    except WorkerError:
        return [skip("temporal.attributes", f"there is no namespace {client.namespace}")]
    if found is None:
        return [ok("temporal.attributes", "all that contracts set are registered")]
    lines = str(found).splitlines()
    findings = list[Finding]()
    for name, (kind, who) in found.missing.items():
        fix = "start a service or worker that may register it, or have an operator run: "
        fix += f"temporal operator search-attribute create --namespace {client.namespace} --name {name} --type {kind}"
        findings.append(warn(f"temporal.attributes.{name}", "is not registered", f"{who} sets it as {kind}", fix=fix))
    for name, (kind, who, there) in found.other_types.items():
        fix = next(line.rpartition("; ")[2] for line in lines if line.startswith(f"search attribute {name} is of type"))
        value = f"is of type {there}"
        findings.append(fail(f"temporal.attributes.{name}", value, f"{who} sets it as {kind}", fix=fix))
    return findings


async def check_queues(machine: Machine) -> list[Finding]:
    """Check that workers poll the task queues of the installed modules."""
    client, registry = await _client(machine), await machine.registry()
    if not isinstance(registry, WorkerRegistry):
        return [skip("queue", "the modules cannot be loaded")]
    queues = [
        (module.config.name, name, kind)
        for module in registry.modules.values()
        for name, kind in sorted(task_queues([module], ""))
    ]
    try:
        polled = await asyncio.gather(*(recent_pollers(client, name, kind) for _, name, kind in queues))
    except RPCError as error:
        if missing_namespace(error):
            return [skip("queue", f"there is no namespace {client.namespace}")]
        return [_refused("queue", error, "describe task queues")]
    found = dict[tuple[str, str], dict[str, set[str]]]()
    for (module, name, kind), pollers in zip(queues, polled, strict=True):
        what = "workflows" if kind == TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW else "activities"
        found.setdefault((module, name), {})[what] = {each.identity for each in pollers}
    return [_queue(module, name, by_kind) for (module, name), by_kind in found.items()]


def _queue(module: str, name: str, by_kind: dict[str, set[str]]) -> Finding:
    check, identities = f"queue.{name}", sorted(set[str]().union(*by_kind.values()))
    lacking = [what for what, pollers in by_kind.items() if not pollers]
    if lacking:
        fix = f"contextworker --temporal --modules {module}"
        value = "no worker polls it" if not identities else f"no worker polls it for {' and '.join(lacking)}"
        return warn(check, value, "its tasks wait", fix=fix)
    return ok(check, f"{len(identities)} {'worker' if len(identities) == 1 else 'workers'}", ", ".join(identities))


async def check_clock(machine: Machine) -> list[Finding]:
    """Compare this machine's clock with the Temporal server's: with when it says that we polled."""
    client = await _client(machine)
    queue = TaskQueue(name=_CLOCK_QUEUE)
    # Of this run alone: an earlier one is remembered for minutes.
    identity = f"doctor-{uuid.uuid4().hex}"
    poll = PollActivityTaskQueueRequest(namespace=client.namespace, task_queue=queue, identity=identity)
    ask = DescribeTaskQueueRequest(
        namespace=client.namespace, task_queue=queue, task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
    )
    sent = datetime.now(UTC)
    polling = asyncio.create_task(client.workflow_service.poll_activity_task_queue(poll))
    try:
        while not polling.done():
            answer = await client.workflow_service.describe_task_queue(ask)
            heard = datetime.now(UTC)
            times = [each.last_access_time.ToDatetime(UTC) for each in answer.pollers if each.identity == identity]
            if times:
                return [clock_finding("clock.temporal", "the Temporal server", max(times), sent, heard)]
            # The server notes a poll a moment after it comes.
            await asyncio.sleep(0.05)
        await polling
        return [skip("clock.temporal", "the Temporal server did not tell its time")]
    except RPCError as error:
        return [skip("clock.temporal", f"cannot poll a task queue to learn its time: {error.message}")]
    finally:
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError, RPCError):
            await polling


def clock_finding(check: str, whose: str, told: datetime, sent: datetime, heard: datetime) -> Finding:
    """Return how far this machine's clock is from another.

    Args:
        check: name of the finding.
        whose: the other clock.
        told: its time, some time between the next two on our clock.
        sent: our time before it was asked.
        heard: our time after it answered.
    """
    ahead = max(sent - told, told - heard, timedelta())
    if ahead < _LITTLE:
        return ok(check, f"within {max(ahead.total_seconds(), 0.1):.1f} s of {whose}")
    value = f"{ahead.total_seconds():,.0f} s {'ahead of' if told < sent else 'behind'} {whose}"
    detail = "tokens, schedules and timeouts depend on it"
    make = warn if ahead < _TOO_MUCH else fail
    return make(check, value, detail, fix="synchronize the clocks of both machines, such as with chrony")
