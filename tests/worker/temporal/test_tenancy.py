"""What may be a tenant's id, and the key under which its tasks wait."""

from __future__ import annotations

import pytest

from contextunity.worker.temporal.tenancy import fairness_key, tenant_violation


@pytest.mark.parametrize("tenant", ["a", "t" * 200, "ä" * 200, "acme.eu:blue@x/y+z-1_2", "магазин", "0"])
def test_letters_of_any_script_are_taken_up_to_200(tenant: str) -> None:
    assert tenant_violation(tenant) == ""


@pytest.mark.parametrize("tenant", ["", "t" * 201, "ä" * 201, "a b", "a\n", "a\0", "~a", "a'b", "a%", "😀"])
def test_others_are_refused(tenant: str) -> None:
    assert tenant_violation(tenant) == "is not a tenant id: 1 to 200 letters, digits and . : @ / + - _"


@pytest.mark.parametrize("tenant", ["t" * 64, "ä" * 32, "€" * 21])
def test_a_key_of_64_bytes_is_the_tenant_itself(tenant: str) -> None:
    assert fairness_key(tenant) == tenant


@pytest.mark.parametrize("tenant", ["t" * 65, "ä" * 33, "€" * 22, "t" * 200])
def test_a_longer_one_is_a_hash_of_it_that_no_tenant_has(tenant: str) -> None:
    key = fairness_key(tenant)
    assert (key[0], len(key.encode())) == ("~", 64)
    assert tenant_violation(key)
    assert key == fairness_key(tenant) != fairness_key(f"{tenant}x")
