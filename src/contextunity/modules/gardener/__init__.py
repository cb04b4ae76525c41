"""Gardener: enriches the products that harvests brought, with category, attributes, brand and a completeness score.

It imports nothing of the harvest module: it reads and writes the catalogue by activities of harvest's contract, through
their generated code. `workflows.py` says how products flow, `rules.py` what is made of one.
"""
