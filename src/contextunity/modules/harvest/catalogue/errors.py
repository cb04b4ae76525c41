"""Errors of the catalogue, and their mapping from errors of SQLAlchemy and its drivers."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from contextunity.core.errors import ContextUnityError

__all__ = [
    "CatalogueError",
    "CatalogueUnavailable",
    "HarvestMismatch",
    "HarvestSuperseded",
    "PageGone",
    "PageMissing",
    "database_errors",
]


class CatalogueError(ContextUnityError):
    """The catalogue rejects a call, and a retry does not help.

    Attributes:
        catalogue: database URL without its password.
        retryable: whether a retry may succeed.
    """

    retryable = False

    def __init__(self, message: str, *, catalogue: str) -> None:
        self.catalogue = catalogue
        super().__init__(message)


class CatalogueUnavailable(CatalogueError):  # noqa: N818 - named after the fact, as the contract's error types are
    """The database is unavailable: unreachable, busy, restarting or full. A later retry may help."""

    retryable = True


class _PageError(CatalogueError):
    def __init__(self, message: str, *, catalogue: str, harvest_id: str, page: int) -> None:
        self.harvest_id = harvest_id
        self.page = page
        super().__init__(message, catalogue=catalogue)


class PageGone(_PageError):  # noqa: N818 - named after the fact, as the contract's error types are
    """The page was already synced, so it is no longer staged.

    Attributes:
        harvest_id: id of the harvest.
        page: index of the page.
    """


class PageMissing(_PageError):  # noqa: N818 - named after the fact, as the contract's error types are
    """The page was never staged, or was deleted at the end of its harvest.

    Attributes:
        harvest_id: id of the harvest.
        page: index of the page.
    """


class HarvestSuperseded(CatalogueError):  # noqa: N818 - named after the fact, as the contract's error types are
    """A later harvest of the same tenant and supplier has begun, so this one must not write any more.

    Attributes:
        harvest_id: id of this harvest.
        current_harvest: id of the later one.
    """

    def __init__(self, message: str, *, catalogue: str, harvest_id: str, current_harvest: str) -> None:
        self.harvest_id = harvest_id
        self.current_harvest = current_harvest
        super().__init__(message, catalogue=catalogue)


class HarvestMismatch(_PageError):  # noqa: N818 - named after the fact, as the contract's error types are
    """A payload differs from what the catalogue has recorded about the harvest.

    Attributes:
        harvest_id: id of the harvest.
        page: index of the page.
    """


# Primary result codes of SQLite (the low byte) that are temporary, or that an operator can resolve.
_SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}

# Such classes of SQLSTATE: connection, rollback after a conflict, out of resources, locks, operator, system.
# Source: PostgreSQL manual, appendix "PostgreSQL Error Codes".
_SQLSTATE_PASSING = {"08", "40", "53", "55", "57", "58"}

# libpq reports a refused connection without SQLSTATE, only with the server's text. FATAL means that the server was
# reached and refused; this is temporary only in these cases.
_REFUSED_FOR_NOW = ("starting up", "shutting down", "recovery mode", "too many", "remaining connection slots")


@contextmanager
def database_errors(catalogue: str) -> Generator[None]:
    """Convert SQLAlchemy's exceptions in the block to a CatalogueError.

    Args:
        catalogue: database URL without its password, for the message.

    Raises:
        CatalogueUnavailable: the database is unreachable, busy, restarting or full.
        CatalogueError: any other error of the database.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise CatalogueUnavailable(
            f"catalogue {catalogue}: no connection came free in time; run fewer activities at once", catalogue=catalogue
        ) from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        if _is_passing(error):
            raise CatalogueUnavailable(
                f"catalogue {catalogue}: not to be had right now: {reason}; "
                "check that the database is up and reachable, then try again",
                catalogue=catalogue,
            ) from error
        raise CatalogueError(f"catalogue {catalogue}: {reason}", catalogue=catalogue) from error
    except SQLAlchemyError as error:
        raise CatalogueError(f"catalogue {catalogue}: {error}", catalogue=catalogue) from error


def _is_passing(error: DBAPIError) -> bool:
    original = error.orig
    if isinstance(original, sqlite3.Error):
        # The code is missing if the error is from the sqlite3 module and not from SQLite.
        return (getattr(original, "sqlite_errorcode", 0) & 0xFF) in _SQLITE_PASSING
    sqlstate: str | None = getattr(original, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate[:2] in _SQLSTATE_PASSING
    if error.connection_invalidated:
        return True
    return type(original).__name__ in {"OperationalError", "ConnectionTimeout"} and _may_connect_later(str(original))


def _may_connect_later(text: str) -> bool:
    return "FATAL" not in text or any(reason in text for reason in _REFUSED_FOR_NOW)
