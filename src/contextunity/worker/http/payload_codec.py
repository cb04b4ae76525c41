"""The codec endpoint, which Temporal's web UI and command line call to show payloads in clear text and to encode input.

Payloads are sent as JSON. Messages of the contracts become ProtoJSON, and ProtoJSON with a message name becomes bytes
again. A payload codec (encryption, compression) decodes before and encodes after that. Payloads of the payload storage
are fetched.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.client import Client
from temporalio.common import RawValue

from contextunity.core import codec
from contextunity.core.errors import CodecError

from ..grpc_errors import FieldViolation, ServiceError, invalid
from ..temporal.converter import LARGEST_STORED
from ..temporal.errors import PayloadKeyError, StoredPayloadError
from .admission import RequestAdmission, check_values

__all__ = ["codec_routes"]

_BINARY, _JSON = b"binary/protobuf", b"json/protobuf"
_AT_ONCE = 4
"""Requests processed at once; each needs some tens of megabytes at most."""


def codec_routes(client: Client, request_admission: RequestAdmission) -> list[Route]:
    """Return the routes `/codec/{namespace}/decode` and `/codec/{namespace}/encode`.

    Args:
        client: Temporal client with the data converter.
        request_admission: admits callers.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def convert(request: Request) -> Response:
        direction = request.path_params["direction"]
        try:
            await request_admission.admit(request, "worker:read" if direction == "decode" else "worker:execute")
            if request.path_params["namespace"] != client.namespace or direction not in ("decode", "encode"):
                return Response("there is no such codec", status_code=404)
            async with at_once:
                body = await request_admission.body(request)
                payloads = await asyncio.to_thread(_read, body, request_admission.max_values)
                made = await (_decode if direction == "decode" else _encode)(client, payloads)
                return JSONResponse({"payloads": [json_format.MessageToDict(each) for each in made]})
        except ServiceError as error:
            return request_admission.refusal(error)
        except PayloadKeyError as error:
            return request_admission.refusal(invalid(FieldViolation(field="payloads", description=str(error))))

    return [Route("/codec/{namespace}/{direction}", convert, methods=["POST"])]


def _read(body: bytes, most: int) -> list[Payload]:
    check_values(body, most)
    try:
        return list(json_format.ParseDict(json.loads(body), Payloads()).payloads)
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise invalid(FieldViolation(field="payloads", description=f"cannot be read: {error}")) from None


async def _decode(client: Client, payloads: Sequence[Payload]) -> Sequence[Payload]:
    made, fetched = list[Payload](), 0
    for each in payloads:
        if fetched > LARGEST_STORED:
            made.append(_note(f"not shown: the stored payloads before it have {fetched:,} bytes; ask for it alone"))
            continue
        try:
            # It is only fetched and decrypted.
            (raw,) = await client.data_converter.decode([each], [RawValue])
        except StoredPayloadError as error:
            # The other payloads of the page are shown.
            made.append(_note(f"not shown: {error}"))
            continue
        # Only what was fetched is larger than what came.
        fetched += max(0, raw.payload.ByteSize() - each.ByteSize())
        made.append(await asyncio.to_thread(_in_clear, raw.payload))
    return made


def _note(text: str) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(text).encode())


async def _encode(client: Client, payloads: Sequence[Payload]) -> Sequence[Payload]:
    made = [await asyncio.to_thread(_in_bytes, each) for each in payloads]
    if client.data_converter.payload_codec is not None:
        return await client.data_converter.payload_codec.encode(made)
    return made


def _in_clear(payload: Payload) -> Payload:
    """Return a message as ProtoJSON; other payloads, and messages of unknown types, unchanged."""
    if payload.metadata.get("encoding") != _BINARY:
        return payload
    try:
        message_class = codec.message_class(payload.metadata["messageType"].decode())
        text = codec.to_json(codec.decode(message_class, payload.data))
    except (CodecError, UnicodeDecodeError):
        return payload
    return _with(payload, _JSON, text.encode())


def _in_bytes(payload: Payload) -> Payload:
    """Return ProtoJSON that names its message as bytes."""
    name = payload.metadata.get("messageType", b"")
    if payload.metadata.get("encoding") != _JSON or not name:
        return payload
    try:
        message: Any = codec.from_json(codec.message_class(name.decode()), payload.data)
    except (CodecError, UnicodeDecodeError) as error:
        raise invalid(FieldViolation(field="payloads", description=str(error))) from None
    return _with(payload, _BINARY, codec.encode(message))


def _with(payload: Payload, encoding: bytes, data: bytes) -> Payload:
    made = Payload(data=data)
    made.metadata.update(payload.metadata)
    made.metadata["encoding"] = encoding
    return made
