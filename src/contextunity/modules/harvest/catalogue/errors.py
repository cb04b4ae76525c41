"""What can go wrong with a catalogue, and how the faults of SQLAlchemy and its drivers become that."""

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
    """The catalogue cannot do what was asked, and asking again does not help.

    Attributes:
        catalogue: database URL without its password.
        retryable: whether the same call may well succeed later.
    """

    retryable = False

    def __init__(self, message: str, *, catalogue: str) -> None:
        self.catalogue = catalogue
        super().__init__(message)


class CatalogueUnavailable(CatalogueError):  # noqa: N818 - named after the fact, as the contract's error types are
    """The database cannot be had right now: unreachable, busy, restarting or full. Asking again later may help."""

    retryable = True


class _PageError(CatalogueError):
    def __init__(self, message: str, *, catalogue: str, harvest_id: str, page: int) -> None:
        self.harvest_id = harvest_id
        self.page = page
        super().__init__(message, catalogue=catalogue)


class PageGone(_PageError):  # noqa: N818 - named after the fact, as the contract's error types are
    """The page was synced already, so what was staged for it is no more.

    Attributes:
        harvest_id: which harvest.
        page: index of the page.
    """


class PageMissing(_PageError):  # noqa: N818 - named after the fact, as the contract's error types are
    """The page was never staged, or was cleared away when its harvest ended.

    Attributes:
        harvest_id: which harvest.
        page: index of the page.
    """


class HarvestSuperseded(CatalogueError):  # noqa: N818 - named after the fact, as the contract's error types are
    """A later harvest of the same tenant and supplier has begun, so this one may not write any more.

    Attributes:
        harvest_id: the harvest that wanted to write.
        current_harvest: the one that took its place.
    """

    def __init__(self, message: str, *, catalogue: str, harvest_id: str, current_harvest: str) -> None:
        self.harvest_id = harvest_id
        self.current_harvest = current_harvest
        super().__init__(message, catalogue=catalogue)


class HarvestMismatch(_PageError):  # noqa: N818 - named after the fact, as the contract's error types are
    """What a payload claims of a harvest is not what the catalogue recorded of it.

    Attributes:
        harvest_id: which harvest.
        page: index of the page that was asked for.
    """


# Primary result codes of SQLite (the low byte) that pass by themselves or once somebody made room.
_SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
}

# Classes of SQLSTATE likewise: connection, rollback after a conflict, out of resources, locks, operator, system.
# Source: PostgreSQL manual, appendix "PostgreSQL Error Codes".
_SQLSTATE_PASSING = {"08", "40", "53", "55", "57", "58"}

# libpq gives no SQLSTATE for a refused connection, only the server's text. A server that says FATAL was reached and
# said no, which passes by itself only in these cases.
_REFUSED_FOR_NOW = ("starting up", "shutting down", "recovery mode", "too many", "remaining connection slots")


@contextmanager
def database_errors(catalogue: str) -> Generator[None]:
    """Turn what SQLAlchemy raises inside the block into a CatalogueError.

    Args:
        catalogue: database URL without its password, for the message.

    Raises:
        CatalogueUnavailable: the database is unreachable, busy, restarting or full.
        CatalogueError: any other fault of the database.
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
        # The code is missing where the sqlite3 module itself, not SQLite, found the fault.
        return (getattr(original, "sqlite_errorcode", 0) & 0xFF) in _SQLITE_PASSING
    sqlstate: str | None = getattr(original, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate[:2] in _SQLSTATE_PASSING
    if error.connection_invalidated:
        return True
    return type(original).__name__ in {"OperationalError", "ConnectionTimeout"} and _may_connect_later(str(original))


def _may_connect_later(text: str) -> bool:
    return "FATAL" not in text or any(reason in text for reason in _REFUSED_FOR_NOW)
