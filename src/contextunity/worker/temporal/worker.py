"""The Temporal workers of a process: one per task queue of its modules."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import ResourceBasedSlotConfig, Worker, WorkerDeploymentConfig, WorkerTuner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from contextunity.core.errors import ContextUnityError
from python_temporal import generated_modules
from python_temporal.contract import WorkflowContract

from ..data_folder import naming_data_folder
from ..errors import RegistryError, SettingsError
from ..modules.import_errors import import_error, sandbox_error
from ..modules.registry import ModuleContext, RegisteredModule
from ..quotas import open_quotas
from ..settings import Settings
from .shutdown import Grace
from .tenancy import tenant_queue

__all__ = ["running_workers", "task_queues"]

_LOG = logging.getLogger(__name__)

_TARGET_USAGE = 0.8


def task_queues(modules: Sequence[RegisteredModule], tenant: str) -> set[tuple[str, TaskQueueType.ValueType]]:
    """The task queues that workers for the modules poll, and for what."""
    polled = set[tuple[str, TaskQueueType.ValueType]]()
    for module in modules:
        for task_queue in module.task_queues:
            workflows, activities = module.handlers(task_queue)
            name = tenant_queue(task_queue, tenant)
            polled |= {(name, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)} if workflows else set()
            polled |= {(name, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)} if activities else set()
    return polled


@contextlib.asynccontextmanager
async def running_workers(
    client: Client,
    modules: Sequence[RegisteredModule],
    settings: Settings,
    *,
    tenant: str = "",
    workflows: Mapping[str, WorkflowContract] | None = None,
) -> AsyncGenerator[asyncio.Task[None], None]:
    """Run a worker for each task queue of the modules while the context is open.

    Args:
        client: client from `connect`.
        modules: modules whose workflows and activities to run.
        settings: settings of the process.
        tenant: tenant whose own task queues to poll; default: the common ones.
        workflows: contracts by workflow_type that the modules may use, including modules that run elsewhere.

    Yields:
        A task that ends, with the error, when a worker fails. Leaving the context stops all workers in order: they take
        no new work, running work has `shutdown_grace` to finish, and other workers retry the rest.

    Raises:
        SettingsError: a module needs the data folder, and it cannot be written to.
    """
    _check_versioning(modules, settings)
    async with contextlib.AsyncExitStack() as stack:
        quotas = await stack.enter_async_context(open_quotas(settings))
        for module in modules:
            if module.config.lifespan is not None:
                context = ModuleContext(
                    settings=module.settings,
                    data_folder=settings.data_folder,
                    quotas=quotas,
                    workflows=workflows or {},
                    snapshot_key_file=settings.snapshot_key_file,
                )
                with naming_data_folder(settings.data_folder):
                    await _open(stack, module, module.config.lifespan, context)
        threads = settings.max_concurrent_activities + max((module.waiting_slots for module in modules), default=0)
        executor = ThreadPoolExecutor(threads, thread_name_prefix="activity")
        grace = Grace(settings.shutdown_grace)
        # Abandoned threads end with the process.
        stack.callback(lambda: executor.shutdown(wait=not grace.is_over))
        workers = _workers(client, modules, executor, settings, tenant, grace)
        running = asyncio.create_task(_run_all(workers), name="temporal-workers")
        try:
            yield running
        finally:
            await grace.stop(running)


async def _open(
    stack: contextlib.AsyncExitStack,
    module: RegisteredModule,
    lifespan: Callable[[ModuleContext], contextlib.AbstractAsyncContextManager[None]],
    context: ModuleContext,
) -> None:
    try:
        await stack.enter_async_context(lifespan(context))
    except (ContextUnityError, OSError):
        raise  # Their messages are complete; the caller adds its own about the data folder.
    # Code of a module raised it, so report it without the traceback of our calls.
    except Exception as error:
        raise RegistryError(
            [f"module {module.config.name!r}: its lifespan failed: {import_error(error, lifespan.__module__)}"]
        ) from error


def _workers(
    client: Client,
    modules: Sequence[RegisteredModule],
    executor: ThreadPoolExecutor,
    settings: Settings,
    tenant: str,
    grace: Grace,
) -> list[Worker]:
    """Return the workers for all task queues of the modules.

    Raises:
        RegistryError: workflows cannot be imported in their sandbox; each of their modules is listed.
    """
    workers, violations = list[Worker](), list[str]()
    for module in modules:
        for task_queue in module.task_queues:
            workflows, activities = module.handlers(task_queue)

            def build(
                some: Sequence[type[Any]],
                *,
                module: RegisteredModule = module,
                task_queue: str = task_queue,
                activities: Sequence[Callable[..., Any]] = activities,
            ) -> Worker:
                return _worker(client, module, task_queue, some, activities, executor, settings, tenant, grace)

            try:
                workers.append(build(workflows))
            except (RuntimeError, SystemExit):
                # The SDK stops at the first workflow, whose name is in the error's text.
                found = [each for workflow in workflows for each in _sandbox_violations(build, module, workflow)]
                if not found:
                    raise
                violations += found
    if violations:
        raise RegistryError(list(dict.fromkeys(violations)))
    return workers


def _sandbox_violations(
    build: Callable[[Sequence[type[Any]]], Worker], module: RegisteredModule, workflow: type[Any]
) -> list[str]:
    try:
        build([workflow])
    except (RuntimeError, SystemExit) as error:
        cause = error.__cause__ or error
        return [f"module {module.config.name!r}: {sandbox_error(cause, workflow.__module__)}"]
    return []


async def _run_all(workers: Sequence[Worker]) -> None:
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.run(), name=f"worker {worker.task_queue}")


def _worker(
    client: Client,
    module: RegisteredModule,
    task_queue: str,
    workflows: Sequence[type[Any]],
    activities: Sequence[Callable[..., Any]],
    executor: ThreadPoolExecutor,
    settings: Settings,
    tenant: str,
    grace: Grace,
) -> Worker:
    polled = tenant_queue(task_queue, tenant)
    _LOG.info(
        "module %s: task queue %s, %d workflows, %d activities",
        module.config.name,
        polled,
        len(workflows),
        len(activities),
    )
    slots = settings.max_concurrent_activities + module.waiting_slots
    tuner = _tuner(settings, slots)
    return Worker(
        client,
        task_queue=polled,
        workflows=workflows,
        activities=activities,
        activity_executor=executor,
        max_cached_workflows=settings.max_cached_workflows,
        # The SDK accepts only one of the two.
        max_concurrent_activities=slots if tuner is None else None,
        tuner=tuner,
        graceful_shutdown_timeout=timedelta(seconds=grace.seconds),
        interceptors=[grace],
        deployment_config=_deployment(settings),
        # ContextWorkerPlugin adds its own modules: a client's plugins also apply to its workers.
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_modules(*_passthrough(module))
        ),
    )


def _tuner(settings: Settings, slots: int) -> WorkerTuner | None:
    """Return a tuner by the machine's load, if the settings request it; otherwise None, for fixed numbers."""
    if settings.target_cpu_usage is None and settings.target_memory_usage is None:
        return None
    return WorkerTuner.create_resource_based(
        target_cpu_usage=settings.target_cpu_usage or _TARGET_USAGE,
        target_memory_usage=settings.target_memory_usage or _TARGET_USAGE,
        activity_config=ResourceBasedSlotConfig(maximum_slots=slots),
    )


