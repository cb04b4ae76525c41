"""The code module: workflow_type `execute_code`, which runs small programs that are not trusted in a sandbox.

Its contract is proto/contextunity/code/v1/code.proto; docs/code.md says how to use it.
"""
