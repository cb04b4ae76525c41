"""The compiled extension: what it takes and what it gives up on, that it is used, and that it loses no memory."""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib
import os
import pickle
import pkgutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import contextunity.gen
import pytest
from contextunity.gen.contextunity.core import ContextUnit, CotStep, UnitMetrics
from contextunity.gen.contextunity.harvest.v1 import Availability, Money, Product, ProductPage

from betterproto2_codec._compile import conversions_of
from betterproto2_codec._schema import (  # pyright: ignore[reportPrivateUsage]
    _UNFIT,
    IS_NATIVE,
    _accessors,
)
from contextunity.core import codec
from contextunity.core.exact_datetime import ExactDatetime, ExactTimedelta

if not IS_NATIVE:
    pytest.skip("the extension is not built, or switched off", allow_module_level=True)

from betterproto2_codec import _wire

_MOMENT = datetime(2024, 2, 29, 23, 59, 59, 250_000, tzinfo=UTC)


def _page() -> ProductPage:
    products = [
        Product(
            sku=f"sku-{number}",
            title="Gavarnie 漢字",
            tags=["a", "b"],
            options={"size": "L", "colour": "moss"},
            price=Money(currency_code="EUR", units=-number, nanos=5),
            stock=number if number % 2 else None,
            availability=Availability(number % 3),
        )
        for number in range(50)
    ]
    return ProductPage(products=products)


def _unit() -> ContextUnit:
    return ContextUnit(
        unit_id="5b0a3c1e-7f1c-4b8e-9d61-1f6f3c1d2a90",
        payload=codec.dict_to_struct({"text": "é", "number": 1.5, "none": None, "list": [1, {"deep": [True]}]}),
        chain_of_thought=[CotStep(agent="planner", timestamp=_MOMENT)],
        metrics=UnitMetrics(latency_ms=12, cost_usd=-0.0),
        created_at=_MOMENT,
        provenance=["commerce:trigger"],
    )


def test_every_message_of_ours_is_known_to_it() -> None:
    for module in pkgutil.walk_packages(contextunity.gen.__path__, "contextunity.gen."):
        if module.ispkg:
            importlib.import_module(module.name)
    classes = importlib.import_module("contextunity.gen.message_pool").default_message_pool.type_to_url
    ours = [cls for cls in classes if codec.full_name(cls).startswith("contextunity.")]
    assert len(ours) > 40
    assert [cls for cls in ours if conversions_of(cls).schema is None] == []


