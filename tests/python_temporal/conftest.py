# pyright: basic, reportMissingImports=false
"""Generates the shop's code once, with both plugins as protoc runs them, and makes it importable."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from temporalio.testing import WorkflowEnvironment

from contextunity.worker.temporal.plugin import ContextWorkerPlugin
from contextunity.worker.temporal.search_attributes import register_attributes
from contextunity.worker.testing import workflows as workflows
from python_temporal import service_of

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def generate_shop(target: Path) -> None:
    """Writes the package `acme_gen`, and beside it the shop's implementation, into a folder."""
    output = target / "acme_gen"
    output.mkdir(parents=True)
    protos = _HERE / "shop/proto"
    api = _folder("temporalio") / "bridge/sdk-core/crates/protos/protos/api_upstream"
    command = [sys.executable, "-m", "grpc_tools.protoc", *(f"-I{folder}" for folder in (protos, _ROOT / "proto", api))]
    for name in ("python_messages", "python_temporal"):
        script = target / f"protoc-gen-{name}"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} -m protoc_gen_{name}\n")
        script.chmod(0o755)
        command += [f"--plugin=protoc-gen-{name}={script}", f"--{name}_out=package=acme_gen:{output}"]
    files = sorted(path.relative_to(protos).as_posix() for path in protos.rglob("*.proto"))
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for module in ("shop_workflows.py", "shop_activities.py", "shop_foreign.py"):
        text = (_HERE / "shop" / module).read_text(encoding="utf-8")
        # The first line is for pyright in this repository, where acme_gen does not exist.
        (target / module).write_text(text.partition("\n")[2], encoding="utf-8")


@pytest.fixture(scope="session")
def shop_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("shop")
    generate_shop(target)
    return target


@pytest.fixture(scope="session")
def shop(shop_folder: Path) -> Iterator[None]:
    """Puts the shop's modules on the import path."""
    sys.path.insert(0, str(shop_folder))
    yield
    sys.path.remove(str(shop_folder))


@pytest.fixture(scope="session")
def plugin() -> ContextWorkerPlugin:
    return ContextWorkerPlugin(passthrough_modules=["acme_gen"])


@pytest.fixture
async def environment(shop: None, plugin: ContextWorkerPlugin) -> AsyncIterator[WorkflowEnvironment]:
    """A dev server with the shop's search attributes, and a client that knows the shop's messages."""
    from acme_gen.acme.shop.v1 import shop_temporal

    server = str(Path(sys.executable).parent / "temporal")
    # Untyped here, because the SDK's signature is not fully typed itself.
    async with await cast("Any", WorkflowEnvironment).start_local(
        plugins=[plugin],
        dev_server_existing_path=server,
        dev_server_log_level="error",
    ) as environment:
        await register_attributes(environment.client, service_of(shop_temporal.CheckoutWorkflowBase).workflows.values())
        yield environment
