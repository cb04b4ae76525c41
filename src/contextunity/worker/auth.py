"""Authenticate callers by their tokens, check permissions, and write the audit log of changes.

The table of methods uses `Access` and `Subject` to say what each method requires of its caller.
`tools/access_reference.py` generates docs/reference/access.md from that table, and a test checks each row against the
service.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from contextunity.core.tokens import Keyring, TokenError
from contextunity.core.tokens import Reason as TokenReason

from .errors import AuthenticationError, KeyPendingError, SettingsError, missing_extra
from .grpc_errors import Reason, ServiceError
from .identity_settings import identity_violations
from .settings import Settings, is_loopback
from .token_keys import is_jwt, load_keyring

if TYPE_CHECKING:
    from .jwt import JwtVerifier
    from .revocations import Revocations

__all__ = [
    "AUDIT_LOGGER",
    "EVERYBODY",
    "IMPLIED",
    "Access",
    "Authenticator",
    "Caller",
    "Subject",
    "authenticator_for",
    "effective_permissions",
    "identify",
    "open_authenticator",
    "open_jwts",
    "record_call",
    "refusal_of",
]

_LOG = logging.getLogger(__name__)

_REASONS: dict[TokenReason, tuple[str, str]] = {
    "malformed": ("TOKEN_MALFORMED", "the token cannot be read"),
    # One answer for both, so that strangers cannot find out which keys exist.
    "unknown_kid": ("TOKEN_INVALID", "no key verifies the token"),
    "bad_signature": ("TOKEN_INVALID", "no key verifies the token"),
    "wrong_project": ("TOKEN_WRONG_PROJECT", "the token is bound to a project other than its kid's"),
    "wrong_issuer": ("TOKEN_WRONG_ISSUER", "the token is from an issuer that is not accepted here"),
    "wrong_audience": ("TOKEN_WRONG_AUDIENCE", "the token is for another audience; get one for this service"),
    "expired": ("TOKEN_EXPIRED", "the token has expired; get a new one"),
    "not_yet_valid": ("TOKEN_NOT_YET_VALID", "the token is not valid yet; wait for its start, or compare the clocks"),
}
"""Reason and message for the caller by fault of a token; the log has the details."""


IMPLIED: Mapping[str, tuple[str, ...]] = {
    "admin:all": (
        *("admin:read", "admin:write", "admin:trace", "brain:read", "brain:write"),
        *("memory:read", "memory:write", "trace:read", "trace:write"),
    ),
    "admin:trace": ("trace:read",),
    "brain:write": ("brain:read",),
    "memory:write": ("memory:read",),
}
"""All permissions that a permission implies, for scopes of units. No permission implies one of the worker's own."""


@functools.lru_cache(maxsize=1024)
def effective_permissions(held: frozenset[str]) -> frozenset[str]:
    """Return a token's permissions and those that they imply, to compare with a unit's scopes.

    No permission implies a method's own permission; `Caller.may` checks only those that the token contains.
    """
    return held.union(*(IMPLIED.get(each, ()) for each in held))


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """A caller.

    Attributes:
        permissions: permissions such as `worker:execute`; None for all.
        tenants: tenants whose work the caller sees and starts; None for all, empty for none.
        project_id: project whose key signed the token; empty if there is none.
        bound_project: the only project whose schedules the caller sees and changes; None for all projects, empty for
            none.
        principal: name for logs: the token's user_id, agent_id or token_id, without control characters.
        token_id: name of the token; empty if tokens are not required.
        revocation_id: id of the token in lists of revoked tokens, beside its token_id; empty if it has no other.
    """

    permissions: frozenset[str] | None
    tenants: frozenset[str] | None
    project_id: str = ""
    bound_project: str | None = None
    principal: str = ""
    # Tokens with the same content give equal callers.
    token_id: str = field(default="", compare=False)
    revocation_id: str = field(default="", compare=False)

    def may(self, *permissions: str) -> bool:
        """Whether the caller holds any of the permissions."""
        return self.permissions is None or not self.permissions.isdisjoint(permissions)

    def satisfies(self, scopes: Collection[str]) -> bool:
        """Whether the caller holds any of a unit's scopes, or a permission that implies one. True without scopes."""
        return not scopes or self.permissions is None or not effective_permissions(self.permissions).isdisjoint(scopes)

    def sees(self, tenant_id: str) -> bool:
        """Whether the caller sees work of the tenant."""
        return self.tenants is None or tenant_id in self.tenants

    def sees_project(self, project_id: str) -> bool:
        """Whether the caller sees schedules of the project."""
        return self.bound_project is None or project_id == self.bound_project


EVERYBODY = Caller(permissions=None, tenants=None)
"""The caller if tokens are not required: may do everything, for every tenant."""


