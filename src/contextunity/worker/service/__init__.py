"""What the methods of WorkerService do, on generated dataclasses; server.py brings the bytes in and the errors out.

A call takes this way: `call` says who calls and for which tenant, `payloads` reads the typed request, the method's
handler (`start`, `status`, `control`, …) does the work, `payloads` writes the answer. `methods` is the table of RPCs.
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
