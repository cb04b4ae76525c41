"""When calls are made again, what they carry, and what becomes of answers that are none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import betterproto2
import grpc
import pytest
from contextunity.gen.contextunity.worker import GetTaskStatusRequest, TaskReference, TaskState, TaskStatus
from contextunity.gen.google.protobuf import Any as AnyMessage
from grpc_status import rpc_status

from contextunity.core import codec
from contextunity.core.errors import CodecError
from contextunity.worker.client import Retry, RetryPolicy, WorkerServiceError, methods
from contextunity.worker.grpc_errors import Reason, ServiceError, to_status

from .conftest import QUICK, Script, collect, packed, settle

_DONE = TaskStatus(workflow_id="w", status=TaskState.COMPLETED)
_ASK = GetTaskStatusRequest(workflow_id="w")


def _gives(message: Any) -> Callable[[Any], Any]:
    return lambda context: packed(message)


def _refuses(code: grpc.StatusCode, text: str = "no") -> Callable[[Any], Any]:
    return lambda context: context.abort(code, text)


def _refuses_as_the_service(reason: Reason) -> Callable[[Any], Any]:
    status = to_status(ServiceError(reason, "said by the service", metadata={"of": "use"}), "the trace")
    return lambda context: context.abort_with_status(rpc_status.to_status(status))


async def _never(context: Any) -> bytes:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


def _stream(*statuses: TaskStatus, then: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    async def messages(context: Any) -> AsyncIterator[bytes]:
        for status in statuses:
            yield packed(status)
        if then is not None:
            await then(context)

    return messages


def _running(token: str) -> TaskStatus:
    return TaskStatus(workflow_id="w", status=TaskState.RUNNING, resume_token=token)


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(_refuses(grpc.StatusCode.UNAVAILABLE), id="unavailable"),
        # As by a server that stops in the moment in which the call reaches it.
        pytest.param(_refuses(grpc.StatusCode.CANCELLED, "CANCELLED"), id="dropped"),
    ],
)
async def test_what_is_unavailable_is_sent_again_just_as_it_was(connect: Any, script: Script, refusal: Any) -> None:
    script.answers = [refusal, refusal, _gives(_DONE)]
    client = connect(script.target, retry=QUICK)
    assert (await settle(client.task("w").status())).status is TaskState.COMPLETED
    assert len(script.raw) == 3
    assert len(set(script.raw)) == 1


async def test_what_the_service_calls_cancelled_is_not_sent_again(connect: Any, script: Script) -> None:
    script.answers = [_refuses_as_the_service(Reason.TASK_CANCELLED)]
    with pytest.raises(WorkerServiceError, match="CANCELLED TASK_CANCELLED"):
        await settle(connect(script.target, retry=QUICK).task("w").status())
    assert len(script.raw) == 1


async def test_attempts_end(connect: Any, script: Script) -> None:
    script.answers = [_refuses(grpc.StatusCode.UNAVAILABLE, "gone for lunch")]
    with pytest.raises(WorkerServiceError, match="gone for lunch") as caught:
        await settle(connect(script.target, retry=QUICK).task("w").status())
    assert caught.value.unreachable
    assert len(script.raw) == QUICK.attempts


async def test_without_a_number_of_attempts_the_timeout_alone_ends_them(connect: Any, script: Script) -> None:
    script.answers = [*(_refuses(grpc.StatusCode.UNAVAILABLE) for _ in range(20)), _gives(_DONE)]
    retries = list[Retry]()
    policy = RetryPolicy(initial_delay=0.001, maximum_delay=0.002, on_retry=retries.append)
    client = connect(script.target, retry=policy)
    assert (await settle(client.task("w").status())).status is TaskState.COMPLETED
    assert [each.failures for each in retries] == list(range(1, 21))
    assert {(each.error.method, each.error.target) for each in retries} == {("GetTaskStatus", script.target)}
    assert all(0 < each.delay <= 0.002 for each in retries)


async def test_without_a_timeout_either_retries_end(connect: Any, script: Script) -> None:
    script.answers = [_refuses(grpc.StatusCode.UNAVAILABLE, "gone for lunch")]
    policy = RetryPolicy(initial_delay=0.001, maximum_delay=0.002, reconnect_for=0.05)
    with pytest.raises(WorkerServiceError, match="gone for lunch"):
        await settle(connect(script.target, retry=policy, timeout=None).task("w").status())


async def test_retries_are_logged_at_debug(connect: Any, script: Script, caplog: pytest.LogCaptureFixture) -> None:
    script.answers = [_refuses(grpc.StatusCode.UNAVAILABLE, "gone for lunch"), _gives(_DONE)]
    with caplog.at_level(logging.DEBUG, logger="contextunity.worker.client"):
        await settle(connect(script.target, retry=QUICK).task("w").status())
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(f"retry GetTaskStatus at {script.target} in 0.00 s: UNAVAILABLE")


async def test_a_method_can_be_named(connect: Any, script: Script) -> None:
    script.answers = [_gives(_DONE)]
    client = connect(script.target)
    answer = await settle(client.call("GetTaskStatus", payload={"workflow_id": "w"}))
    assert answer.body.status is TaskState.COMPLETED
    with pytest.raises(ValueError, match=r"no method 'GetStatus'; it has StartWorkflow, GetTaskStatus"):
        await settle(client.call("GetStatus"))


async def test_what_was_told_before_the_time_was_over_is_told(connect: Any, script: Script) -> None:
    script.answers = [
        _refuses(grpc.StatusCode.UNAVAILABLE, "gone for lunch"),
        _refuses(grpc.StatusCode.DEADLINE_EXCEEDED),
    ]
    with pytest.raises(WorkerServiceError, match="gone for lunch") as caught:
        await settle(connect(script.target, retry=QUICK).task("w").status())
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
async def test_other_failures_are_told_at_once(connect: Any, script: Script, code: grpc.StatusCode) -> None:
    script.answers = [_refuses(code)]
    with pytest.raises(WorkerServiceError) as caught:
        await settle(connect(script.target, retry=QUICK).task("w").status())
    assert caught.value.code is code
    assert len(script.raw) == 1


async def test_the_delay_that_the_service_asks_for_is_kept_or_the_call_given_up(connect: Any, script: Script) -> None:
    assert Reason.TEMPORAL_BUSY.retry_after == 2
    script.answers = [_refuses_as_the_service(Reason.TEMPORAL_BUSY)]
    with pytest.raises(WorkerServiceError) as caught:
        await settle(connect(script.target, retry=QUICK, timeout=1.5).task("w").status())
    error = caught.value
    assert (error.reason, error.message, error.retry_after) == ("TEMPORAL_BUSY", "said by the service", 2.0)
    assert (error.metadata, error.trace_id) == ({"of": "use"}, "the trace")
    assert len(script.raw) == 1, "two seconds do not fit into one and a half"


async def test_delays_grow_to_their_bound_and_heed_the_service() -> None:
    policy = RetryPolicy(initial_delay=1.0, maximum_delay=8.0)
    plain = WorkerServiceError(grpc.StatusCode.UNAVAILABLE, "no")
    asked = WorkerServiceError(grpc.StatusCode.UNAVAILABLE, "no", retry_after=30.0)
    for failures, longest in ((1, 1.0), (2, 2.0), (4, 8.0), (9, 8.0), (10_000, 8.0)):
        assert longest / 2 <= policy.delay(failures, plain) <= longest
        assert policy.delay(failures, asked) == 30.0


async def test_a_deadline_is_kept(connect: Any, script: Script) -> None:
    script.answers = [_never]
    client = connect(script.target, retry=QUICK, timeout=0.2)
    with pytest.raises(WorkerServiceError, match="GetTaskStatus was not answered in time") as caught:
        await settle(client.task("w").status())
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert caught.value.unreachable
    with pytest.raises(WorkerServiceError, match="not answered in time"):
        await settle(client.call(methods.GET_TASK_STATUS, _ASK, timeout=0.1))


async def test_nobody_there_is_told_in_plain_words(connect: Any) -> None:
    with pytest.raises(WorkerServiceError, match=r"no WorkerService can be reached at 127.0.0.1:1 \(.*refused"):
        await settle(connect("127.0.0.1:1", retry=QUICK).task("w").status())


async def test_a_service_without_the_method_is_told(connect: Any, script: Script) -> None:
    script.answers = [_refuses(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")]
    with pytest.raises(WorkerServiceError, match="has no method ListTasks: it is not a WorkerService, or an older one"):
        await collect(connect(script.target).list_tasks())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda context: b"\xff\xff", "not the bytes of this message"),
        (lambda context: b"", "body: it is missing"),
        (_gives(TaskReference(workflow_id="w")), "expected a contextunity.worker.TaskStatus, got a"),
    ],
    ids=["bytes", "nothing", "another"],
)
async def test_answers_that_are_none_are_told(connect: Any, script: Script, answer: Any, reason: str) -> None:
    async def later(context: Any) -> bytes:
        return answer(context)  # type: ignore[no-any-return]  # as scripted

    script.answers = [later]
    with pytest.raises(WorkerServiceError, match=f"the answer to GetTaskStatus cannot be decoded: .*{reason}"):
        await settle(connect(script.target).task("w").status())


async def test_the_token_is_shown_and_asked_for_each_time(connect: Any, script: Script) -> None:
    script.answers = [_gives(_DONE)]
    await settle(connect(script.target, token="one").task("w").status())
    tokens = iter(("two", "three"))
    renewing = connect(script.target, token=lambda: next(tokens))
    await settle(renewing.task("w").status())
    await settle(renewing.task("w").status())
    await settle(connect(script.target).task("w").status())
    shown = [metadata.get("authorization") for metadata in script.metadata]
    assert shown == ["Bearer one", "Bearer two", "Bearer three", None]


async def test_units_say_where_they_come_from(connect: Any, script: Script) -> None:
    script.answers = [_gives(_DONE)]
    trace_id = "8f14e45f-ceea-467f-a9c3-2d2b4b2b0c7d"
    client = connect(script.target, trace_id=trace_id, provenance=["shop:checkout"], tenant_id="acme")
    await settle(client.task("w").status())
    (unit,) = script.units
    assert unit.trace_id == trace_id
    assert unit.provenance == ["shop:checkout", "client:get_task_status"]
    assert unit.body is not None
    assert codec.unpack_any(unit.body) == GetTaskStatusRequest(workflow_id="w", tenant_id="acme")


@pytest.mark.parametrize(
    "end",
    [
        None,
        lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "moving"),
        lambda context: context.abort(grpc.StatusCode.CANCELLED, "stopping"),
    ],
    ids=["ends", "unavailable", "cancelled"],
)
async def test_a_watch_that_breaks_goes_on_where_it_was(connect: Any, script: Script, end: Any) -> None:
    script.answers = [
        _stream(_running("1"), _running("2"), then=end),
        _refuses_stream(grpc.StatusCode.UNAVAILABLE),
        _stream(_running("3"), _DONE),
    ]
    answers = await collect(connect(script.target, retry=QUICK).task("w").watch())
    assert [answer.body.resume_token for answer in answers] == ["1", "2", "3", ""]
    asked = [codec.unpack_any(unit.body) for unit in script.units if unit.body is not None]
    assert [request.after for request in asked] == ["", "2", "2"]  # type: ignore[attr-defined]  # WatchTaskRequest


def _refuses_stream(code: grpc.StatusCode) -> Callable[[Any], Any]:
    return _stream(then=lambda context: context.abort(code, "no"))


async def test_a_watch_that_never_began_is_given_up_like_a_call(connect: Any, script: Script) -> None:
    script.answers = [_refuses_stream(grpc.StatusCode.UNAVAILABLE)]
    with pytest.raises(WorkerServiceError):
        await collect(connect(script.target, retry=QUICK).watch("w"))
    assert len(script.raw) == QUICK.attempts


async def test_a_watch_that_stays_broken_is_given_up_in_time(connect: Any, script: Script) -> None:
    script.answers = [_stream(_running("1")), _refuses_stream(grpc.StatusCode.UNAVAILABLE)]
    policy = RetryPolicy(initial_delay=0.001, maximum_delay=0.002, reconnect_for=0.05)
    with pytest.raises(WorkerServiceError) as caught:
        await collect(connect(script.target, retry=policy).watch("w"))
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


async def test_a_watch_keeps_its_deadline(connect: Any, script: Script) -> None:
    script.answers = [_stream(_running("1"), then=_never)]
    task = connect(script.target, retry=QUICK).task("w")
    with pytest.raises(WorkerServiceError, match=r"task w had not ended within 0\.2 s") as caught:
        await collect(task.watch(timeout=0.2))
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(WorkerServiceError, match=r"task w had not ended within 0\.2 s"):
        await settle(task.result(timeout=0.2))


async def test_where_nothing_was_told_of_the_task_in_time_it_is_the_service_that_is_slow(
    connect: Any, script: Script
) -> None:
    script.answers = [_stream(then=_never)]
    with pytest.raises(WorkerServiceError, match="WatchTask was not answered in time"):
        await settle(connect(script.target, retry=QUICK).task("w").result(timeout=0.2))


async def test_who_stops_watching_tells_the_service(connect: Any, script: Script) -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def until_gone(context: Any) -> None:
        context.add_done_callback(lambda _: loop.call_soon_threadsafe(gone.set))
        await _never(context)

    script.answers = [_stream(_running("1"), then=until_gone)]
    watching = connect(script.target).task("w").watch()
    if hasattr(watching, "__anext__"):
        await watching.__anext__()
        await watching.aclose()
    else:
        next(watching)
        watching.close()
    await asyncio.wait_for(gone.wait(), 30)


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(
            AnyMessage(type_url="type.googleapis.com/acme.later.v1.Progress", value=b"\x08\x01"), id="unknown"
        ),
        pytest.param(
            AnyMessage(type_url="type.googleapis.com/contextunity.worker.TaskStatus", value=b"\xff"), id="broken"
        ),
        pytest.param(AnyMessage(type_url="", value=b""), id="empty"),
        pytest.param(codec.pack_any(codec.pack_any(_ASK)), id="packed twice"),
    ],
)
async def test_what_nobody_here_can_read_stays_packed(connect: Any, script: Script, kept: AnyMessage) -> None:
    script.answers = [_gives(TaskStatus(workflow_id="w", status=TaskState.RUNNING, progress=kept))]
    status = await settle(connect(script.target).task("w").status())
    assert status.progress == kept
    done = TaskStatus(workflow_id="w", status=TaskState.COMPLETED, result=kept)
    script.answers = [_stream(done)]
    task = connect(script.target).task("w")
    assert await settle(task.result()) is None
    with pytest.raises(CodecError):
        await settle(task.result(TaskReference))


async def test_a_result_is_given_in_the_class_that_is_asked_for(connect: Any, script: Script) -> None:
    script.answers = [_stream(TaskStatus(workflow_id="w", status=TaskState.COMPLETED, result=codec.pack_any(_ASK)))]
    task = connect(script.target).task("w")
    for wanted in (GetTaskStatusRequest, betterproto2.Message):
        assert await settle(task.result(wanted)) == _ASK
    with pytest.raises(CodecError, match=r"it is a contextunity\.worker\.GetTaskStatusRequest, not a"):
        await settle(task.result(TaskReference))
