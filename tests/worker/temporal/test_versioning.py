"""Worker versioning: what contracts declare and what the settings say have to agree, and then it works."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import HarvestRequest, HarvestResponse
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as harvest
from temporalio.client import Client
from temporalio.common import VersioningBehavior

from contextunity.modules.harvest.plugin import module
from contextunity.worker.embedded import EmbeddedServer
from contextunity.worker.errors import RegistryError, SettingsError
from contextunity.worker.modules.registry import RegisteredModule
from contextunity.worker.settings import Settings
from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.worker import running_workers

_CLIENT: Any = None
"""Refused before any client is used."""


def _module(behavior: VersioningBehavior | None) -> RegisteredModule:
    workflow = dataclasses.replace(harvest.harvest_workflow.contract, versioning_behavior=behavior)
    service = dataclasses.replace(harvest.harvest_service, workflows={"Harvest": workflow})
    return RegisteredModule(config=module, contracts=(service,), settings=None)


async def test_a_declared_behavior_without_a_deployment_is_refused_before_workflows_hang() -> None:
    with pytest.raises(RegistryError, match=r"'harvest' declares versioning_behavior.*CONTEXTWORKER_DEPLOYMENT_NAME"):
        async with running_workers(_CLIENT, [_module(VersioningBehavior.PINNED)], Settings()):
            pass


@pytest.mark.parametrize("setting", ["deployment_name", "build_id"])
async def test_half_a_deployment_is_refused(setting: str) -> None:
    settings = Settings.model_validate({setting: "x"})
    with pytest.raises(SettingsError, match="deployment_name and build_id go together"):
        async with running_workers(_CLIENT, [_module(None)], settings):
            pass


async def _harvest(address: str) -> HarvestResponse:
    client = await Client.connect(address, plugins=[ContextWorkerPlugin()])
    request = HarvestRequest(tenant_id="versioned", supplier_code="camping-trade")
    return await harvest.HarvestServiceClient(client).harvest(request)


def test_a_versioned_worker_runs_workflows_of_its_version(
    spawn: Any, temporal_server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "contextworker.toml").write_text("[modules.harvest]\nsample_products = 20\n")
    worker = spawn(
        "-m",
        "contextunity.worker",
        "--temporal",
        TEMPORAL_ADDRESS=temporal_server.address,
        CONTEXTWORKER_DEPLOYMENT_NAME="catalogue",
        CONTEXTWORKER_BUILD_ID="7",
    )
    worker.wait_for("Temporal workers run for modules")
    command = [str(Path(sys.executable).parent / "temporal"), "worker", "deployment", "set-current-version"]
    command += ["--address", temporal_server.address, "--deployment-name", "catalogue", "--yes"]
    # The server learns of a version with the worker's first poll, and refuses to make it current before that.
    codes = (
        subprocess.run([*command, "--build-id", "7"], capture_output=True, check=False).returncode for _ in range(100)
    )
    assert 0 in codes
    result = asyncio.run(_harvest(temporal_server.address))
    # Other tests use the task queue without versions; this server must not send their work to this version.
    subprocess.run([*command, "--unversioned"], capture_output=True, text=True, check=True)
    assert result.counts is not None
    assert result.counts.created > 20
