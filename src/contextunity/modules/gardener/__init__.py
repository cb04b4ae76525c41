"""Gardener: enriches harvested products with category, attributes, brand and a completeness score.

It imports nothing from the harvest module: it reads and writes the catalogue with activities of harvest's contract,
through their generated code. Read `workflows.py` for the flow of products, and `rules.py` for their enrichment.
"""
