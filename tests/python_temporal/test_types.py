"""What type checkers say of generated code and of its use: nothing of what is right, and something of what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

_IMPORTS = """\
from __future__ import annotations
from datetime import timedelta
from typing import assert_type
from typing_extensions import final
from temporalio import client as sdk, workflow
from acme_gen.acme.shop.v1 import (
    AuditRequest, AuditResponse, BasketLine, ChargeRequest, CheckoutRequest, CheckoutResponse, CountDownRequest,
    CountDownResponse, Item, PayRequest, Receipt, Status,
)
from acme_gen.acme.shop.v1 import extra_temporal as extra, shop_temporal as shop
from contextunity.worker.testing import ActivityFakes
_ALL = (
    ActivityFakes,
    AuditRequest, AuditResponse, BasketLine, ChargeRequest, CheckoutRequest, CheckoutResponse, CountDownRequest,
    CountDownResponse, Item, PayRequest, Receipt, Status, assert_type, final, timedelta, sdk, workflow, extra, shop,
)
"""

_RIGHT = {
    "activity_call": """
async def use() -> None:
    assert_type(await shop.charge(ChargeRequest()), Receipt)
    assert_type(await shop.charge(ChargeRequest(), start_to_close_timeout=timedelta(seconds=1)), Receipt)
    assert_type(await shop.charge.local(ChargeRequest()), Receipt)
    assert_type(await shop.charge.start(ChargeRequest()), Receipt)
    assert_type(await shop.notify(), None)
""",
    "activity_function": """
@shop.charge.defn
async def charge(request: ChargeRequest) -> Receipt:
    return Receipt()

@shop.charge.defn
def charge_in_a_thread(request: ChargeRequest) -> Receipt:
    return Receipt()

@shop.notify.defn
async def notify() -> None: ...
""",
    "activity_object": """
class Mixed(shop.ShopServiceActivities):
    async def charge(self, request: ChargeRequest) -> Receipt:
        return Receipt()
    def notify(self) -> None: ...
    def audit(self, request: AuditRequest) -> AuditResponse:
        return AuditResponse()
    async def old_charge(self, request: ChargeRequest) -> Receipt:
        return Receipt()

Mixed().activities()
""",
    "workflow": """
@final
class CountDown(shop.CountDownWorkflowBase):
    async def run(self, request: CountDownRequest) -> CountDownResponse:
        if request.left:
            shop.count_down_workflow.continue_as_new(CountDownRequest())
        return CountDownResponse()
""",
    "child": """
async def use() -> None:
    child = await shop.checkout_workflow.start_child(CheckoutRequest(), id="x")
    assert_type(await child, CheckoutResponse)
    await child.add_item(Item())
    assert_type(await shop.tick_workflow.execute_child(), None)
    await shop.checkout_workflow.external("id").cancel_()
""",
    "client": """
async def use(temporal: sdk.Client) -> None:
    client = shop.ShopServiceClient(temporal)
    assert_type(await client.checkout(CheckoutRequest()), CheckoutResponse)
    handle = await client.start_checkout(CheckoutRequest(), id="x", run_timeout=None)
    assert_type(handle, shop.CheckoutHandle)
    assert_type(await handle.result(), CheckoutResponse)
    assert_type(await handle, CheckoutResponse)
    assert_type(await handle.get_status(), Status)
    assert_type(await handle.find_item(Item()), BasketLine)
    assert_type(await handle.add_item(Item()), None)
    assert_type(await handle.pay(PayRequest()), Receipt)
    assert_type(await (await handle.start_pay(PayRequest())).result(), Receipt)
    assert_type(await (await handle.start_pay(PayRequest())), Receipt)
    assert_type(client.get_checkout("id"), shop.CheckoutHandle)
    both = await client.start_checkout_with_pay(CheckoutRequest(), PayRequest())
    assert_type(await both[1].result(), Receipt)
    assert_type(await client.start_checkout_with_add_item(CheckoutRequest(), Item()), shop.CheckoutHandle)