@pytest.mark.parametrize("message", [_page(), _unit()], ids=["page", "unit"])
def test_usual_messages_never_get_to_google(message: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec.encode(message)
    binary = importlib.import_module("betterproto2_codec._binary")
    for name in ("_fill", "_read"):
        monkeypatch.delattr(binary, name)
    assert codec.decode(type(message), codec.encode(message)) == codec.decode(type(message), data) == message
    assert codec.from_proto(type(message), codec.to_proto(message)) == message


def _field(number: int, wire: int, body: bytes) -> bytes:
    return bytes([number << 3 | wire]) + body


_INT = _field(3, 0, b"\x05")  # an_int32 of Scalars
_NAME = b"\x0a\x01a"  # name of Node
_ENDLESS = b"\xff" * 9


@pytest.mark.parametrize(
    ("shape", "data", "taken"),
    [
        pytest.param("Scalars", b"", True, id="nothing"),
        pytest.param("Scalars", _INT + _field(3, 0, b"\x07"), True, id="the last of two numbers"),
        pytest.param("Scalars", _field(3, 0, b"\xfb" + b"\xff" * 8 + b"\x01"), True, id="negative in ten bytes"),
        pytest.param("Scalars", _field(3, 0, b"\xff\xff\xff\xff\x0f"), True, id="negative in five bytes"),
        pytest.param("Scalars", _field(3, 0, b"\x85\x80\x80\x80\x10"), True, id="more than 32 bits"),
        pytest.param("Scalars", _field(3, 0, b"\x85\x00"), True, id="longer than need be"),
        pytest.param("Scalars", _field(6, 0, _ENDLESS + b"\x01"), True, id="largest uint64"),
        pytest.param("Scalars", _field(6, 0, _ENDLESS + b"\x02"), False, id="more than 64 bits"),
        pytest.param("Scalars", _field(6, 0, _ENDLESS + b"\xff\x01"), False, id="eleven bytes"),
        pytest.param("Scalars", _field(7, 0, b"\x03"), True, id="sint32"),
        pytest.param("Scalars", _field(7, 0, b"\xff\xff\xff\xff\x1f"), True, id="sint32 of more than 32 bits"),
        pytest.param("Scalars", _field(13, 0, b"\x80\x80\x80\x80\x10"), True, id="bool of more than 32 bits"),
        pytest.param("Scalars", _field(1, 1, b"\0" * 7 + b"\x80"), True, id="negative zero"),
        pytest.param("Scalars", _field(1, 1, b"\x01" + b"\0" * 5 + b"\xf0\x7f"), True, id="signalling NaN"),
        pytest.param("Scalars", _field(2, 5, b"\x01\0\xa0\x7f"), True, id="signalling NaN of 32 bits"),
        pytest.param("Scalars", _field(14, 2, b"\x80\x00"), True, id="length longer than need be"),
        pytest.param("Scalars", _field(14, 2, b"\x81\x80\x80\x80\x80\x00a"), False, id="length of six bytes"),
        pytest.param("Scalars", b"\x98\x00\x05", False, id="tag longer than need be"),
        pytest.param("Scalars", b"\x9b\x80\x80\x80\x10\x05", False, id="tag of more than 32 bits"),
        pytest.param("Scalars", _INT + b"\x00\x00", False, id="field number 0"),
        pytest.param("Scalars", _field(3, 5, b"\0\0\0\0"), False, id="wrong wire type"),
        pytest.param("Scalars", _field(3, 2, b"\x01\x05"), False, id="a packed number that is no list"),
        pytest.param("Scalars", b"\x80\x01\x05", False, id="unknown field"),
        pytest.param("Scalars", b"\x80\x10\x05", False, id="unknown field of a large number"),
        pytest.param("Scalars", b"\x1b\x1c", False, id="group"),
        pytest.param("Scalars", b"\x1f", False, id="wire type 7"),
        pytest.param("Scalars", _INT[:1], False, id="tag alone"),
        pytest.param("Scalars", _field(1, 1, b"\0" * 7), False, id="truncated double"),
        pytest.param("Scalars", _field(9, 5, b"\0" * 3), False, id="truncated fixed32"),
        pytest.param("Scalars", _field(14, 2, b"\x02a"), False, id="truncated text"),
        pytest.param("Scalars", _field(14, 2, b"\x02\xc3("), False, id="no UTF-8"),
        pytest.param("Scalars", _field(14, 2, b"\x03\xed\xa0\x80"), False, id="surrogate"),
        pytest.param("Lists", _field(3, 2, b"\x02\x01\x02") + _field(3, 0, b"\x03"), True, id="packed and not"),
        pytest.param("Lists", b"\x82\x01\x02\x01\x02", True, id="packed where it is written unpacked"),
        pytest.param("Lists", _field(3, 2, b"\x00"), True, id="packed nothing"),
        pytest.param("Lists", _field(9, 2, b"\x06\0\0\0\0\0\0"), False, id="packed one and a half"),
        pytest.param("Lists", _field(3, 2, b"\x01\x80") + _field(3, 0, b"\x03"), False, id="packed number cut off"),
        pytest.param("Maps", _field(1, 2, b"\x05\x12\x01a\x08\x07"), True, id="value before key"),
        pytest.param("Maps", _field(1, 2, b"\x00"), True, id="entry of neither"),
        pytest.param("Maps", b"\x9a\x01\x03\x0a\x01k", True, id="entry without its message"),
        pytest.param("Maps", b"\xaa\x01\x03\x0a\x01k", True, id="entry without its time"),
        pytest.param("Maps", b"\xb2\x01\x03\x0a\x01k", True, id="entry without its wrapped value"),
        pytest.param("Maps", _field(1, 2, b"\x02\x08\x07") * 2, True, id="a key twice"),
        pytest.param("Maps", _field(1, 2, b"\x04\x08\x07\x08\x08"), False, id="two keys in an entry"),
        pytest.param("Maps", _field(1, 2, b"\x02\x18\x07"), False, id="unknown field in an entry"),
        pytest.param("Node", b"\x12\x03" + _NAME, True, id="message"),
        pytest.param("Node", (b"\x12\x03" + _NAME) * 2, False, id="messages that are merged"),
        pytest.param("Oneofs", _field(1, 0, b"\x05") * 2, True, id="one member twice"),
        pytest.param("Oneofs", _field(1, 0, b"\x05") + _field(2, 2, b"\x01a"), False, id="two members"),
        pytest.param("Oneofs", _field(1, 0, b"\x05") + b"\x60\x01", True, id="members of two oneofs"),
        pytest.param("Enums", _field(1, 0, b"\x4d"), True, id="unknown number of an enum"),
        pytest.param("Enums", _field(2, 0, _ENDLESS + b"\x01"), True, id="negative enum"),
        pytest.param("Wrappers", _field(3, 2, b"\x00"), True, id="wrapped default"),
        pytest.param("Wrappers", _field(3, 2, b"\x04\x08\x01\x08\x02"), True, id="wrapped twice over"),
        pytest.param("Wrappers", _field(3, 2, b"\x02\x08\x01") * 2, False, id="wrappers that are merged"),
        pytest.param("WellKnown", _field(1, 2, b"\x02\x10\x01"), True, id="one nanosecond"),
        pytest.param("WellKnown", _field(2, 2, b"\x0b\x10" + _ENDLESS + b"\x01"), True, id="minus one nanosecond"),
        pytest.param("WellKnown", _field(1, 2, b"\x0b\x10" + _ENDLESS + b"\x01"), False, id="nanos below zero"),
        pytest.param("WellKnown", _field(1, 2, b"\x0b\x08" + _ENDLESS + b"\x01"), True, id="before the epoch"),
        pytest.param("WellKnown", _field(1, 2, b"\x0a\x08" + b"\xff" * 8 + b"\x7f"), False, id="no such time"),
        pytest.param("WellKnown", _field(1, 2, b"\x00") * 2, False, id="times that are merged"),
    ],
)
def test_bytes_are_taken_as_google_takes_them_or_given_up_on(
    shapes: Any, native_decoding: Any, shape: str, data: bytes, taken: bool
) -> None:
    assert native_decoding(getattr(shapes, shape), data) is taken


def _nested(shapes: Any, levels: int) -> Any:
    node = shapes.Node()
    for _ in range(levels):
        node = shapes.Node(next=node)
    return node


@pytest.mark.parametrize(
    ("message", "taken"),
    [
        pytest.param(lambda s: s.Scalars(a_double=-0.0, a_float=-0.0), True, id="negative zero"),
        pytest.param(lambda s: s.Scalars(a_float=1e-60), True, id="a float that becomes zero"),
        pytest.param(lambda s: s.Scalars(a_float=1e39), False, id="a float too large"),
        pytest.param(lambda s: s.Scalars(a_float=-float("inf")), True, id="an infinite float"),
        pytest.param(lambda s: s.Scalars(a_double=5), True, id="int for a double"),
        pytest.param(lambda s: s.Scalars(a_double=10**400), False, id="int too large for a double"),
        pytest.param(lambda s: s.Scalars(an_int32=True), False, id="bool for an int"),
        pytest.param(lambda s: s.Scalars(an_int32=2**31), False, id="int32 too large"),
        pytest.param(lambda s: s.Scalars(a_uint64=-1), False, id="negative uint64"),
        pytest.param(lambda s: s.Scalars(a_bool=1), False, id="int for a bool"),
        pytest.param(lambda s: s.Scalars(a_string="\ud800"), False, id="surrogate"),
        pytest.param(lambda s: s.Scalars(some_bytes=bytearray(b"a")), False, id="bytearray"),
        pytest.param(lambda s: s.Lists(strings=("a",)), False, id="tuple for a list"),
        pytest.param(lambda s: s.Lists(bytes_list=[b"x" * 700] * 9), True, id="more than one buffer"),
        pytest.param(lambda s: s.Enums(levels=[s.Level(-1), 5, s.Level(2**31 - 1)]), True, id="enums and ints"),
        pytest.param(lambda s: s.Enums(level=s.Colour(1)), False, id="another enum"),
        pytest.param(lambda s: s.Oneofs(number=0, text=""), False, id="two members of a oneof"),
        pytest.param(lambda s: s.WellKnown(timestamp=datetime.max.replace(tzinfo=UTC)), True, id="end of time"),
        pytest.param(lambda s: s.WellKnown(timestamp=datetime.min.replace(tzinfo=UTC)), True, id="start of time"),
        pytest.param(lambda s: s.WellKnown(timestamp=datetime(2030, 1, 1)), False, id="naive time"),
        pytest.param(lambda s: s.WellKnown(timestamp=_MOMENT.astimezone(timezone(timedelta(1) / 2))), False, id="zone"),
        pytest.param(lambda s: s.WellKnown(duration=timedelta(microseconds=-1)), True, id="negative duration"),
        pytest.param(lambda s: s.WellKnown(duration=timedelta.min), False, id="duration too long"),
        pytest.param(lambda s: s.WellKnown(timestamp=ExactDatetime.of(_MOMENT, 1)), True, id="exact time"),
        pytest.param(lambda s: s.WellKnown(duration=ExactTimedelta(nanoseconds=-1)), True, id="exact duration"),
        pytest.param(lambda s: type("Derived", (s.Node,), {})(), False, id="derived class"),
        pytest.param(lambda s: _nested(s, 90), True, id="nested deep"),
        pytest.param(lambda s: _nested(s, 91), False, id="nested near the limit"),
    ],
)
def test_instances_are_written_as_google_writes_them_or_given_up_on(
    shapes: Any, native_decoding: Any, native_encoding: Any, message: Any, taken: bool
) -> None:
    made = message(shapes)
    assert native_encoding(made) is taken
    if taken:
        assert native_decoding(type(made), codec.encode(made))


def test_any_day_is_the_day_that_datetime_makes_of_it(shapes: Any, native_decoding: Any, native_encoding: Any) -> None:
    day = datetime(1, 1, 1, 12, tzinfo=UTC)
    while day.year < 9970:
        message = shapes.WellKnownLists(timestamps=[day + timedelta(days=number) for number in range(367)])
        assert native_encoding(message)
        assert native_decoding(shapes.WellKnownLists, codec.encode(message))
        day += timedelta(days=27 * 365)


def test_unknown_fields_of_an_instance_are_given_up_on(native_encoding: Any) -> None:
    money = Money()
    money._unknown_fields = b"\xa8\x06\x07"  # pyright: ignore[reportPrivateUsage]
    assert not native_encoding(Product(price=money))


def test_each_instance_has_lists_and_dicts_of_its_own(shapes: Any) -> None:
    schema: Any = conversions_of(shapes.Maps).schema
    first, second = schema.decode(b""), schema.decode(b"")
    first.string_keys["a"] = "b"
    assert second.string_keys == {}


def test_what_holds_a_message_that_it_cannot_handle_is_given_up_on() -> None:
    schema = _schema_of(_Plain, [_wire.Field(1, _UNFIT, presence=True)])
    # The tag of a number, of bytes, and what the field would have if 8 were a wire type.
    for data in (b"\x08\x05", b"\x0a\x00", b"\x18\x05"):
        assert schema.decode(data) is None
    holder = _Plain()
    vars(holder).update(a1=object(), _unknown_fields=b"")
    assert schema.encode(holder) is None


class _Plain:
    pass


class _Slotted:
    __slots__ = (*(f"a{number}" for number in range(1, 8)), "_unknown_fields")


class _Watched:
    """Its first attribute is kept elsewhere, and not as it is read."""

    @property
    def a1(self) -> int:
        kept: tuple[int] = vars(self)["kept"]
        return kept[0]

    @a1.setter
    def a1(self, value: int) -> None:
        vars(self)["kept"] = (value,)


class _Weak:
    __slots__ = ("__dict__", "__weakref__")


def _schema_of(cls: type, fields: list[Any]) -> Any:
    named: Any = SimpleNamespace(
        name=cls.__name__, fields=[SimpleNamespace(attribute=f"a{number}") for number in range(1, len(fields) + 1)]
    )
    schema = _wire.Schema(cls)
    schema.define(tuple(fields), *_accessors(named))
    return schema


@pytest.mark.parametrize(
    ("cls", "count"),
    [
        pytest.param(_Plain, 7, id="usual"),
        pytest.param(_Plain, 100, id="more attributes than have places"),
        pytest.param(_Slotted, 7, id="slots"),
        pytest.param(_Weak, 7, id="a dict by a slot"),
        pytest.param(_Watched, 7, id="a property"),
    ],
)
def test_attributes_are_found_however_a_class_keeps_them(cls: type, count: int) -> None:
    schema = _schema_of(cls, [_wire.Field(number, 5, default=0) for number in range(1, count + 1)])
    data = b"".join(_varint(number << 3) + b"\x07" for number in range(1, count + 1, 2))
    for _ in range(40):
        made = schema.decode(data)
        assert [getattr(made, f"a{number}") for number in range(1, count + 1)] == [
            7 * (number % 2) for number in range(1, count + 1)
        ]
        assert schema.encode(made) == data


def _varint(value: int) -> bytes:
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7])


