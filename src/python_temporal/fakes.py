"""Typed fakes of activities, to test a workflow alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar, overload

from temporalio.exceptions import ApplicationError

from .activities import Activity, EmptyActivity, define
from .contract import ActivityContract, ServiceContract

__all__ = ["ActivityFakes"]

InT = TypeVar("InT")
OutT = TypeVar("OutT")


class ActivityFakes:
    """Fake results of activities, and a record of their calls.

    Type checkers compare each result with the activity's types. An activity without a fake result fails, without
    retries, with an error that says so.

    Example:
        fakes = ActivityFakes()
        fakes.returns(harvest.transform_data, TransformDataResponse(products=3))
        fakes.replaces(harvest.fetch_products, lambda request: FetchProductsResponse(fetched=request.page_size))
    """

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self._requests: dict[str, list[Any]] = {}

    def returns(self, activity: Activity[Any, OutT] | EmptyActivity[OutT], *results: OutT) -> None:
        """Return one result after the other; the last one is repeated."""
        if not results:
            raise ValueError(f"{activity!r} needs a result to return")
        pending = list(results)

        def answer(*_request: object) -> OutT:
            return pending.pop(0) if len(pending) > 1 else pending[0]

        self._functions[activity.contract.method] = answer

    def fails(self, activity: Activity[Any, Any] | EmptyActivity[Any], error: BaseException) -> None:
        """Fail with an error; an ApplicationError keeps its type, and is retried unless it is non-retryable."""

        def answer(*_request: object) -> Any:
            raise error

        self._functions[activity.contract.method] = answer

    @overload
    def replaces(self, activity: Activity[InT, OutT], function: Callable[[InT], Coroutine[Any, Any, OutT]]) -> None: ...
    @overload
    def replaces(self, activity: Activity[InT, OutT], function: Callable[[InT], OutT]) -> None: ...
    @overload
    def replaces(self, activity: EmptyActivity[OutT], function: Callable[[], Coroutine[Any, Any, OutT]]) -> None: ...
    @overload
    def replaces(self, activity: EmptyActivity[OutT], function: Callable[[], OutT]) -> None: ...
    def replaces(self, activity: Activity[Any, Any] | EmptyActivity[Any], function: Callable[..., Any]) -> None:
        """Return the result of a function, async or not, of the request."""
        self._functions[activity.contract.method] = function

    def requests(self, activity: Activity[InT, Any]) -> list[InT]:
        """Return the requests of an activity so far, one per attempt, in order."""
        return list(self._requests.get(activity.contract.method, ()))

    def count(self, activity: Activity[Any, Any] | EmptyActivity[Any]) -> int:
        """Return the number of attempts of an activity."""
        return len(self._requests.get(activity.contract.method, ()))

    def activities(
        self, services: Iterable[ServiceContract], *, besides: Iterable[Callable[..., Any]] = ()
    ) -> list[Callable[..., Any]]:
        """Return activities for a Temporal worker.

        Args:
            services: services whose activities to fake.
            besides: real activities to use instead of fakes.
        """
        real = list(besides)
        methods = {getattr(each, "__temporal_contract__").method for each in real}  # noqa: B009  # set at run time
        contracts = [contract for service in services for contract in service.activities.values()]
        return [*real, *(self._activity(contract) for contract in contracts if contract.method not in methods)]

    def _activity(self, contract: ActivityContract) -> Callable[..., Any]:
        async def fake(*request: Any) -> Any:
            self._requests.setdefault(contract.method, []).append(request[0] if request else None)
            function = self._functions.get(contract.method)
            if function is None:
                raise ApplicationError(
                    f"activity {contract.name!r} was given no answer; use returns, replaces or fails of the fakes",
                    type="NoFake",
                    non_retryable=True,
                )
            result = function(*request)
            return await result if inspect.isawaitable(result) else result

        return define(contract, _shaped(contract, fake))


def _shaped(contract: ActivityContract, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function with the contract's parameter and types, by which the SDK decodes."""
    if contract.input_type is None:

        async def shaped_without_input() -> Any:
            return await function()

        shaped: Callable[..., Any] = shaped_without_input
        shaped.__annotations__ = {}
    else:

        async def shaped_with_input(request: Any) -> Any:
            return await function(request)

        shaped = shaped_with_input
        shaped.__annotations__ = {"request": contract.input_type}
    shaped.__annotations__["return"] = contract.output_type or type(None)
    return shaped
