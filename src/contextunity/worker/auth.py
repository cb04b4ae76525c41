"""Who calls, and what they may: tokens, permissions, and the audit log of what callers changed.

`Access` and `Subject` are the words in which the table of methods says what each one asks of its caller.
`tools/access_reference.py` writes docs/reference/access.md from that table, and a test walks it, row by row, against
the service.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from contextunity.core.tokens import Keyring, TokenError
from contextunity.core.tokens import Reason as TokenReason

from .errors import AuthenticationError
from .grpc_errors import Reason, ServiceError
from .settings import Settings, is_loopback
from .token_keys import load_keyring

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
    "record_call",
]

_LOG = logging.getLogger(__name__)

_REASONS: dict[TokenReason, tuple[str, str]] = {
    "malformed": ("TOKEN_MALFORMED", "the token cannot be read"),
    # One answer for both: which keys there are is nothing for strangers.
    "unknown_kid": ("TOKEN_INVALID", "no key verifies the token"),
    "bad_signature": ("TOKEN_INVALID", "no key verifies the token"),
    "wrong_project": ("TOKEN_WRONG_PROJECT", "the token is bound to another project than its kid names"),
    "expired": ("TOKEN_EXPIRED", "the token has expired; get a new one"),
    "not_yet_valid": ("TOKEN_NOT_YET_VALID", "the token is not good yet; wait for its time, or compare the clocks"),
}
"""What the caller is told for each fault of a token; the log has the rest."""


IMPLIED: Mapping[str, tuple[str, ...]] = {
    "admin:all": (
        *("admin:read", "admin:write", "admin:trace", "brain:read", "brain:write"),
        *("memory:read", "memory:write", "trace:read", "trace:write"),
    ),
    "admin:trace": ("trace:read",),
    "brain:write": ("brain:read",),
    "memory:write": ("memory:read",),
}
"""What a permission implies, all of it at once, for scopes of units. Nothing implies one of the worker's own."""


@functools.lru_cache(maxsize=1024)
def effective_permissions(held: frozenset[str]) -> frozenset[str]:
    """The permissions that a token holds, with those that they imply: what scopes of a unit are held against.

    A method's own permission is not implied by any; `Caller.may` looks at those that the token names.
    """
    return held.union(*(IMPLIED.get(each, ()) for each in held))


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        permissions: what the caller may do, such as `worker:execute`; None for everything.
        tenants: whose work the caller sees and starts; None for everybody's, empty for nobody's.
        project_id: the project that vouches for the caller; empty where none does.
        bound_project: the one project whose schedules the caller sees and changes; None for those of all projects,
            empty for those of none.
        principal: who it is, for logs: the token's user_id, agent_id or token_id, without control characters.
        token_id: the name of the token; empty where none was asked for.
    """

    permissions: frozenset[str] | None
    tenants: frozenset[str] | None
    project_id: str = ""
    bound_project: str | None = None
    principal: str = ""
    # Two tokens that say the same make the same caller.
    token_id: str = field(default="", compare=False)

    def may(self, *permissions: str) -> bool:
        """Says whether the caller holds any of the permissions."""
        return self.permissions is None or not self.permissions.isdisjoint(permissions)

    def satisfies(self, scopes: Collection[str]) -> bool:
        """Says whether the caller holds any of a unit's scopes, or what implies one; where there are none, it does."""
        return not scopes or self.permissions is None or not effective_permissions(self.permissions).isdisjoint(scopes)

    def sees(self, tenant_id: str) -> bool:
        """Says whether work of the tenant exists for the caller."""
        return self.tenants is None or tenant_id in self.tenants

    def sees_project(self, project_id: str) -> bool:
        """Says whether schedules of the project exist for the caller."""
        return self.bound_project is None or project_id == self.bound_project


EVERYBODY = Caller(permissions=None, tenants=None)
"""Who calls where nobody is asked: may do everything, for every tenant."""