def _with_dict_asked_for(product: Product) -> None:
    assert vars(product)["title"] == product.title


def _with_another_dict(product: Product) -> None:
    anything: Any = product
    anything.__dict__ = dict(reversed(vars(product).items()))


def _with_an_attribute_more(product: Product) -> None:
    product.seen = True  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def _with_one_set_anew(product: Product) -> None:
    title = product.title
    del product.title
    product.title = title


def _with_many_attributes_more(product: Product) -> None:
    for number in range(60):
        setattr(product, f"more_{number}", number)


@pytest.mark.parametrize(
    "change",
    [
        _with_dict_asked_for,
        _with_another_dict,
        _with_an_attribute_more,
        _with_one_set_anew,
        _with_many_attributes_more,
    ],
)
@pytest.mark.parametrize("origin", [copy.copy, lambda each: codec.decode(Product, codec.encode(each))])
def test_instances_are_written_however_they_keep_their_attributes(
    native_encoding: Any, change: Any, origin: Any
) -> None:
    expected = codec.encode(_page().products[1])
    product = origin(_page().products[1])
    change(product)
    assert native_encoding(product)
    assert codec.encode(product) == expected
    assert codec.encode(ProductPage(products=[product, product])) == codec.encode(
        ProductPage(products=[_page().products[1]] * 2)
    )


