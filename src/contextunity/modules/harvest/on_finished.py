"""Signal a workflow when a harvest has ended: the setting `on_finished` names it by its workflow_type.

Only its contract in the registry is needed, so it may belong to any module, or to one that runs elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy

from contextunity.core import codec
from contextunity.worker.errors import SettingsError
from contextunity.worker.temporal.search_attributes import bound_attributes
from contextunity.worker.temporal.tenancy import fair_priority
from python_temporal.contract import SignalContract, WorkflowContract, start_arguments

__all__ = ["Follower", "follower_for"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Follower:
    """The workflow to signal, one per tenant.

    Attributes:
        contract: contract of the workflow.
        signal: signal to send.
    """

    contract: WorkflowContract
    signal: SignalContract

    @property
    def workflow_type(self) -> str:
        """Name of the workflow."""
        return self.contract.name

    async def tell(self, client: Client, tenant_id: str) -> str:
        """Signal the tenant's workflow, and start it if it does not run.

        Returns:
            Its workflow id.
        """
        contract, input_type = self.contract, self.contract.input_type
        assert input_type is not None
        attributes = contract.search_attributes
        # The class is generated, so only its descriptor knows whether it has the field.
        request: Any = input_type(tenant_id=tenant_id)
        keywords: dict[str, Any] = {
            **start_arguments(contract, request),
            "id_conflict_policy": WorkflowIDConflictPolicy.USE_EXISTING,
            "search_attributes": bound_attributes(tenant_id, others=attributes and attributes(request)),
            "priority": fair_priority(tenant_id, contract.priority),
        }
        handle = await client.start_workflow(contract.name, start_signal=self.signal.name, **keywords)
        return handle.id


def follower_for(workflow_type: str, workflows: Mapping[str, WorkflowContract]) -> Follower | None:
    """Return the follower of a setting; None if the setting is empty.

    Raises:
        SettingsError: the workflow does not exist, or has no suitable signal.
    """
    if not workflow_type:
        return None
    contract = workflows.get(workflow_type)
    if contract is None:
        known = ", ".join(sorted(workflows)) or "none"
        raise _refused(workflow_type, f"there is no such workflow_type; known ones: {known}")
    signals = [each.contract for each in contract.signals.values() if each.start and each.contract.input_type is None]
    if len(signals) != 1:
        raise _refused(
            workflow_type,
            f"its contract declares {len(signals)} signals with `start: true` and no input, but must declare one",
        )
    if not _is_by_tenant(contract):
        raise _refused(workflow_type, "its contract must have a field tenant_id in its input, and tenantId in its id")
    return Follower(contract=contract, signal=signals[0])


def _is_by_tenant(contract: WorkflowContract) -> bool:
    if contract.input_type is None or "tenantId" not in contract.id_expression:
        return False
    field = codec.proto_class(contract.input_type).DESCRIPTOR.fields_by_name.get("tenant_id")
    return field is not None and field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated


def _refused(workflow_type: str, reason: str) -> SettingsError:
    return SettingsError([f"modules.harvest.on_finished: {workflow_type!r}: {reason}"])
