"""Places for activities that mostly wait: bounded in all and for each value of a key, and given back."""

from __future__ import annotations

import contextlib

import pytest
from temporalio.exceptions import ApplicationError

from contextunity.worker.temporal.concurrency import LIMIT_REACHED, ConcurrencyLimit


def test_a_tenant_has_so_many_and_others_have_theirs() -> None:
    places = ConcurrencyLimit("fetches", 10, {"tenant": 2})
    with places.hold(tenant="a"), places.hold(tenant="a"):
        with (
            pytest.raises(ApplicationError, match=r"fetches are taken: 2 for the tenant 'a'") as caught,
            places.hold(tenant="a"),
        ):
            pass
        assert (caught.value.type, caught.value.non_retryable) == (LIMIT_REACHED, True)
        with places.hold(tenant="b"):
            pass
    with places.hold(tenant="a"), places.hold(tenant="a"):
        pass


def test_each_key_bounds_by_itself() -> None:
    places = ConcurrencyLimit("fetches", 10, {"tenant": 2, "supplier": 1})
    with places.hold(tenant="a", supplier="x"):
        with pytest.raises(ApplicationError, match="supplier 'x'"), places.hold(tenant="b", supplier="x"):
            pass
        # Who was refused holds nothing: not the tenant's place either.
        with places.hold(tenant="b", supplier="y"), places.hold(tenant="b", supplier="z"):
            pass


def test_the_worker_has_so_many_in_all() -> None:
    places = ConcurrencyLimit("fetches", 3, {"tenant": 2})
    with contextlib.ExitStack() as held:
        for tenant in "abc":
            held.enter_context(places.hold(tenant=tenant))
        with pytest.raises(ApplicationError, match="3 in this worker"), places.hold(tenant="d"):
            pass
    with places.hold(tenant="d"):
        pass


def test_a_place_is_given_back_by_what_fails() -> None:
    places = ConcurrencyLimit("fetches", 1, {"tenant": 1})
    with pytest.raises(ZeroDivisionError), places.hold(tenant="a"):
        raise ZeroDivisionError
    with places.hold(tenant="a"):
        pass