class Authenticator(Protocol):
    """Authenticates calls."""

    @property
    def confirm(self) -> Callable[[Caller], Awaitable[None]] | None:
        """What to ask once the caller is known and before anything is read of the call; None if there is nothing.

        It raises a ServiceError if the token is revoked, or if that cannot be found out.
        """
        ...

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Return the caller from the metadata of the call. It never waits.

        Raises:
            AuthenticationError: the metadata has no valid token; the call ends as `refusal_of` says.
            KeyPendingError: that may change in a moment.
        """
        ...


async def identify(authenticator: Authenticator, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
    """Return the caller, once all is known of its token.

    Raises:
        AuthenticationError: the metadata has no valid token.
        ServiceError: the token is revoked, or that cannot be found out.
    """
    try:
        caller = authenticator.authenticate(metadata)
    except KeyPendingError as error:
        await error.fetched.wait()
        caller = authenticator.authenticate(metadata)
    if authenticator.confirm is not None:
        await authenticator.confirm(caller)
    return caller


def refusal_of(error: AuthenticationError) -> ServiceError:
    """Return the answer to a call without a valid token."""
    reason = Reason.TOKEN_UNCHECKED if error.is_unchecked else Reason.TOKEN_REFUSED
    return ServiceError(reason, str(error), metadata={"fault": error.reason})


@contextlib.asynccontextmanager
async def open_authenticator(settings: Settings) -> AsyncGenerator[Authenticator]:
    """Open the authenticator for the settings, with the issuer's keys and the lists of revoked tokens.

    Only the service needs it, so only the service needs keys.

    Raises:
        SettingsError: tokens are required, and the keys or the lists are missing or unreadable.
    """
    if settings.auth != "token":
        yield authenticator_for(settings)
        return
    if violations := identity_violations(settings):
        raise SettingsError(violations)
    # Imported only here: most deployments have neither JWTs nor lists of revoked tokens.
    async with contextlib.AsyncExitStack() as stack:
        jwts, revocations = None, None
        if settings.jwt_issuer:
            jwts = await stack.enter_async_context(open_jwts(settings))
        if settings.has_revocations:
            from .revocations import open_revocations

            revocations = await stack.enter_async_context(open_revocations(settings))
        yield authenticator_for(settings, jwts, revocations)


@contextlib.asynccontextmanager
async def open_jwts(settings: Settings) -> AsyncGenerator[JwtVerifier]:
    """Open the verifier of JWTs, with the issuer's keys.

    Raises:
        SettingsError: the keys cannot be read or fetched, or joserfc is not installed.
    """
    try:
        from .jwt import open_jwt_verifier
    except ModuleNotFoundError as error:
        raise missing_extra(error, ("joserfc",), "jwt_issuer", "jwt") from None
    async with open_jwt_verifier(settings) as verifier:
        yield verifier


def authenticator_for(
    settings: Settings, jwts: JwtVerifier | None = None, revocations: Revocations | None = None
) -> Authenticator:
    """Return the authenticator for settings without JWTs and lists of revoked tokens, or with these as already opened.

    Raises:
        SettingsError: tokens are required, and the keys are missing or unreadable; or what the settings name is not
            given, which `open_authenticator` opens.
    """
    if settings.auth == "token":
        if (settings.jwt_issuer and jwts is None) or (settings.has_revocations and revocations is None):
            raise SettingsError(["JWTs and revoked tokens need open_authenticator, not authenticator_for"])
        return _ByToken(load_keyring(settings), jwts, revocations)
    if not is_loopback(settings.listen_host):
        _LOG.warning("tokens are not required, and other machines can reach %s", settings.listen_host)
    return _Everybody()


class _Everybody:
    confirm = None

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        return EVERYBODY


class _ByToken:
    def __init__(self, keyring: Keyring, jwts: JwtVerifier | None, revocations: Revocations | None) -> None:
        self._keyring, self._jwts, self._revocations = keyring, jwts, revocations
        self.confirm = None if revocations is None else self._confirm
        self._has_warned = False

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        text = _bearer(metadata)
        verifier = self._jwts if self._jwts is not None and is_jwt(text) else self._keyring
        try:
            verified = verifier.verify(text)
        except TokenError as error:
            _LOG.info("token rejected: %s (kid %.80r)", error, error.kid)
            raise AuthenticationError(*_REASONS[error.reason]) from None
        token = verified.token
        if token.revocation_id and verifier is self._keyring and self._revocations is None and not self._has_warned:
            self._has_warned = True
            _LOG.warning(
                "a token has a revocation_id, but no revocation list is configured: revoked tokens are valid until "
                "they expire"
            )
        binding = token.project_binding
        return Caller(
            permissions=frozenset(token.permissions),
            # Work without a tenant has an empty tenant name, which no token may contain.
            tenants=frozenset(token.allowed_tenants or ()) - {""},
            project_id=verified.project_id,
            # A binding without a project means the key's project. A key for all projects has none, and then the project
            # in the kid cannot be trusted.
            bound_project=verified.project_id if binding is not None and binding.kind == "project" else None,
            principal=token.user_id or token.agent_id or token.token_id,
            token_id=token.token_id,
            revocation_id=token.revocation_id or "",
        )

    async def _confirm(self, caller: Caller) -> None:
        assert self._revocations is not None
        await self._revocations.check(caller.token_id, caller.revocation_id)


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    headers = [value for key, value in metadata if key.lower() == "authorization"]
    if not headers:
        raise AuthenticationError("TOKEN_MISSING", "the call has no token; send it as `authorization: Bearer TOKEN`")
    if len(headers) > 1:
        raise AuthenticationError("TOKEN_MALFORMED", "the call has more than one authorization header; send one")
    header = headers[0] if isinstance(headers[0], str) else headers[0].decode("latin-1")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip(" "):
        raise AuthenticationError("TOKEN_MALFORMED", "the authorization header is not `Bearer TOKEN`")
    return token.strip(" ")


class Access(Enum):
    """Which of a unit's SecurityScopes its sender must satisfy."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answers:
    """Answers to callers whose token does not cover the request.

    Attributes:
        what: subject of the method, for people.
        other_tenant: answer if the token is for other tenants and the request names none.
        no_tenant: answer if the token is for no tenant and the request names none.
        named_tenant: answer if the request names a tenant that the token does not have.
        other_project: answer if the token is bound to a project other than the request's.
    """

    what: str
    other_tenant: Reason | str
    no_tenant: Reason | str
    named_tenant: Reason | str = Reason.TENANT_REFUSED
    other_project: Reason | str = "as any"


