"""Activities: typed calls from workflows, and two ways to implement them, as functions or as methods of an object."""

from __future__ import annotations

import functools
import inspect
from abc import ABC
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from temporalio import activity, workflow
from typing_extensions import Unpack

from .contract import CONTRACT, ActivityContract, ServiceContract, arguments, result_type, signature_errors
from .errors import DefinitionError
from .options import ActivityOptions, LocalActivityOptions

__all__ = ["Activity", "ActivityBase", "EmptyActivity"]

InT = TypeVar("InT")
OutT = TypeVar("OutT")
_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])

_LOCAL = ("schedule_to_close_timeout", "start_to_close_timeout", "retry_policy")
_REMOTE = (*_LOCAL, "schedule_to_start_timeout", "heartbeat_timeout", "priority")


class _ActivityCalls(Generic[OutT]):
    """The common base of activities with and without an input."""

    def __init__(self, contract: ActivityContract) -> None:
        self.contract = contract
        """The activity's contract."""
        self.__doc__ = contract.description or None

    def __repr__(self) -> str:
        return f"<activity {self.contract.name!r}>"

    def _start(self, request: object, options: ActivityOptions) -> workflow.ActivityHandle[OutT]:
        self._warn_if_deprecated()
        contract = self.contract
        merged: dict[str, Any] = {
            **_defaults(contract, _REMOTE),
            "task_queue": task_queue_for(contract),
            **options,
        }
        return cast(
            "workflow.ActivityHandle[OutT]",
            workflow.start_activity(
                contract.name,
                args=arguments(contract, request),
                result_type=result_type(contract),
                **merged,
            ),
        )

    def _start_local(self, request: object, options: LocalActivityOptions) -> workflow.ActivityHandle[OutT]:
        self._warn_if_deprecated()
        contract = self.contract
        merged: dict[str, Any] = {**_defaults(contract, _LOCAL), **options}
        return cast(
            "workflow.ActivityHandle[OutT]",
            workflow.start_local_activity(
                contract.name,
                args=arguments(contract, request),
                result_type=result_type(contract),
                **merged,
            ),
        )

    async def _result(self, handle: workflow.ActivityHandle[OutT]) -> OutT:
        result = await handle
        return cast("OutT", None) if self.contract.output_type is None else result

    def _define(self, function: _FunctionT) -> _FunctionT:
        errors = signature_errors(function, self.contract.input_type, self.contract.output_type, method=False)
        if errors:
            raise DefinitionError(function.__qualname__, errors)
        return define(self.contract, function)

    def _warn_if_deprecated(self) -> None:
        # Log it, because a warning turned into an error would fail the workflow task again and again.
        if self.contract.deprecated:
            workflow.logger.warning("activity %r is deprecated", self.contract.name)


