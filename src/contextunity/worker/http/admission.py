"""Authenticate requests that are not calls (the API document, the codec endpoint) before a byte of the body is read."""

from __future__ import annotations

import asyncio
import base64
import re

import grpc
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from ..auth import Authenticator, identify, refusal_of
from ..errors import AuthenticationError
from ..grpc_errors import Reason, ServiceError, to_status
from ..settings import Settings

__all__ = ["RequestAdmission", "check_values"]

_MOST = 16 * 1024 * 1024
"""Maximum bytes of a body. Temporal keeps payloads up to 2 MiB, and its UI sends those of one page of a history."""

_STATUS = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""As in Connect."""


_SMALLEST = 2
"""Minimum bytes of a JSON value, including its separator."""
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def check_values(data: bytes, most: int) -> None:
    """Reject JSON with too many values, including objects and lists, before decoding: each takes up to a kilobyte.

    Raises:
        ServiceError: there are more than `max_values`.
    """
    if len(data) <= _SMALLEST * most:
        return
    # Outside of strings, each value of an object or list except the first follows a comma.
    bare = _TEXTS.sub(b"", data)
    if sum(map(bare.count, (b",", b"{", b"["))) > most:
        text = f"the JSON holds more than {most:,} values, objects and lists included, and the service takes no more"
        raise ServiceError(
            Reason.UNIT_TOO_LARGE, f"{text} (CONTEXTWORKER_MAX_PAYLOAD_VALUES); hand over where they lie instead"
        )


class RequestAdmission:
    """Authenticates requests and reads their bodies.

    Args:
        authenticator: authenticates callers.
        settings: settings of the process.
    """

    def __init__(self, authenticator: Authenticator, settings: Settings) -> None:
        self._authenticator, self._seconds = authenticator, settings.body_timeout
        self.max_values = settings.max_payload_values
        """Maximum number of values in JSON."""

    async def admit(self, request: Request, *permissions: str) -> None:
        """Reject callers without a valid token, or without any of the permissions.

        Raises:
            ServiceError: the caller is not authenticated or lacks the permission.
        """
        headers = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in request.headers.raw]
        try:
            caller = await identify(self._authenticator, headers)
        except AuthenticationError as error:
            raise refusal_of(error) from None
        if not caller.may(*permissions):
            text = f"{request.url.path} needs a token with the permission {' or '.join(permissions)}"
            raise ServiceError(Reason.PERMISSION_MISSING, text, metadata={"permissions": ",".join(permissions)})

    async def body(self, request: Request) -> bytes:
        """Return the body.

        Raises:
            ServiceError: it is too large, or did not arrive in time.
        """
        parts = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for part in request.stream():
                    parts += part
                    if len(parts) > _MOST:
                        text = f"the body has more than {_MOST:,} bytes"
                        raise ServiceError(Reason.UNIT_TOO_LARGE, text)
        except TimeoutError:
            text = f"the body was not complete {self._seconds:g} s after its headers; send it at once"
            raise ServiceError(Reason.UNIT_LATE, text) from None
        except ClientDisconnect:
            raise ServiceError(Reason.UNIT_UNREADABLE, "the caller went away") from None
        return bytes(parts)

    @staticmethod
    def refusal(error: ServiceError) -> JSONResponse:
        """Return the response for an error, in the form that Connect uses."""
        status = to_status(error, "")
        details = [
            {"type": each.type_url.rpartition("/")[2], "value": base64.b64encode(each.value).decode().rstrip("=")}
            for each in status.details
        ]
        content = {"code": error.code.name.lower(), "message": status.message, "details": details}
        return JSONResponse(content, status_code=_STATUS.get(error.code, 500))
