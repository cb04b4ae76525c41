"""Activities: the typed calls that workflows make, and the two ways to implement them, as functions or on an object."""

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
    """What activities with and without an input have in common."""

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
        # Logged, because a warning that somebody turns into an error would fail the workflow task again and again.
        if self.contract.deprecated:
            workflow.logger.warning("activity %r is deprecated", self.contract.name)


class Activity(_ActivityCalls[OutT], Generic[InT, OutT]):
    """An activity with an input: calls for workflows, and the decorator for functions that implement it.

    Options of a call that are left out have the contract's value, else the SDK's. Unless it names a task queue of its
    own, an activity runs on its service's; called by a workflow of the same service, on that workflow's.
    """

    async def __call__(self, request: InT, **options: Unpack[ActivityOptions]) -> OutT:
        """Runs the activity and waits for its result."""
        return await self._result(self._start(request, options))

    def start(self, request: InT, **options: Unpack[ActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Starts the activity; the handle is an asyncio task that ends with the result."""
        return self._start(request, options)

    async def local(self, request: InT, **options: Unpack[LocalActivityOptions]) -> OutT:
        """Runs the activity within the workflow's own worker and waits for its result."""
        return await self._result(self._start_local(request, options))

    def start_local(self, request: InT, **options: Unpack[LocalActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Starts the activity within the workflow's own worker."""
        return self._start_local(request, options)

    @overload
    def defn(
        self, function: Callable[[InT], Coroutine[Any, Any, OutT]]
    ) -> Callable[[InT], Coroutine[Any, Any, OutT]]: ...
    @overload
    def defn(self, function: Callable[[InT], OutT]) -> Callable[[InT], OutT]: ...
    def defn(self, function: Callable[[InT], Any]) -> Callable[[InT], Any]:
        """Makes a function, async or not, the implementation of this activity.

        Raises:
            DefinitionError: its annotations are not the contract's types.
        """
        return self._define(function)


class EmptyActivity(_ActivityCalls[OutT]):
    """An activity whose input is google.protobuf.Empty; otherwise as `Activity`."""

    async def __call__(self, **options: Unpack[ActivityOptions]) -> OutT:
        """Runs the activity and waits for its result."""
        return await self._result(self._start(None, options))

    def start(self, **options: Unpack[ActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Starts the activity; the handle is an asyncio task that ends with the result."""
        return self._start(None, options)

    async def local(self, **options: Unpack[LocalActivityOptions]) -> OutT:
        """Runs the activity within the workflow's own worker and waits for its result."""
        return await self._result(self._start_local(None, options))

    def start_local(self, **options: Unpack[LocalActivityOptions]) -> workflow.ActivityHandle[OutT]:
        """Starts the activity within the workflow's own worker."""
        return self._start_local(None, options)

    @overload
    def defn(self, function: Callable[[], Coroutine[Any, Any, OutT]]) -> Callable[[], Coroutine[Any, Any, OutT]]: ...
    @overload
    def defn(self, function: Callable[[], OutT]) -> Callable[[], OutT]: ...
    def defn(self, function: Callable[[], Any]) -> Callable[[], Any]:
        """Makes a function, async or not, the implementation of this activity.

        Raises:
            DefinitionError: its annotations are not the contract's types.
        """
        return self._define(function)


class ActivityBase(ABC):
    """Base of the generated activity classes: one abstract method for each activity of a service.

    A derived class implements them as sync or async methods. One that lacks a method cannot be made an object of.
    """

    __temporal_service__: ClassVar[ServiceContract]

    def __init_subclass__(cls, *, service: ServiceContract | None = None, **kwargs: Any) -> None:
        """Makes the methods of a derived class activities.

        Raises:
            DefinitionError: a method's annotations are not the contract's types.
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
        """All activities of this object, to give to a Temporal worker; a single one is its bound method."""
        return [getattr(self, contract.handler) for contract in self.__temporal_service__.activities.values()]


def define(contract: ActivityContract, function: _FunctionT) -> _FunctionT:
    """Makes a function an activity, for the SDK and for `contract_of`."""
    if contract.input_type is None:
        function = cast("_FunctionT", _without_input(function))
    setattr(function, CONTRACT, contract)
    return activity.defn(name=contract.name)(function)


def _without_input(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, made to pass over the Empty message or null that callers in other languages may send.

    Workflows and their handlers do so by themselves; the SDK gives an activity whatever was sent.
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
    """The task queue of a call from a workflow; None stays on the workflow's own.

    Within a service calls follow the workflow, so that one that was started on another queue keeps to it.
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