def test_a_deleted_attribute_is_given_up_on_or_is_the_default_of_the_class() -> None:
    schema: Any = conversions_of(Product).schema
    for name in ("tags", "sku", "stock", "_unknown_fields"):
        product = _page().products[1]
        delattr(product, name)
        data = schema.encode(product)
        assert data is None or data == codec.encode(
            dataclasses.replace(_page().products[1], **{name: getattr(product, name)})
        )
        # What was written up to there is not in the way of the next.
        assert schema.encode(_page().products[1]) == codec.encode(_page().products[1])


def test_decoded_instances_are_as_those_that_are_called_for() -> None:
    called = _page().products[1]
    made = codec.decode(Product, codec.encode(called))
    assert list(vars(made)) == list(vars(codec.decode(Product, b"")))
    assert vars(made) == vars(called)
    assert made == called == copy.deepcopy(made) == pickle.loads(pickle.dumps(made))
    made.title = "another"
    del made.brand
    made.brand = "b"
    assert (vars(made)["title"], vars(made)["brand"]) == ("another", "b")
    assert codec.encode(made) == codec.encode(dataclasses.replace(called, title="another", brand="b"))


def test_texts_that_look_alike_are_told_apart_and_equal_ones_are_one_object(shapes: Any) -> None:
    # All of one length, and alike at both ends and in the middle.
    alike = [f"{'é' * 10}{number:04}{'e' * 40}{number:04}{'é' * 10}" for number in range(300)]
    texts = [*alike, *alike, "", "a", "é", "", "漢" * 2000, "漢" * 2000, "x" * 5000, "x" * 5000]
    message = shapes.Lists(strings=texts)
    decoded = codec.decode(shapes.Lists, codec.encode(message)).strings
    assert decoded == texts
    twice = codec.decode(shapes.Lists, codec.encode(shapes.Lists(strings=["once more"] * 1000))).strings
    assert len({id(text) for text in twice}) == 1
    broken = codec.encode(message).replace("漢漢".encode(), "漢".encode()[:2] + b"\xff" + "漢".encode(), 1)
    assert conversions_of(shapes.Lists).schema.decode(broken) is None  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


