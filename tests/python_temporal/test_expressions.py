"""How values become parts of ids: each ends where its end can be told, so ids of unlike inputs are unlike."""

from __future__ import annotations

from typing import Any

import pytest
from contextunity.gen.contextunity.harvest.v1 import HarvestRequest
from contextunity.gen.contextunity.harvest.v1 import harvest_temporal as harvest
from hypothesis import given
from hypothesis import strategies as st

from python_temporal import start_arguments
from python_temporal.codegen import text


@pytest.mark.parametrize(
    ("tenant_id", "supplier_code", "workflow_id"),
    [
        pytest.param("acme", "x/y", "harvest/acme/x/y", id="last_is_left_alone"),
        pytest.param("k1/b", "c", "harvest/k1%2Fb/c", id="separator"),
        pytest.param("k1", "b/c", "harvest/k1/b/c", id="its_twin"),
        pytest.param("50%", "50%", "harvest/50%25/50%", id="percent"),
        pytest.param("k1%2Fb", "c", "harvest/k1%252Fb/c", id="already_encoded"),
        pytest.param("a b:ü@+", "c", "harvest/a b:ü@+/c", id="all_else_is_left_alone"),
    ],
)
def test_only_what_would_be_misread_is_encoded(tenant_id: str, supplier_code: str, workflow_id: str) -> None:
    request = HarvestRequest(tenant_id=tenant_id, supplier_code=supplier_code)
    assert start_arguments(harvest.harvest_workflow.contract, request)["id"] == workflow_id


@pytest.mark.parametrize(
    ("value", "before", "expected"),
    [
        pytest.param("a-b", "-", "a%2Db", id="any_separator"),
        pytest.param("2%5", "2", "%32%255", id="digit_of_the_encoding"),
        pytest.param("zür", "ü", "z%C3%BCr", id="utf_8"),
        pytest.param("a%/", "", "a%25/", id="no_text_between"),
        pytest.param("a%/", None, "a%/", id="last"),
        pytest.param(b"\xff\xff", "/", "%2F%2F8=", id="bytes"),
        pytest.param(-5, "-", "%2D5", id="integer"),
        pytest.param(True, "t", "%74rue", id="bool"),
    ],
)
def test_the_rule_is_exact(value: Any, before: str | None, expected: str) -> None:
    assert text(value, "field", "work", before) == expected


_FEW = "a2%/F"
"""Few characters, those of the encoding among them, so that many texts would meet."""
_VALUES = st.text(alphabet=_FEW, min_size=1, max_size=5)
_LITERALS = st.one_of(st.text(alphabet=_FEW.replace("%", ""), min_size=1, max_size=3), st.text(min_size=1, max_size=2))


@given(data=st.data(), literals=st.lists(_LITERALS.filter(lambda each: each[0] != "%"), min_size=1, max_size=3))
def test_ids_of_unlike_inputs_are_unlike(data: st.DataObject, literals: list[str]) -> None:
    inputs = st.tuples(*[_VALUES] * (len(literals) + 1))
    one, two = data.draw(inputs), data.draw(inputs)
    assert (_id(one, literals) == _id(two, literals)) == (one == two)


@given(data=st.data(), literals=st.lists(_LITERALS.filter(lambda each: each[0] != "%"), min_size=1, max_size=3))
def test_an_id_gives_back_what_it_was_made_of(data: st.DataObject, literals: list[str]) -> None:
    values = data.draw(st.tuples(*[_VALUES] * (len(literals) + 1)))
    rest, read = _id(values, literals), list[str]()
    for literal in literals:
        data_bytes = bytearray()
        while rest[0] != literal[0]:
            if rest[0] == "%":
                data_bytes.append(int(rest[1:3], 16))
                rest = rest[3:]
            else:
                data_bytes += rest[0].encode()
                rest = rest[1:]
        read.append(data_bytes.decode())
        assert rest.startswith(literal)
        rest = rest[len(literal) :]
    assert (*read, rest) == values


def _id(values: tuple[str, ...], literals: list[str]) -> str:
    """As generated code makes it."""
    *first, last = values
    parts = [text(value, "field", "work", literal[0]) + literal for value, literal in zip(first, literals, strict=True)]
    return "".join(parts) + text(last, "field", "work")
