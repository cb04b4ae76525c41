"""The OpenAPI 3.1 document of what is served over HTTP, made from the contracts and WorkerService."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from betterproto2_codec.plain_data import is_list, is_object
from contextunity.core import codec, worker_pb2
from python_temporal.contract import ActivityContract, WorkflowContract

from ..grpc_errors import ServiceError
from ..json_schema import message_schema
from ..service import ContractMethod, Method, WorkerService
from ..service.descriptors import comments_of_service
from ..service.inputs import filled_fields, named_fields
from .admission import RequestAdmission

__all__ = ["document", "openapi_routes"]

_Json: TypeAlias = dict[str, Any]
_WORKER = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
_SCHEMAS = "#/components/schemas/"
_KEYS = {
    "contextunity-workflow-id": "Which task is meant.",
    "contextunity-run-id": "Which of its runs; the newest unless given.",
    "contextunity-request-id": "The same call again with the same id gives the same run.",
    "contextunity-tenant": "For which tenant, where the message does not say so.",
    "contextunity-detach": "`true` has the call return after the start of the task.",
    "contextunity-on-cancel": "`cancel` has the task cancelled with the call.",
}
"""Headers of calls and their descriptions. See docs/contract-services.md."""
_CODES = (
    *("canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists"),
    *("permission_denied", "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented"),
    *("internal", "unavailable", "data_loss", "unauthenticated"),
)
_DETAIL: _Json = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "Full name of its message, such as google.rpc.BadRequest."},
        "value": {"type": "string", "description": "Its bytes, in base64 without padding."},
        "debug": {"description": "The same in JSON, for people."},
    },
    "required": ["type", "value"],
}
_ERROR: _Json = {
    "type": "object",
    "description": "An error of the Connect protocol; docs/errors.md lists the reasons in its details.",
    "properties": {
        "code": {"enum": list(_CODES)},
        "message": {"type": "string"},
        "details": {"type": "array", "items": _DETAIL},
    },
    "required": ["code"],
}


def openapi_routes(service: WorkerService, request_admission: RequestAdmission) -> list[Route]:
    """Return the route `/openapi.json`.

    Args:
        service: the service.
        request_admission: admits callers with the permission to read contracts.
    """
    made = list[_Json]()

    async def tell(request: Request) -> Response:
        try:
            await request_admission.admit(request, *service.methods["DescribeContracts"].permissions)
        except ServiceError as error:
            return request_admission.refusal(error)
        if not made:
            # This takes tens of milliseconds, so it runs in a thread.
            made.append(await asyncio.to_thread(document, service))
        return JSONResponse(made[0])

    return [Route("/openapi.json", tell)]


def document(service: WorkerService) -> _Json:
    """Return the document."""
    schemas = _Schemas()
    open_ones = {path: method for path, method in service.contracts.methods.items() if _is_open(method)}
    paths = {path: {"post": _operation(method, schemas)} for path, method in open_ones.items()}
    unit = worker_pb2.ContextUnit.DESCRIPTOR
    request, answer = schemas.add(unit, {}, "ContextUnit-request"), schemas.add(unit, {}, "", is_output=True)
    for name, method in service.methods.items():
        paths[f"/{_WORKER}/{name}"] = {"post": _unit_operation(method, request, answer)}
    tags = [{"name": name, "description": each.description} for name, each in service.contracts.services.items()]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ContextWorker",
            "version": version("contextworker"),
            "description": "Calls by the Connect protocol, with JSON: POST the input, and get the output.",
        },
        "security": [{}, {"token": []}],
        "tags": [*tags, {"name": _WORKER, "description": "All tasks, with one envelope."}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Error": _ERROR, **dict(sorted(schemas.found.items()))},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "parameters": {name: _parameter(name, text) for name, text in _KEYS.items()},
            "responses": {"Error": {"description": "What went wrong.", "content": _json({"$ref": f"{_SCHEMAS}Error"})}},
        },
    }


def _is_open(method: ContractMethod) -> bool:
    return not method.contract.internal and not isinstance(method.contract, ActivityContract)


def _operation(method: ContractMethod, schemas: _Schemas) -> _Json:
    contract = method.contract
    comments = comments_of_service(contract.service)
    fills, names = frozenset[str](), frozenset[str]()
    if isinstance(contract, WorkflowContract):
        fills, names = filled_fields(contract), named_fields(contract)
    request = schemas.add(_descriptor(contract.input_type), comments, f"{contract.method}-request", fills, names)
    answer = schemas.add(_descriptor(contract.output_type), comments, "", is_output=True)
    parameters = [{"$ref": f"#/components/parameters/{name}"} for name in sorted(method.takes)]
    return {
        "operationId": contract.method,
        "tags": [contract.service.full_name],
        **({"description": contract.description} if contract.description else {}),
        **({"deprecated": True} if contract.deprecated else {}),
        **({"parameters": parameters} if parameters else {}),
        "requestBody": {"required": True, "content": _json(request)},
        "responses": {
            "200": {"description": "The answer.", "content": _json(answer)},
            "default": {"$ref": "#/components/responses/Error"},
        },
    }


def _unit_operation(method: Method, request: _Json, answer: _Json) -> _Json:
    takes, gives, text = _json(request), _json(answer), "See worker.proto."
    if method.watch is not None:
        takes = gives = {"application/connect+json": _Json()}
        text = "Streams its answers, in the frames of the Connect protocol. See worker.proto."
    return {
        "operationId": f"{_WORKER}.{method.name}",
        "tags": [_WORKER],
        "description": text,
        "requestBody": {"required": True, "content": takes},
        "responses": {
            "200": {"description": "The answer.", "content": gives},
            "default": {"$ref": "#/components/responses/Error"},
        },
    }


def _json(schema: _Json) -> _Json:
    return {"application/json": {"schema": schema}}


def _parameter(name: str, text: str) -> _Json:
    made: _Json = {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}
    return {**made, "required": True} if name == "contextunity-workflow-id" else made


def _descriptor(message_class: type[Any] | None) -> Any:
    return None if message_class is None else codec.proto_class(message_class).DESCRIPTOR


class _Schemas:
    """JSON schemas of messages, as components that refer to each other."""

    def __init__(self) -> None:
        self.found = dict[str, _Json]()

    def add(
        self,
        message: Any,
        comments: Mapping[str, str],
        name: str,
        fills: frozenset[str] = frozenset(),
        names: frozenset[str] = frozenset(),
        *,
        is_output: bool = False,
    ) -> _Json:
        """Add the schemas of a message and of the messages in it; return a reference to it.

        Args:
            message: its descriptor; None for an empty message.
            comments: comments of the protos.
            name: name of the component; by default the message's name. A request has rules that a response has not, so
                they need different names.
            fills: fields that the service sets.
            names: fields that are part of the workflow id.
            is_output: whether it is a response.
        """
        if message is None:
            return {"type": "object", "additionalProperties": False}
        made = message_schema(message, comments, is_output=is_output, fills=fills, names=names)
        suffix = "-answer" if is_output else ""
        name = name or f"{message.full_name}{suffix}"
        made.pop("$schema")
        for each, schema in made.pop("$defs", {}).items():
            self.found[f"{each}{suffix}"] = _referring(schema, name, suffix)
        self.found[name] = _referring(made, name, suffix)
        return {"$ref": f"{_SCHEMAS}{name}"}


def _referring(value: Any, root: str, suffix: str) -> Any:
    """Return a schema with its references pointing to components."""
    if is_list(value):
        return [_referring(each, root, suffix) for each in value]
    if not is_object(value):
        return value
    made = {key: _referring(each, root, suffix) for key, each in value.items()}
    if isinstance(value.get("$ref"), str):
        made["$ref"] = _reference(value["$ref"], root, suffix)
    return made


def _reference(text: str, root: str, suffix: str) -> str:
    path = text.removeprefix("#/")
    if not path.startswith("$defs/"):
        return f"{_SCHEMAS}{root}/{path}"
    name, slash, rest = path.removeprefix("$defs/").partition("/")
    return f"{_SCHEMAS}{name}{suffix}{slash}{rest}"
