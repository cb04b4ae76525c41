"""The runtime of the code that protoc-gen-python_temporal generates: typed Temporal workflows, activities and clients.

Module authors need few names of it: `contract` to check an implementation or to start a workflow by its type, `options`
for the options of calls, and the errors. Generated code uses `codegen`.
"""

from .contract import check, contract_of, generated_modules, service_of, start_arguments, workflow_classes
from .errors import ContractError, DefinitionError

__all__ = [
    "ContractError",
    "DefinitionError",
    "check",
    "contract_of",
    "generated_modules",
    "service_of",
    "start_arguments",
    "workflow_classes",
]
