"""The registry: everything is checked first, all faults are told at once, and only then anything changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from contextunity.modules.harvest.activities import fetch_products, sync_to_brain, transform_data
from contextunity.modules.harvest.plugin import module as harvest
from contextunity.modules.harvest.workflows import HarvestWorkflow, ListRejectedWorkflow
from contextunity.worker.errors import RegistryError, SettingsError, UnknownModuleError
from contextunity.worker.modules.registry import ModuleConfig, WorkerRegistry


class _Settings(BaseModel):
    size: int = 1


def _config(**changes: Any) -> ModuleConfig:
    values: dict[str, Any] = {
        "name": "harvest",
        "workflows": [HarvestWorkflow],
        "activities": [fetch_products, transform_data, sync_to_brain],
    }
    return ModuleConfig(**{**values, **changes})


def test_a_module_is_found_by_name_and_its_workflows_by_type() -> None:
    registry = WorkerRegistry()
    registry.register(harvest)
    assert list(registry.modules) == ["harvest"]
    assert registry.workflows["harvest"].input_type is not None
    assert registry.modules["harvest"].task_queues == ("harvest",)
    workflows, activities = registry.modules["harvest"].handlers("harvest")
    assert workflows == [HarvestWorkflow, ListRejectedWorkflow]
    assert len(activities) == 8


def test_modules_are_selected_in_the_order_asked_for_and_unknown_ones_named() -> None:
    registry = WorkerRegistry()
    registry.register(harvest)
    assert [module.config.name for module in registry.select(None)] == ["harvest"]
    assert [module.config.name for module in registry.select(["harvest", "harvest"])] == ["harvest"]
    with pytest.raises(UnknownModuleError, match="unknown modules 'a', 'b'; known modules: harvest"):
        registry.select(["a", "harvest", "b"])


def _stranger() -> None:
    """An activity of no contract."""


@pytest.mark.parametrize(
    ("config", "told"),
    [
        pytest.param(lambda: _config(activities=[]), "fetch_products", id="activities missing"),
        pytest.param(lambda: _config(workflows=[]), "harvest", id="workflow missing"),
        pytest.param(lambda: _config(activities=[_stranger]), "_stranger belongs to no contract", id="no contract"),
        pytest.param(lambda: _config(name="a b"), "'a b' is not made of letters", id="name"),
        pytest.param(
            lambda: _config(statuses={"FeedEmpty": "UNAVAILABLE"}), "statuses.*UNAVAILABLE.*NOT_FOUND", id="status"
        ),
        pytest.param(
            lambda: _config(activities=[fetch_products, fetch_products, transform_data, sync_to_brain]),
            "fetch_products",
            id="activity twice",
        ),
    ],
)
def test_a_module_that_does_not_match_its_contract_is_refused(config: Callable[[], ModuleConfig], told: str) -> None:
    registry = WorkerRegistry()
    with pytest.raises(RegistryError, match=told):
        registry.register(config())
    assert not registry.modules
    assert not registry.workflows


def test_a_clash_with_a_module_that_is_there_names_everything_that_clashes() -> None:
    registry = WorkerRegistry()
    registry.register(harvest)
    with pytest.raises(RegistryError) as caught:
        registry.register(_config(name="harvest"))
    assert {fault.split(" is ")[0] for fault in caught.value.faults} == {
        "module name 'harvest'",
        "workflow_type 'harvest'",
        "task queue 'harvest'",
    }


def test_faults_of_several_modules_are_told_together_and_none_is_registered() -> None:
    registry = WorkerRegistry()
    with pytest.raises(RegistryError) as caught:
        registry.register_all([harvest, _config(name="second", activities=[_stranger]), _config(name="a b")])
    text = str(caught.value)
    assert "'second'" in text
    assert "'a b'" in text
    assert not registry.modules


def test_a_module_gets_its_checked_settings() -> None:
    registry = WorkerRegistry(module_settings={"harvest": {"size": "7"}})
    registry.register(_config(settings=_Settings))
    assert registry.modules["harvest"].settings == _Settings(size=7)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param(_Settings, "modules.harvest.size = 'many'", id="wrong value"),
        pytest.param(None, "modules.harvest.size: the module harvest has no settings", id="no settings"),
    ],
)
def test_wrong_settings_of_a_module_are_named(settings: type[BaseModel] | None, told: str) -> None:
    registry = WorkerRegistry(module_settings={"harvest": {"size": "many"}})
    with pytest.raises(SettingsError, match=told):
        registry.register(_config(settings=settings))
    assert not registry.modules
