"""Units to send and answers to read: all that the sync and the async client have in common on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import betterproto2
import grpc
from contextunity.gen.contextunity import core as gen
from pydantic import ValidationError

from contextunity.core import ContextUnit, codec
from contextunity.core.errors import CodecError

from ._arguments import describe, plain_data, shown
from .errors import WorkerServiceError
from .methods import Method

A = TypeVar("A", bound=betterproto2.Message)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[A]):
    """What the service answered.

    Attributes:
        body: the typed answer.
        payload: the same as plain data: enum values as lower-case words, durations in seconds, messages as objects.
        unit: the envelope that both came in.
    """

    body: A
    payload: dict[str, Any]
    unit: ContextUnit


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Which chain of work a unit belongs to.

    Attributes:
        trace_id: of the chain; empty begins one.
        parent_unit_id: the unit that the next one follows from; empty for none.
    """

    trace_id: str = ""
    parent_unit_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent(Generic[A]):
    """A unit on its way; all attempts at it send the same bytes.

    Attributes:
        method: that it goes to.
        unit: the envelope.
        data: the envelope as bytes.
        target: where it goes.
    """

    method: Method[A]
    unit: ContextUnit
    data: bytes
    target: str

    def read(self, data: bytes) -> Answer[A]:
        """Reads an answer.

        Raises:
            WorkerServiceError: INTERNAL for an answer that no service of this contract gives.
        """
        try:
            unit = ContextUnit.from_dataclass(codec.decode(gen.ContextUnit, data))
            return Answer(body=_body(self.method.answer, unit.body), payload=cast("Any", unit.payload), unit=unit)
        except CodecError as error:
            raise WorkerServiceError(
                grpc.StatusCode.INTERNAL,
                f"the answer to {self.method.name} cannot be read: {error}; is the service older or newer than this?",
                trace_id=self.unit.trace_id,
                method=self.method.name,
                target=self.target,
            ) from error

    def failure(self, error: grpc.RpcError) -> WorkerServiceError:
        """The error of an attempt."""
        return WorkerServiceError.from_rpc_error(
            error, method=self.method.name, target=self.target, trace_id=self.unit.trace_id
        )


def send(
    method: Method[A],
    content: betterproto2.Message | None,
    *,
    target: str,
    payload: Mapping[str, Any] | None = None,
    unit_id: str = "",
    trace: Trace | None = None,
    provenance: Sequence[str] = (),
) -> Sent[A]:
    """Makes the unit of a request.

    Args:
        method: that it goes to.
        content: the typed body; None where the payload says it all.
        target: where it goes.
        payload: plain data.
        unit_id: UUID; a fresh one unless given. The same one again is the same request.
        trace: the chain of work that it belongs to.
        provenance: labels before the client's own.

    Raises:
        TypeError: the content is no generated message, or the payload no mapping.
        ValueError: an id is no UUID, or a value does not fit; the error names it.
    """
    if content is not None and not isinstance(cast("object", content), betterproto2.Message):
        raise TypeError(
            f"content of {method.name} is a generated message, not {shown(content)}; plain data goes into payload"
        )
    data = {} if payload is None else plain_data(payload, f"payload of {method.name} is a mapping by proto names")
    trace = trace or Trace()
    ids = {"unit_id": unit_id, "trace_id": trace.trace_id, "parent_unit_id": trace.parent_unit_id}
    fields = {
        **{name: value for name, value in ids.items() if value},
        "payload": data,
        "body": content,
        "provenance": [*provenance, method.label],
    }
    try:
        unit = ContextUnit.model_validate(fields)
    except ValidationError as error:
        raise ValueError(describe(error)) from None
    return Sent(method=method, unit=unit, data=codec.encode(unit.to_dataclass()), target=target)


def _body(cls: type[A], packed: Any | None) -> A:
    if packed is None:
        raise CodecError("it is missing", path="body")
    name = packed.type_url.rpartition("/")[2]
    if name != codec.full_name(cls):
        raise CodecError(f"expected a {codec.full_name(cls)}, got a {name}", path="body")
    return codec.decode(cls, packed.value)
