"""The methods of WorkerService, on generated dataclasses; boundary.py decodes units and sends errors.

Steps of a call: `call` checks caller and tenant, `payloads` decodes the typed request, the method's handler (`start`,
`status`, `control`, …) does the work, `payloads` encodes the answer. `methods` is the table of RPCs.
"""

from .call import Call, Method, require_permission, respond, run_in_thread, stream
from .contract_methods import ContractCall, ContractMethod
from .methods import WorkerService

__all__ = [
    "Call",
    "ContractCall",
    "ContractMethod",
    "Method",
    "WorkerService",
    "require_permission",
    "respond",
    "run_in_thread",
    "stream",
]