class Activity(_ActivityCalls[OutT], Generic[InT, OutT]):
    """An activity with an input: calls from workflows, and the decorator for functions that implement it.

    Options that a call omits have the contract's value, or else the SDK's. An activity without its own task queue uses
    that of its service; if a workflow of the same service calls it, it uses the workflow's task queue.
    """

    async def __call__(self, request: InT, **options: Unpack[ActivityOptions]) -> OutT:
        """Run the activity, and return its result."""
        return await self._result(self._start(request, options))

    def start(self, request: InT, **options: Unpack[ActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity, and return an asyncio task with its result."""
        return self._start(request, options)

    async def local(self, request: InT, **options: Unpack[LocalActivityOptions]) -> OutT:
        """Run the activity in the workflow's own worker, and return its result."""
        return await self._result(self._start_local(request, options))

    def start_local(self, request: InT, **options: Unpack[LocalActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity in the workflow's own worker."""
        return self._start_local(request, options)

    @overload
    def defn(
        self, function: Callable[[InT], Coroutine[Any, Any, OutT]]
    ) -> Callable[[InT], Coroutine[Any, Any, OutT]]: ...
    @overload
    def defn(self, function: Callable[[InT], OutT]) -> Callable[[InT], OutT]: ...
    def defn(self, function: Callable[[InT], Any]) -> Callable[[InT], Any]:
        """Make a function, async or not, the implementation of this activity.

        Raises:
            DefinitionError: its annotations differ from the contract's types.
        """
        return self._define(function)


class EmptyActivity(_ActivityCalls[OutT]):
    """An activity whose input is google.protobuf.Empty; otherwise like `Activity`."""

    async def __call__(self, **options: Unpack[ActivityOptions]) -> OutT:
        """Run the activity, and return its result."""
        return await self._result(self._start(None, options))

    def start(self, **options: Unpack[ActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity, and return an asyncio task with its result."""
        return self._start(None, options)

    async def local(self, **options: Unpack[LocalActivityOptions]) -> OutT:
        """Run the activity in the workflow's own worker, and return its result."""
        return await self._result(self._start_local(None, options))

    def start_local(self, **options: Unpack[LocalActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Start the activity in the workflow's own worker."""
        return self._start_local(None, options)

    @overload
    def defn(self, function: Callable[[], Coroutine[Any, Any, OutT]]) -> Callable[[], Coroutine[Any, Any, OutT]]: ...
    @overload
    def defn(self, function: Callable[[], OutT]) -> Callable[[], OutT]: ...
    def defn(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Make a function, async or not, the implementation of this activity.

        Raises:
            DefinitionError: its annotations differ from the contract's types.
        """
        return self._define(function)


class ActivityBase(ABC):
    """Base of the generated activity classes, with one abstract method per activity of a service.

    A derived class implements them as sync or async methods. It cannot be instantiated if a method is missing.
    """

    __temporal_service__: ClassVar[ServiceContract]

    def __init_subclass__(cls, *, service: ServiceContract | None = None, **kwargs: Any) -> None:
        """Make the methods of a derived class activities.

        Raises:
            DefinitionError: a method's annotations differ from the contract's types.
        """
        super().__init_subclass__(**kwargs)
        if service is not None:
            cls.__temporal_service__ = service
            return
        errors = list[str]()
        for contract in cls.__temporal_service__.activities.values():
            function = vars(cls).get(contract.handler)
            if inspect.isfunction(function) and not hasattr(function, CONTRACT):
                errors += signature_errors(function, contract.input_type, contract.output_type, method=True)
                if not errors:
                    setattr(cls, contract.handler, define(contract, function))
        if errors:
            raise DefinitionError(cls.__qualname__, errors)

    def activities(self) -> list[Callable[..., Any]]:
        """Return all activities of this object for a Temporal worker; a single one is its bound method."""
        return [getattr(self, contract.handler) for contract in self.__temporal_service__.activities.values()]


def define(contract: ActivityContract, function: _FunctionT) -> _FunctionT:
    """Make a function an activity, for the SDK and for `contract_of`."""
    if contract.input_type is None:
        function = cast("_FunctionT", _without_input(function))
    setattr(function, CONTRACT, contract)
    return activity.defn(name=contract.name)(function)


def _without_input(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, wrapped to ignore the Empty message or null that callers in other languages may send.

    Workflows and their handlers do this themselves; the SDK passes everything to an activity.
    """
    # None for a function, `self` for a method.
    wanted = len(inspect.signature(function).parameters)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*arguments: Any) -> Any:
            return await function(*arguments[:wanted])

        return run_async

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        return function(*arguments[:wanted])

    return run


def task_queue_for(contract: Any) -> str | None:
    """Return the task queue of a call from a workflow; None for the workflow's own.

    Within a service, calls use the workflow's queue, even if it was started on another one.
    """
    if contract.own_task_queue:
        return cast("str", contract.task_queue)
    caller = getattr(workflow.instance(), CONTRACT, None) if workflow.in_workflow() else None
    if caller is not None and caller.service.full_name == contract.service.full_name:
        return None
    return cast("str | None", contract.task_queue)


def _defaults(contract: ActivityContract, names: tuple[str, ...]) -> dict[str, Any]:
    defaults: dict[str, Any] = {name: value for name in names if (value := getattr(contract, name)) is not None}
    if contract.wait_for_cancellation:
        defaults["cancellation_type"] = workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
    return defaults
