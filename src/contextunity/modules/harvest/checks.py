"""What `contextworker doctor` checks of the harvest module: that its catalogue can be reached and used."""

from __future__ import annotations

from contextunity.worker.core.registry import ModuleContext
from contextunity.worker.doctor.findings import Finding, fail, ok

from .catalogue.database import Database
from .catalogue.errors import CatalogueError
from .catalogue.tables import SCHEMA_VERSION, stored_schema
from .settings import HarvestSettings

__all__ = ["check_catalogue"]

_CHECK = "harvest.catalogue"


def check_catalogue(context: ModuleContext) -> list[Finding]:
    """Check that the database answers, and that its schema is this release's; nothing is created or changed."""
    settings = context.settings if context.settings is not None else HarvestSettings()
    url = settings.catalogue_in(context.data_folder)
    try:
        database = Database.look(url)
        if database is None:
            return [ok(_CHECK, "is not there yet", "the first worker with the module harvest makes it")]
        try:
            version, lacking = stored_schema(database)
        finally:
            database.close()
    except CatalogueError as error:
        first, _, fix = str(error).partition("; ")
        return [fail(_CHECK, first, fix=fix or "see docs/harvest.md about catalogue_url")]
    if version is None:
        return [ok(_CHECK, f"{database.shown} answers", "it is empty; the first worker makes the tables")]
    if version != SCHEMA_VERSION:
        fix = (
            "upgrade contextworker" if version > SCHEMA_VERSION else "use the release that wrote it, or a new database"
        )
        return [fail(_CHECK, f"{database.shown} has schema version {version}, not {SCHEMA_VERSION}", fix=fix)]
    detail = f"the next worker adds the columns {', '.join(lacking)}" if lacking else ""
    return [ok(_CHECK, f"{database.shown} answers, schema version {version}", detail)]
