# pyright: basic, reportMissingImports=false
"""The desk: a module whose tasks do as they are told."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import final

from desk_gen.acme.desk.v1 import (
    ChainRequest,
    ChainResponse,
    Link,
    Mode,
    NamedRequest,
    NoteRequest,
    PatientRequest,
    Progress,
    RecallRequest,
    RecallResponse,
    RenameRequest,
    RenameResponse,
    WorkRequest,
    WorkResponse,
    desk_temporal,
)
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from contextunity.worker.modules.registry import ModuleConfig


@desk_temporal.step.defn
def step(request: WorkRequest) -> WorkResponse:
    if request.mode is Mode.RETRY:
        time.sleep(request.ratio)
        raise ApplicationError("not yet", type="NotYet", next_retry_delay=timedelta(hours=1))
    raise ApplicationError(f"the step of {request.name} broke", type="StepBroke")


@final
class Work(desk_temporal.WorkWorkflowBase):
    @workflow.init
    def __init__(self, request: WorkRequest) -> None:
        self.name = request.name
        self.notes: list[str] = []
        self.finished = False

    async def run(self, request: WorkRequest) -> WorkResponse:
        match request.mode:
            case Mode.FAIL:
                raise ApplicationError(f"{request.name} cannot be done", type="CannotBeDone", non_retryable=True)
            case Mode.FAIL_ACTIVITY | Mode.RETRY:
                return await desk_temporal.step(request)
            case Mode.HOP if request.hops > 0:
                request.hops -= 1
                desk_temporal.work_workflow.continue_as_new(request)
            case Mode.WAIT | Mode.HOP:
                await workflow.wait_condition(lambda: self.finished)
            case _:
                pass
        return WorkResponse(text=f"{self.name} for {request.tenant_id}", notes=self.notes, big=request.big)

    def get_progress(self) -> Progress:
        return Progress(noted=len(self.notes), name=self.name)

    def recall(self, request: RecallRequest) -> RecallResponse:
        return RecallResponse(text=self.notes[request.index])

    def note(self, request: NoteRequest) -> None:
        self.notes.append(request.text)

    def finish(self) -> None:
        self.finished = True

    def rename(self, request: RenameRequest) -> RenameResponse:
        before, self.name = self.name, request.name
        return RenameResponse(before=before)

    def validate_rename(self, request: RenameRequest) -> None:
        if not request.name:
            raise ApplicationError("a task needs a name", type="NameMissing")


@final
class Join(desk_temporal.JoinWorkflowBase):
    def __init__(self) -> None:
        self.finished = False

    async def run(self, request: NamedRequest) -> WorkResponse:
        if request.name == "broken":
            raise KeyError("a slip in the code")
        await workflow.wait_condition(lambda: self.finished)
        return WorkResponse(text=request.name)

    def finish(self) -> None:
        self.finished = True


@final
class Single(desk_temporal.SingleWorkflowBase):
    def __init__(self) -> None:
        self.finished = False

    async def run(self, request: NamedRequest) -> WorkResponse:
        await workflow.wait_condition(lambda: self.finished)
        return WorkResponse(text=request.name)

    def finish(self) -> None:
        self.finished = True


@final
class Once(desk_temporal.OnceWorkflowBase):
    def __init__(self) -> None:
        self.finished = False

    async def run(self, request: NamedRequest) -> WorkResponse:
        await workflow.wait_condition(lambda: self.finished)
        return WorkResponse(text=request.name)

    def finish(self) -> None:
        self.finished = True


@final
class Replace(desk_temporal.ReplaceWorkflowBase):
    def __init__(self) -> None:
        self.finished = False

    async def run(self, request: NamedRequest) -> WorkResponse:
        await workflow.wait_condition(lambda: self.finished)
        return WorkResponse(text=request.name)

    def finish(self) -> None:
        self.finished = True


@final
class Ping(desk_temporal.PingWorkflowBase):
    async def run(self) -> None:
        return None


@final
class Idle(desk_temporal.IdleWorkflowBase):
    async def run(self, request: NamedRequest) -> WorkResponse:
        return WorkResponse(text=request.name)


def _known(request: ChainRequest) -> ChainResponse:
    return ChainResponse(
        told=request.told.name if request.told is not None else "",
        steps=request.steps,
        links=[each.from_ for each in [*request.links, *request.by_name.values()]],
    )


@final
class Chain(desk_temporal.ChainWorkflowBase):
    @workflow.init
    def __init__(self, request: ChainRequest) -> None:
        self.at_first = _known(request)

    async def run(self, request: ChainRequest) -> ChainResponse:
        if request.then == "hop":
            desk_temporal.chain_workflow.continue_as_new(
                ChainRequest(told=Link(name="the run before"), steps=1, links=[Link(from_="the run before")])
            )
        if request.then == "child":
            return await desk_temporal.hidden_workflow.execute_child(ChainRequest(told=Link(name="the parent")))
        if request.then == "retry" and workflow.info().attempt == 1:
            raise ApplicationError("once more", type="OnceMore")
        if request.then == "wait":
            await workflow.wait_condition(lambda: False)
        assert self.at_first == _known(request)
        return self.at_first

    def peek(self, request: Link) -> ChainResponse:
        return ChainResponse(told=request.from_)

    def push(self, request: Link) -> None:
        pass

    def nudge(self) -> None:
        pass

    def change(self, request: Link) -> ChainResponse:
        return ChainResponse(told=request.from_)


@final
class Hidden(desk_temporal.HiddenWorkflowBase):
    async def run(self, request: ChainRequest) -> ChainResponse:
        return _known(request)


@final
class Bounded(desk_temporal.BoundedWorkflowBase):
    async def run(self) -> None:
        return None


@final
class Patient(desk_temporal.PatientWorkflowBase):
    async def run(self, request: PatientRequest) -> None:
        return None


module = ModuleConfig(
    name="desk",
    workflows=[Work, Join, Single, Once, Replace, Ping],
    activities=[step],
    description="for tests",
    statuses={"StepBroke": "ALREADY_EXISTS"},
)
sealed = ModuleConfig(name="sealed", workflows=[Chain, Hidden])
away = ModuleConfig(name="away", workflows=[Idle, Bounded, Patient])