""",
    "fakes": """
async def charge(request: ChargeRequest) -> Receipt:
    return Receipt()

async def notify() -> None: ...

def use(fakes: ActivityFakes) -> None:
    fakes.replaces(shop.charge, charge)
    fakes.replaces(shop.charge, lambda request: Receipt(number=str(request)))
    fakes.replaces(shop.notify, notify)
    fakes.replaces(shop.notify, lambda: None)
""",
}

_WRONG = {
    "workflow_called_like_an_activity": "async def use() -> None:\n    await shop.checkout_workflow(CheckoutRequest())",
    "workflow_called_without_input": "async def use() -> None:\n    await shop.tick_workflow()",
    "fake_result": """
async def charge(request: ChargeRequest) -> Item:
    return Item()

def use(fakes: ActivityFakes) -> None:
    fakes.replaces(shop.charge, charge)
""",
    "activity_input": "async def use() -> None:\n    await shop.charge(Item())",
    "activity_result": "async def use() -> None:\n    item: Item = await shop.charge(ChargeRequest())",
    "activity_without_input": "async def use() -> None:\n    await shop.charge()",
    "activity_with_an_input_too_many": "async def use() -> None:\n    await shop.notify(Item())",
    "unknown_option": "async def use() -> None:\n    await shop.charge(ChargeRequest(), timeout=timedelta())",
    "wrong_option": "async def use() -> None:\n    await shop.charge(ChargeRequest(), start_to_close_timeout=5)",
    "remote_option_of_a_local_activity": (
        "async def use() -> None:\n    await shop.charge.local(ChargeRequest(), heartbeat_timeout=timedelta())"
    ),
    "function_input": "@shop.charge.defn\nasync def charge(request: Item) -> Receipt:\n    return Receipt()",
    "function_result": "@shop.charge.defn\nasync def charge(request: ChargeRequest) -> Item:\n    return Item()",
    "sync_function_result": "@shop.charge.defn\ndef charge(request: ChargeRequest) -> Item:\n    return Item()",
    "missing_activity": """
class Some(shop.ShopServiceActivities):
    async def charge(self, request: ChargeRequest) -> Receipt:
        return Receipt()

Some()
""",
    "method_of_activity": """
class Some(shop.ShopServiceActivities):
    async def charge(self, request: Item) -> Receipt:
        return Receipt()
""",
    "missing_handler_of_a_final_workflow": """
@final
class Checkout(shop.CheckoutWorkflowBase):
    async def run(self, request: CheckoutRequest) -> CheckoutResponse:
        return CheckoutResponse()
""",
    "run_input": """
class CountDown(shop.CountDownWorkflowBase):
    async def run(self, request: Item) -> CountDownResponse:
        return CountDownResponse()
""",
    "run_result": """
class CountDown(shop.CountDownWorkflowBase):
    async def run(self, request: CountDownRequest) -> Item:
        return Item()
""",
    "sync_run": """
class CountDown(shop.CountDownWorkflowBase):
    def run(self, request: CountDownRequest) -> CountDownResponse:
        return CountDownResponse()
""",
    "async_query": """
class Checkout(shop.CheckoutWorkflowBase):
    async def get_status(self) -> Status:
        return Status()
""",
    "signal_input": """
class Checkout(shop.CheckoutWorkflowBase):
    def add_item(self, request: Status) -> None: ...
""",
    "update_result": """
class Checkout(shop.CheckoutWorkflowBase):
    async def pay(self, request: PayRequest) -> Item:
        return Item()
""",
    "validator_result": """
class Checkout(shop.CheckoutWorkflowBase):
    def validate_pay(self, request: PayRequest) -> bool:
        return True
""",
    "start_input": "async def use(client: shop.ShopServiceClient) -> None:\n    await client.checkout(Item())",
    "start_result": """
async def use(client: shop.ShopServiceClient) -> None:
    a: Item = await client.checkout(CheckoutRequest())