class Authenticator(Protocol):
    """Tells who calls."""

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Tells who calls, from the metadata of the call.

        Raises:
            AuthenticationError: the metadata does not tell it; the answer to the caller is UNAUTHENTICATED.
        """
        ...


def authenticator_for(settings: Settings) -> Authenticator:
    """Gives the authenticator that the settings ask for. Only the service needs it, and so only the service needs keys.

    Raises:
        SettingsError: callers are to show tokens, and the keys cannot be read or there are none.
    """
    if settings.auth == "token":
        return _ByToken(load_keyring(settings))
    if not is_loopback(settings.listen_host):
        _LOG.warning("callers are not asked who they are, and %s is reached from other machines", settings.listen_host)
    return _Everybody()


class _Everybody:
    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        return EVERYBODY


class _ByToken:
    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._has_warned = False

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        try:
            verified = self._keyring.verify(_bearer(metadata))
        except TokenError as error:
            _LOG.info("a token is refused: %s (kid %.80r)", error, error.kid)
            raise AuthenticationError(*_REASONS[error.reason]) from None
        token = verified.token
        if token.revocation_id and not self._has_warned:
            self._has_warned = True
            _LOG.warning(
                "a token carries a revocation_id, but no revocation list is configured: revoked tokens are good until "
                "they expire"
            )
        binding = token.project_binding
        return Caller(
            permissions=frozenset(token.permissions),
            # Work of no tenant has the empty name, and is nobody's who shows a token.
            tenants=frozenset(token.allowed_tenants or ()) - {""},
            project_id=verified.project_id,
            # Where the binding names no project, it is the key's; a key of all projects has none, and then there is
            # none that could be believed.
            bound_project=verified.project_id if binding is not None and binding.kind == "project" else None,
            principal=token.user_id or token.agent_id or token.token_id,
            token_id=token.token_id,
        )


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str | bytes:
    headers = [value for key, value in metadata if key.lower() == "authorization"]
    if not headers:
        raise AuthenticationError("TOKEN_MISSING", "the call has no token; send it as `authorization: Bearer TOKEN`")
    if len(headers) > 1:
        raise AuthenticationError("TOKEN_MALFORMED", "the call has more than one authorization header; send one")
    header = headers[0] if isinstance(headers[0], str) else headers[0].decode("latin-1")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip(" "):
        raise AuthenticationError("TOKEN_MALFORMED", "the authorization header does not read `Bearer TOKEN`")
    return token.strip(" ")


class Access(Enum):
    """Which of a unit's SecurityScopes its sender has to satisfy."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answers:
    """What is answered to callers whose token is not for what they ask about.

    Attributes:
        what: what the method is about, for people.
        other_tenant: a token for other tenants, where the request names none.
        no_tenant: a token for no tenant, where the request names none.
        named_tenant: a request that names a tenant which is not the token's.
        other_project: a token that is bound to another project than the request names.
    """

    what: str
    other_tenant: Reason | str
    no_tenant: Reason | str
    named_tenant: Reason | str = Reason.TENANT_REFUSED
    other_project: Reason | str = "as any"


class Subject(Enum):
    """What a method is about, and with it who may have it done."""

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
        what="the contracts, which are nobody's", other_tenant="as any", no_tenant="as any", named_tenant="as any"
    )


AUDIT_LOGGER = logging.getLogger("contextunity.worker.audit")
"""Where the lines go, at the level INFO."""


class RecordedCall(Protocol):
    """What the audit log tells of a call."""

    about: dict[str, Any]
    trace_id: str
    unit_id: str


def record_call(
    method: str, caller: Caller, call: RecordedCall | None, error: ServiceError | str | None = None
) -> None:
    """Writes the line of a call that changes something.

    Args:
        method: name of the method.
        caller: who called.
        call: the call; None where its unit was not read.
        error: why it was refused; a word where no answer reached the caller; None where it was done.
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
    """What the error knows that the answer would have told."""
    for name in ("workflow_id", "schedule_id"):
        if name in metadata:
            line.setdefault(name, metadata[name])
