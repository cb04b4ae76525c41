"""The harvest module: workflow_type `harvest`, which keeps a catalogue in step with the product feeds of suppliers.

Its contract is proto/contextunity/harvest/v1/harvest.proto; `python -m contextunity.modules.harvest` runs it from end
to end.
"""
