"""Database URLs: which ones are understood, and how one is shown without its password."""

from __future__ import annotations

import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from contextunity.modules.harvest.catalogue._errors import CatalogueError

__all__ = ["display_url", "parse_url"]

_UNDERSTOOD = "sqlite:///catalogue.db or postgresql://user@host/database"

_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "sqlite+pysqlite": "sqlite+pysqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}

# libpq takes these as parameters too.
_SECRET_PARAMETERS = {"password", "sslpassword"}


def parse_url(url: str) -> URL:
    """Read a database URL and name its driver in full.

    Args:
        url: `sqlite:///` with a path, or `postgresql://`, `postgres://` or `postgresql+psycopg://` with a server.

    Raises:
        CatalogueError: it is no URL, of another database, or of a SQLite database in memory.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        shown = _mask_unparsed(url)
        # The cause is left out of the chain, for its text holds the URL with its password.
        raise CatalogueError(
            f"catalogue {shown!r}: is not a database URL; write one such as {_UNDERSTOOD}", catalogue=shown
        ) from (error if shown == url else None)
    drivername = _DRIVERS.get(parsed.drivername)
    shown = display_url(parsed)
    if drivername is None:
        raise CatalogueError(
            f"catalogue {shown}: cannot use {parsed.drivername!r}; write a URL such as {_UNDERSTOOD}", catalogue=shown
        )
    if drivername.startswith("sqlite") and _in_memory(parsed):
        raise CatalogueError(
            f"catalogue {shown}: a database in memory is lost with its process; name a file, as in "
            "sqlite:///catalogue.db",
            catalogue=shown,
        )
    return parsed.set(drivername=drivername)


def display_url(url: URL) -> str:
    """Render a URL for people: without the driver, and with `***` for its password and parameters that hold one."""
    hidden = {key: "***" for key in url.query if key in _SECRET_PARAMETERS}
    shown = url.set(drivername=url.get_backend_name()).update_query_dict(hidden)
    return shown.render_as_string(hide_password=True).replace("%2A%2A%2A", "***")


def _in_memory(url: URL) -> bool:
    database = url.database or ""
    return database in {"", ":memory:"} or database.startswith("file:") or "mode" in url.query


def _mask_unparsed(url: str) -> str:
    # Greedy up to the last @, because an unquoted password may itself hold one.
    masked = re.sub(r"(://[^:/@]*:).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"((?:ssl)?password=)[^&]*", r"\1***", masked)
