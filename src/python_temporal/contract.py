"""Contracts of annotated services: the model, whether an implementation fits, and how a workflow is started by one."""

from __future__ import annotations

from ._check import check, contract_of, service_of, workflow_classes
from ._model import (
    ActivityContract,
    MethodContract,
    QueryBinding,
    QueryContract,
    ServiceContract,
    SignalBinding,
    SignalContract,
    UpdateBinding,
    UpdateContract,
    WorkflowContract,
    file_descriptor_set,
    generated_modules,
)
from ._start import start_arguments
from .errors import ContractError, DefinitionError

__all__ = [
    "ActivityContract",
    "ContractError",
    "DefinitionError",
    "MethodContract",
    "QueryBinding",
    "QueryContract",
    "ServiceContract",
    "SignalBinding",
    "SignalContract",
    "UpdateBinding",
    "UpdateContract",
    "WorkflowContract",
    "check",
    "contract_of",
    "file_descriptor_set",
    "generated_modules",
    "service_of",
    "start_arguments",
    "workflow_classes",
]
