# pyright: basic, reportMissingImports=false
"""A workflow that calls as other SDKs do: by name, with whatever payload it was given."""

from __future__ import annotations

from acme_gen.acme.shop.v1 import shop_temporal
from temporalio import workflow
from temporalio.common import RawValue


@workflow.defn
class CallNotify:
    """Passes its own input on to an activity that takes none."""

    @workflow.run
    async def run(self, payload: RawValue) -> None:
        contract = shop_temporal.notify.contract
        await workflow.execute_activity(
            contract.name,
            payload,
            task_queue=shop_temporal.SHOP_SERVICE_TASK_QUEUE,
            start_to_close_timeout=contract.start_to_close_timeout,
            retry_policy=contract.retry_policy,
        )