""",
    "start_option": """
async def use(client: shop.ShopServiceClient) -> None:
    await client.start_tick(cron_schedule="* * * * *")
""",
    "signal_of_another_workflow": "async def use(handle: shop.TickHandle) -> None:\n    await handle.add_item(Item())",
    "signal_of_a_child": "async def use(child: shop.CheckoutChild) -> None:\n    await child.add_item(Status())",
    "query_result": "async def use(handle: shop.CheckoutHandle) -> None:\n    a: Item = await handle.get_status()",
    "update_input": "async def use(handle: shop.CheckoutHandle) -> None:\n    await handle.pay(Item())",
    "deprecated_activity": "async def use() -> None:\n    await shop.old_charge(ChargeRequest())",
    "deprecated_local_activity": "async def use() -> None:\n    await extra.old_notify.local()",
    "deprecated_child": "async def use() -> None:\n    await extra.old_borrow_workflow.start_child(ChargeRequest())",
    "deprecated_child_without_input": "async def use() -> None:\n    await extra.old_wait_workflow.execute_child()",
    "deprecated_start": (
        "async def use(client: extra.ExtraServiceClient) -> None:\n    await client.old_borrow(ChargeRequest())"
    ),
    "deprecated_signal": "async def use(handle: shop.CheckoutHandle) -> None:\n    await handle.remind()",
    "continue_as_new_input": "def use() -> None:\n    shop.count_down_workflow.continue_as_new(Item())",
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Errors by file name, of each checker."""

    mypy: Mapping[str, list[str]]
    pyright: Mapping[str, list[str]]


@pytest.fixture(scope="module")
def findings(shop_folder: Path) -> Findings:
    """Runs each checker once, in its strict mode, over the generated code, the shop, and all snippets."""
    snippets = {f"right_{name}.py": text for name, text in _RIGHT.items()}
    snippets |= {f"wrong_{name}.py": text for name, text in _WRONG.items()}
    for name, text in snippets.items():
        (shop_folder / name).write_text(_IMPORTS + text + "\n", encoding="utf-8")
    generated = [path.relative_to(shop_folder).as_posix() for path in sorted(shop_folder.rglob("*_temporal.py"))]
    files = [*generated, "shop_workflows.py", "shop_activities.py", *snippets]
    return Findings(mypy=_mypy(shop_folder, files), pyright=_pyright(shop_folder, files))


def _mypy(folder: Path, files: list[str]) -> Mapping[str, list[str]]:
    command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--cache-dir=.mypy_cache"]
    command += ["--enable-error-code=deprecated", *files]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in done.stdout.splitlines():
        file, separator, text = line.partition(": error: ")
        if separator:
            found[file.partition(":")[0]].append(text)
    return found


def _pyright(folder: Path, files: list[str]) -> Mapping[str, list[str]]:
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.11", "include": files}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=dict(os.environ))
    found: defaultdict[str, list[str]] = defaultdict(list)
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files), done.stdout
    for each in report["generalDiagnostics"]:
        if each["severity"] == "error":
            name = Path(each["file"]).relative_to(folder).as_posix()
            found[name].append(f"{each['range']['start']['line'] + 1}: {each['message']}")
    return found


@pytest.mark.timeout(300)
def test_generated_code_and_the_shop_are_clean(findings: Findings) -> None:
    for found in (findings.mypy, findings.pyright):
        assert {name: texts for name, texts in found.items() if not name.startswith(("right_", "wrong_"))} == {}


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in _RIGHT])
def test_right_use_passes(findings: Findings, name: str) -> None:
    assert findings.mypy.get(f"right_{name}.py", []) == []
    assert findings.pyright.get(f"right_{name}.py", []) == []


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in _WRONG])
def test_wrong_use_fails(findings: Findings, name: str) -> None:
    assert findings.mypy.get(f"wrong_{name}.py"), "mypy finds nothing"
    assert findings.pyright.get(f"wrong_{name}.py"), "pyright finds nothing"
