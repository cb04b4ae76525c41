"""Serves Connect's conformance service by the calls of the HTTP listener: `python connect_testee.py FOLDER`.

The runner tells by the standard input what to serve, and is told where. FOLDER has the generated messages.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import uvicorn
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from contextunity.core import codec
from contextunity.worker.auth import Access, Subject
from contextunity.worker.grpc_errors import ServiceError
from contextunity.worker.http.calls import Calls
from contextunity.worker.http.listener import Server, listen
from contextunity.worker.service import ContractMethod
from python_temporal.contract import MethodContract

sys.path.insert(0, sys.argv[1])
messages: Any = __import__("connect_tree.connectrpc.conformance.v1", fromlist=["UnaryRequest"])

_SERVICE = "connectrpc.conformance.v1.ConformanceService"


def _method(name: str, *, is_stream: bool = False) -> Any:
    contract = MethodContract(
        name=name,
        method=f"{_SERVICE}.{name}",
        input_type=getattr(messages, f"{name}Request"),
        output_type=getattr(messages, f"{name}Response"),
    )
    return ContractMethod(
        name=f"{_SERVICE}/{name}",
        permissions=(),
        access=Access.READ,
        subject=Subject.TASKS,
        contract=contract,
        serve=_unary,
        takes=frozenset(),
        watch=cast("Any", _stream) if is_stream else None,
    )


class _Admission:
    """Lets everybody in, to handlers that do as the runner says."""

    called_at = float("-inf")

    def __init__(self) -> None:
        made = (_method("Unary"), _method("ServerStream", is_stream=True), _method("Unimplemented"))
        self.methods = {f"/{method.name}": method for method in made}

    def admit(self, details: Any) -> Any:
        if details.method.endswith("/Unimplemented"):
            return SimpleNamespace(stream_unary=_unimplemented, stream_stream=None)
        if details.method.endswith("/ServerStream"):
            return SimpleNamespace(stream_unary=None, stream_stream=_stream)
        return SimpleNamespace(stream_unary=_unary, stream_stream=None)


async def _read(exchange: Any) -> Any:
    try:
        return await exchange.read()
    except ServiceError as error:
        # As admission does, but for the details of ours, of which the runner knows nothing.
        await _abort(exchange, messages.Error(code=messages.Code(error.code.value[0]), message=error.message))


async def _unimplemented(_requests: Any, exchange: Any) -> bytes:
    await _read(exchange)
    return await _abort(exchange, messages.Error(code=messages.Code.UNIMPLEMENTED, message="it is not there"))


async def _unary(_requests: Any, exchange: Any) -> bytes:
    request = codec.decode(messages.UnaryRequest, await _read(exchange))
    wanted = request.response_definition
    info = _info(exchange, request)
    if wanted is None:
        return codec.encode(messages.UnaryResponse(payload=messages.ConformancePayload(request_info=info)))
    await _add_metadata(exchange, wanted)
    await asyncio.sleep(wanted.response_delay_ms / 1000)
    if wanted.error is not None:
        wanted.error.details.append(codec.pack_any(info))
        await _abort(exchange, wanted.error)
    payload = messages.ConformancePayload(data=wanted.response_data or b"", request_info=info)
    return codec.encode(messages.UnaryResponse(payload=payload))


async def _stream(_requests: Any, exchange: Any) -> AsyncIterator[bytes]:
    request = codec.decode(messages.ServerStreamRequest, await _read(exchange))
    wanted = request.response_definition
    if wanted is None:
        return
    info = _info(exchange, request)
    await _add_metadata(exchange, wanted)
    for number, data in enumerate(wanted.response_data):
        await asyncio.sleep(wanted.response_delay_ms / 1000)
        payload = messages.ConformancePayload(data=data, request_info=None if number else info)
        yield codec.encode(messages.ServerStreamResponse(payload=payload))
    if wanted.error is not None:
        if not wanted.response_data:
            wanted.error.details.append(codec.pack_any(info))
        await _abort(exchange, wanted.error)


def _info(exchange: Any, request: Any) -> Any:
    headers = dict[str, list[str]]()
    for key, value in exchange.invocation_metadata():
        headers.setdefault(key, []).append(value)
    remaining = exchange.time_remaining()
    return messages.ConformancePayloadRequestInfo(
        request_headers=[messages.Header(name=key, value=values) for key, values in headers.items()],
        timeout_ms=None if remaining is None else round(remaining * 1000),
        requests=[codec.pack_any(request)],
    )


async def _add_metadata(exchange: Any, wanted: Any) -> None:
    for headers, keep in ((wanted.response_headers, None), (wanted.response_trailers, exchange.set_trailing_metadata)):
        entries = tuple((each.name, _value(each.name, value)) for each in headers for value in each.value)
        if keep is None:
            await exchange.send_initial_metadata(entries)
        else:
            keep(entries)


def _value(name: str, text: str) -> str | bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4)) if name.lower().endswith("-bin") else text


async def _abort(exchange: Any, error: Any) -> Any:
    details = [any_pb2.Any(type_url=each.type_url, value=each.value) for each in error.details]
    status = status_pb2.Status(code=int(error.code), message=error.message or "", details=details)
    await exchange.abort_with_status(rpc_status.to_status(status))


async def _main() -> None:
    (size,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    wanted = codec.decode(messages.ServerCompatRequest, sys.stdin.buffer.read(size))
    admission: Any = _Admission()
    app: Any = Calls(admission, wanted.message_receive_limit or 2**30, 100_000)
    listening = listen("127.0.0.1", 0)
    server = Server(uvicorn.Config(app, lifespan="off", ws="none", log_level="critical"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    await server.ready.wait()
    port = listening.getsockname()[1]
    answer = codec.encode(messages.ServerCompatResponse(host="127.0.0.1", port=port))
    sys.stdout.buffer.write(struct.pack(">I", len(answer)) + answer)
    sys.stdout.buffer.flush()
    await serving


if __name__ == "__main__":
    assert Path(sys.argv[1]).is_dir()
    asyncio.run(_main())