class Subject(Enum):
    """Subject of a method, which decides who may call it."""

    NEW_TASK = _Answers(what="a task that it starts", other_tenant="its own", no_tenant=Reason.TENANT_REFUSED)
    TASK = _Answers(what="a task", other_tenant=Reason.TASK_UNKNOWN, no_tenant=Reason.TASK_UNKNOWN)
    TASKS = _Answers(what="all tasks", other_tenant="left out", no_tenant="left out")
    NEW_SCHEDULES = _Answers(
        what="the schedules of a project",
        other_tenant="its own",
        no_tenant=Reason.TENANT_REFUSED,
        other_project=Reason.PROJECT_REFUSED,
    )
    SCHEDULE = _Answers(
        what="a schedule",
        other_tenant=Reason.SCHEDULE_UNKNOWN,
        no_tenant=Reason.TENANT_REFUSED,
        other_project=Reason.SCHEDULE_UNKNOWN,
    )
    SCHEDULES = _Answers(what="all schedules", other_tenant="left out", no_tenant="left out", other_project="left out")
    CONTRACTS = _Answers(
        what="the contracts, which have no tenant", other_tenant="as any", no_tenant="as any", named_tenant="as any"
    )


AUDIT_LOGGER = logging.getLogger("contextunity.worker.audit")
"""Logger of the lines, at level INFO."""


class RecordedCall(Protocol):
    """The audit log's fields of a call."""

    about: dict[str, Any]
    trace_id: str
    unit_id: str


def record_call(
    method: str, caller: Caller, call: RecordedCall | None, error: ServiceError | str | None = None
) -> None:
    """Write the audit line of a call that changes something.

    Args:
        method: name of the method.
        caller: the caller.
        call: the call; None if its unit was not read.
        error: why the call was rejected; a word if no answer reached the caller; None on success.
    """
    if not AUDIT_LOGGER.isEnabledFor(logging.INFO):
        return
    line: dict[str, Any] = {
        "token_id": caller.token_id,
        "principal": caller.principal,
        "project_id": caller.project_id,
        "tenant_id": "",
        "method": method,
    }
    if call is not None:
        line |= call.about
        line["trace_id"], line["unit_id"] = call.trace_id, call.unit_id
    if not line["tenant_id"] and caller.tenants is not None and len(caller.tenants) == 1:
        (line["tenant_id"],) = caller.tenants
    if isinstance(error, ServiceError):
        _add_missing(line, error.metadata)
        line["outcome"], line["reason"] = error.code.name, error.reason.name
    else:
        line["outcome"] = error or "OK"
    AUDIT_LOGGER.info("%s", json.dumps(line, ensure_ascii=True))


def _add_missing(line: dict[str, Any], metadata: Mapping[str, str]) -> None:
    """Return the fields from an error that the answer would have had."""
    for name in ("workflow_id", "schedule_id"):
        if name in metadata:
            line.setdefault(name, metadata[name])
