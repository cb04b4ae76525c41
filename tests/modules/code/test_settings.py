"""Settings of the code module, the places that it gives, and the tool that the harvest module brings."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import Money, PageRef, Product, ProductPage, Publication, RawPage
from pydantic import ValidationError

from contextunity.modules.code.errors import SandboxBusyError, ToolRefusedError
from contextunity.modules.code.program_slots import ProgramSlots
from contextunity.modules.code.settings import CodeSettings
from contextunity.modules.code.tools import ToolCaller, open_tools
from contextunity.modules.harvest.catalogue import Catalogue


def test_maximum_follows_the_limits_unless_set() -> None:
    settings = CodeSettings.model_validate({"limits": {"wall": 40.0}})
    assert (settings.maximum.wall, settings.maximum.cpu) == (40.0, 5.0)
    assert CodeSettings.model_validate({"limits": {"wall": 2.0}}).maximum.wall == 2.0
    assert CodeSettings.model_validate({"maximum": {"wall": 60.0}}).limits.wall == 5.0


@pytest.mark.parametrize(
    "section",
    [{}, {"limits": {"cpu": 2.0}}, {"maximum": {"cpu": 9.0}}, {"limits": {}, "maximum": {}}],
    ids=["nothing", "a limit", "a maximum", "empty"],
)
def test_half_a_minute_may_be_asked_for_where_no_setting_says(section: dict[str, Any]) -> None:
    settings = CodeSettings.model_validate(section)
    assert (settings.limits.wall, settings.maximum.wall) == (5.0, 30.0)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        pytest.param(
            {"limits": {"wall": 9}, "maximum": {"wall": 8}}, "limits.wall 9 is above maximum.wall 8", id="max"
        ),
        pytest.param({"parallel": 1, "parallel_per_tenant": 2}, "is above parallel 1", id="parallel"),
        pytest.param({"python": "pypy"}, "monty", id="backend"),
        pytest.param({"limits": {"walls": 1}}, "walls", id="misspelt"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        CodeSettings.model_validate(section)


def test_the_module_loads_without_its_interpreter() -> None:
    code = "import sys, contextunity.modules.code.plugin; print('pydantic_monty' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


async def test_places_are_bounded_for_each_tenant_and_for_all() -> None:
    program_slots = ProgramSlots(2, 1, patience=0.05)
    async with program_slots.hold("a"):
        with pytest.raises(SandboxBusyError):
            async with program_slots.hold("a"):
                pass
        async with program_slots.hold("b"):
            with pytest.raises(SandboxBusyError):
                async with program_slots.hold("c"):
                    pass
    async with program_slots.hold("a"), program_slots.hold("b"):
        pass
    waiting = ProgramSlots(1, 1)
    async with waiting.hold("a"):
        cancelled = asyncio.create_task(waiting.hold("a").__aenter__())
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
    async with waiting.hold("a"):
        pass


def _fill(folder: Path) -> None:
    with Catalogue.open(f"sqlite:///{folder / 'harvest' / 'catalogue.db'}") as catalogue:
        for supplier, title in (("north", "Tent"), ("south", "Same tent")):
            page = PageRef(tenant_id="acme", supplier_code=supplier, harvest_id="h", page=0)
            price = Money(currency_code="EUR", units=98, nanos=700_000_000)
            catalogue.put_raw_page(page, RawPage())
            catalogue.put_product_page(page, ProductPage(products=[Product(sku="T-1", title=title, price=price)]))
            catalogue.sync_page(page)


async def test_lookup_sku_tells_the_publication_and_offers_only_what_is_sold(tmp_path: Path) -> None:
    caller = ToolCaller(tenant_id="acme", call_id="1")
    with Catalogue.open(f"sqlite:///{tmp_path / 'harvest' / 'catalogue.db'}") as catalogue:
        for supplier, title in (("north", "Draft"), ("south", "Sold")):
            page = PageRef(tenant_id="acme", supplier_code=supplier, harvest_id="h", page=0)
            products = [
                Product(sku=publication.name or "", title=title, publication=publication) for publication in Publication
            ]
            if supplier == "south":
                products.append(Product(sku="BOTH", title=title, publication=Publication.ACTIVE))
            else:
                products.append(Product(sku="BOTH", title=title, publication=Publication.DRAFT))
            catalogue.put_raw_page(page, RawPage())
            catalogue.put_product_page(page, ProductPage(products=products))
            catalogue.sync_page(page)
    async with open_tools(CodeSettings(), tmp_path) as tools:
        told = {each: await tools.call("lookup_sku", caller, [each.name], {}) for each in Publication}
        both: Any = await tools.call("lookup_sku", caller, ["BOTH"], {})
        assert await tools.call("lookup_sku", caller, ["BOTH"], {"supplier_code": "north"}) is None
    offered: Any = {each: product for each, product in told.items() if product is not None}
    assert {each: product["publication"] for each, product in offered.items()} == {
        Publication.UNSPECIFIED: "",
        Publication.ACTIVE: "active",
    }
    assert (both["supplier_code"], both["publication"]) == ("south", "active")


async def test_lookup_sku_finds_the_products_of_its_tenant_alone(tmp_path: Path) -> None:
    _fill(tmp_path)
    acme, other = (ToolCaller(tenant_id=tenant, call_id="1") for tenant in ("acme", "other"))
    async with open_tools(CodeSettings(), tmp_path) as tools:
        first: Any = await tools.call("lookup_sku", acme, ["T-1"], {})
        second: Any = await tools.call("lookup_sku", acme, ["T-1"], {"supplier_code": "south"})
        assert (first["supplier_code"], first["title"], first["price"]) == ("north", "Tent", "98.70")
        assert (second["title"], second["currency_code"]) == ("Same tent", "EUR")
        assert await tools.call("lookup_sku", acme, ["T-2"], {}) is None
        assert await tools.call("lookup_sku", other, ["T-1"], {}) is None
        with pytest.raises(ToolRefusedError, match="needs sku as a string"):
            await tools.call("lookup_sku", acme, [7], {})
    async with open_tools(CodeSettings(tools={"lookup_sku": {"enabled": False}}), tmp_path) as fewer:
        assert sorted(fewer.functions) == ["http_get"]