def test_threads_write_large_messages_at_once() -> None:
    # Plain values let other threads run in between, and so large ones share what memory was kept.
    payloads = [{str(number): f"{letter}é" * 300 for number in range(3000)} for letter in "abcd"]
    unit = ContextUnit()
    expected = [codec.encode_apart(unit, "payload", payload) for payload in payloads]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(payloads)) as pool:
            for _ in range(5):
                found = list(pool.map(lambda payload: codec.encode_apart(unit, "payload", payload), payloads))
                assert found == expected
    finally:
        sys.setswitchinterval(switch)


def test_it_loses_no_memory() -> None:
    page, unit = _page(), _unit()
    wrong: Any = Product(sku="a" * 5000, line=2**63, tags=["b"])
    cases = [(type(each), each, codec.encode(each)) for each in (page, unit)]

    def go_round() -> None:
        for cls, message, data in cases:
            schema: Any = conversions_of(cls).schema
            assert schema.encode(message) is not None
            assert schema.decode(data) is not None
            for end in range(1, len(data), 101):
                schema.decode(data[:end])
            schema.decode(data + b"\x00")
        of_unit = codec.encode(unit)
        for end in range(len(of_unit) + 1):
            codec.decode_apart(ContextUnit, of_unit[:end], "payload")
        codec.encode_apart(unit, "payload", {"text": "é", "list": [1, 0.5, None, True, {"deep": []}]})
        assert conversions_of(Product).schema.encode(wrong) is None  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]

    tracemalloc.start()
    try:
        for _ in range(2):
            go_round()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(6):
            go_round()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One object that is lost in a round would be 6 x 50 bytes at the very least, and of most there are hundreds.
    assert after - before < 6 * 50


def test_without_it_the_same_tests_pass() -> None:
    folder = Path(__file__).parent
    files = [str(folder / f"test_{name}.py") for name in ("any", "bytes", "no_other_codec", "times", "wrong_values")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "CONTEXTWORKER_PURE_PYTHON": "1", "PYTEST_ADDOPTS": ""}
    without = [
        sys.executable,
        "-c",
        "from betterproto2_codec._schema import IS_NATIVE; raise SystemExit(IS_NATIVE)",
    ]
    assert subprocess.run(without, env=environment, check=False).returncode == 0
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
