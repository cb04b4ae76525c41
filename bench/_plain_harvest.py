"""`python -m bench._plain_harvest URL DATABASE PAGE_SIZE`: a harvest as a plain script does it, without Temporal.

It goes through the feed page by page with the functions that the activities call: fetch and parse, transform, upsert.
What it does without is what makes the other one durable: pages are handed over in memory instead of being staged, and
where it dies it begins anew. The catalogue is the same, with its checks, its one transaction a page and its flushes.

It says "ready" once everything is imported and opened, begins when it reads a line, and answers with one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from contextunity.gen.contextunity.harvest.v1 import FeedFormat, PageRef

from contextunity.core import codec
from contextunity.modules.harvest.catalogue.database import Database
from contextunity.modules.harvest.catalogue.harvests import begin_harvest, finish_harvest
from contextunity.modules.harvest.catalogue.sync import write_page
from contextunity.modules.harvest.catalogue.tables import prepare_schema
from contextunity.modules.harvest.feeds import FeedSource, open_feed, read_page
from contextunity.modules.harvest.transform import transform_page

_CATALOGUE = ("bench", "supplier")
_HARVEST_ID = "plain"


def main() -> None:
    """Waits for its line, harvests, and prints what it took."""
    url, database_url, page_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    database = Database.open(database_url)
    prepare_schema(database)
    try:
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.perf_counter()
        answer = asyncio.run(_harvest(url, database, page_size))
        print(json.dumps({**answer, "wall": time.perf_counter() - began}), flush=True)
        # The parent looks at this process's memory and processor time before it goes.
        sys.stdin.readline()
    finally:
        database.close()


async def _harvest(url: str, database: Database, page_size: int) -> dict[str, Any]:
    source = FeedSource(supplier_code="supplier", url=url, format=FeedFormat.SHOPIFY_CSV, currency_code="EUR")
    totals = {"pages": 0, "created": 0, "rejected": 0}
    with database.writing() as connection:
        begin_harvest(database, connection, *_CATALOGUE, _HARVEST_ID)
    async with httpx.AsyncClient() as client:
        feed, cursor = await open_feed(client, source, spool_folder=Path("spool"))
        end_of_feed = False
        while not end_of_feed:
            fetched = await read_page(client, feed, cursor, page_size, spool_folder=Path("spool"))
            cursor, end_of_feed = fetched.next_cursor, fetched.end_of_feed
            page: Any = codec.to_proto(transform_page(fetched.page, currency_code="EUR"))
            ref = PageRef(
                tenant_id=_CATALOGUE[0], supplier_code=_CATALOGUE[1], harvest_id=_HARVEST_ID, page=totals["pages"]
            )
            with database.writing() as connection:
                counts = write_page(database, connection, ref, page)
            totals["pages"] += 1
            totals["created"] += counts.created
            totals["rejected"] += counts.rejected
    with database.writing() as connection:
        finish_harvest(database, connection, *_CATALOGUE, _HARVEST_ID, complete=True)
    return totals


if __name__ == "__main__":
    main()
