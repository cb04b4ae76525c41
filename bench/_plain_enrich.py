"""`python -m bench._plain_enrich DATABASE PAGE_SIZE`: an enrichment as a plain loop does it, without Temporal.

It goes through the products page by page with the functions that the activities call: list, enrich, write. The rules
and the catalogue are the same, with one transaction a page and its flushes; where it dies, somebody starts it again.

It says "ready" once everything is imported and opened, begins when it reads a line, and answers with one line of JSON.
"""

from __future__ import annotations

import json
import sys

from contextunity.modules.gardener.rules import RuleEnricher
from contextunity.modules.gardener.taxonomy import BUNDLED_TAXONOMY, load_taxonomy
from contextunity.modules.harvest.catalogue import Catalogue
from contextunity.modules.harvest.catalogue.enrichments import Wanted

_TENANT, _SUPPLIER = "bench", "supplier"
_MAX_BYTES = 32 * 1024 * 1024


def main() -> None:
    """Waits for its line, enriches, and prints what it did."""
    url, page_size = sys.argv[1], int(sys.argv[2])
    rules = RuleEnricher(load_taxonomy(BUNDLED_TAXONOMY))
    with Catalogue.open(url) as catalogue:
        print("ready", flush=True)
        sys.stdin.readline()
        wanted = Wanted(rules_version=rules.version, supplier_code=_SUPPLIER)
        enriched, after = 0, None
        catalogue.count_to_enrich(_TENANT, wanted)
        while True:
            page, after = catalogue.to_enrich(_TENANT, wanted, after=after, limit=page_size, max_bytes=_MAX_BYTES)
            enriched += catalogue.put_enrichments(_TENANT, rules.enrich_all(page), rules_version=rules.version)
            if after is None:
                break
        print(json.dumps({"enriched": enriched}), flush=True)
        # The parent looks at this process's memory and processor time before it goes.
        sys.stdin.readline()


if __name__ == "__main__":
    main()
