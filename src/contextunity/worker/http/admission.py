"""Who may ask for what is no call: the document of the API, and the codec. Asked before a byte of a body is read."""

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
"""Bytes of a body. Temporal keeps payloads of 2 MiB, and its UI asks about those of one page of a history."""

_STATUS = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""As Connect has them."""


_SMALLEST = 2
"""Bytes of JSON that a value takes at least, what divides it from the next included."""
_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def check_values(data: bytes, most: int) -> None:
    """Refuses JSON with more values, objects and lists included, before it is read: each takes up to a kilobyte then.

    Raises:
        ServiceError: there are more.
    """
    if len(data) <= _SMALLEST * most:
        return
    # Of what is no text, each value but the first of an object or list comes after a comma.
    bare = _TEXTS.sub(b"", data)
    if sum(map(bare.count, (b",", b"{", b"["))) > most:
        text = f"the JSON holds more than {most:,} values, objects and lists included, and the service takes no more"
        raise ServiceError(
            Reason.UNIT_TOO_LARGE, f"{text} (CONTEXTWORKER_MAX_PAYLOAD_VALUES); hand over where they lie instead"
        )


class RequestAdmission:
    """Lets callers in.

    Args:
        authenticator: tells who calls.
        settings: of the process.
    """

    def __init__(self, authenticator: Authenticator, settings: Settings) -> None:
        self._authenticator, self._seconds = authenticator, settings.body_timeout
        self.max_values = settings.max_payload_values
        """Values that JSON may hold."""

    async def admit(self, request: Request, *permissions: str) -> None:
        """Refuses callers without a good token, or without any of the permissions.

        Raises:
            ServiceError: the caller may not.
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
        """The body.

        Raises:
            ServiceError: it is too large, or does not come in time.
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
        """An error as calls over HTTP end with it."""
        status = to_status(error, "")
        details = [
            {"type": each.type_url.rpartition("/")[2], "value": base64.b64encode(each.value).decode().rstrip("=")}
            for each in status.details
        ]
        content = {"code": error.code.name.lower(), "message": status.message, "details": details}
        return JSONResponse(content, status_code=_STATUS.get(error.code, 500))