def _deployment(settings: Settings) -> WorkerDeploymentConfig | None:
    if not settings.deployment_name:
        return None
    version = WorkerDeploymentVersion(deployment_name=settings.deployment_name, build_id=settings.build_id)
    # A workflow without a declared behaviour stays on the version of its start, whose code is unchanged.
    return WorkerDeploymentConfig(
        version=version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )


def _check_versioning(modules: Sequence[RegisteredModule], settings: Settings) -> None:
    """Reject what the server would reject with every workflow task, so that the workflow would seem to hang.

    Raises:
        RegistryError: contracts and settings disagree about worker versioning.
    """
    workflows = [
        (module.config.name, contract)
        for module in modules
        for service in module.contracts
        for contract in service.workflows.values()
    ]
    if bool(settings.deployment_name) != bool(settings.build_id):
        raise SettingsError(["deployment_name and build_id go together; set both or neither"])
    if settings.deployment_name:
        return
    violations = [
        f"module {name!r}: the contract of workflow {contract.name!r} declares versioning_behavior, which needs a "
        "versioned worker; set CONTEXTWORKER_DEPLOYMENT_NAME and CONTEXTWORKER_BUILD_ID"
        for name, contract in workflows
        if contract.versioning_behavior is not None
    ]
    if violations:
        raise RegistryError(violations)


def _passthrough(module: RegisteredModule) -> set[str]:
    """Return the module's passthrough modules, and the packages of its contracts' dataclasses."""
    generated = set[str]().union(*(generated_modules(service) for service in module.contracts))
    return {*module.config.passthrough_modules, *generated}
