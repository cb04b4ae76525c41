"""Who calls: from the metadata of a call to a Caller that says what it may do and whose work it sees."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from contextunity.core.errors import ContextUnityError

__all__ = ["EVERYBODY", "AuthenticationError", "Authenticator", "Caller"]


class AuthenticationError(ContextUnityError):
    """A call does not say who calls, or says it in a way that cannot be believed.

    Attributes:
        reason: a stable word for programs, such as `TOKEN_MISSING` or `TOKEN_EXPIRED`.
    """

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who calls.

    Attributes:
        permissions: what the caller may do, such as `worker:execute`; None for everything.
        tenants: whose work the caller sees and starts; None for everybody's, empty for nobody's.
        project_id: the project that vouches for the caller; empty where nobody does.
        principal: who it is, for logs: the token's user_id, agent_id or token_id.
    """

    permissions: frozenset[str] | None
    tenants: frozenset[str] | None
    project_id: str = ""
    principal: str = ""

    def may(self, *permissions: str) -> bool:
        """Says whether the caller holds any of the permissions."""
        return self.permissions is None or not self.permissions.isdisjoint(permissions)

    def sees(self, tenant_id: str) -> bool:
        """Says whether work of the tenant exists for the caller."""
        return self.tenants is None or tenant_id in self.tenants


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
