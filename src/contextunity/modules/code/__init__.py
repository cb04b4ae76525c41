"""The code module: workflow_type `execute_code`, which runs small untrusted programs in a sandbox.

Its contract is proto/contextunity/code/v1/code.proto; docs/code.md says how to use it.
"""
