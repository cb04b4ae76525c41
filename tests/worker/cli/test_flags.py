"""Flags of a contract: what is typed, what it becomes, and what is refused."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from contextunity.gen.contextunity.worker import FieldDescription

from contextunity.worker.cli.inputs import ContractFlags

_COLOURS = ["COLOUR_UNSPECIFIED", "COLOUR_RED", "COLOUR_DARK_GREEN"]


def _parse(field: FieldDescription, *words: str) -> dict[str, Any]:
    parser, flags = argparse.ArgumentParser(), ContractFlags([field])
    flags.add_to(parser)
    return flags.given(parser.parse_args(words))


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "", ""),
        ("string", "-x y", "-x y"),
        ("int32", "-2147483648", -(2**31)),
        ("uint32", "4294967295", 2**32 - 1),
        ("int64", "9007199254740992", 2**53),
        pytest.param("int64", "9007199254740993", "9007199254740993", id="not exact as a number"),
        ("fixed64", "18446744073709551615", "18446744073709551615"),
        ("google.protobuf.Int64Value", "7", 7),
        ("double", "1.5e3", 1500.0),
        ("float", "-inf", "-Infinity"),
        ("double", "nan", "NaN"),
        ("bytes", "aGk=", "aGk="),
        ("google.protobuf.Timestamp", "2030-01-31T08:00:00Z", "2030-01-31T08:00:00Z"),
        ("google.protobuf.Duration", "1.5", "1.5s"),
        ("google.protobuf.Duration", "90s", "90s"),
        ("google.protobuf.FieldMask", "a,b", "a,b"),
        ("google.protobuf.Struct", '{"a": [1]}', {"a": [1]}),
        ("map<string, int32>", '{"a": 1}', {"a": 1}),
        ("acme.v1.Address", '{"street": "Main"}', {"street": "Main"}),
    ],
)
def test_values_are_typed_as_the_field_has_them(kind: str, text: str, value: Any) -> None:
    assert _parse(FieldDescription(name="some_field", type=kind), f"--some-field={text}") == {"some_field": value}


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("int32", "2147483648", "2147483648 is not between -2147483648 and 2147483647"),
        ("uint64", "-1", "-1 is not between 0 and"),
        ("int32", "1.5", "'1.5' is not a whole number"),
        ("double", "much", "'much' is not a number"),
        ("google.protobuf.Timestamp", "tomorrow", "'tomorrow' is not a time such as"),
        ("google.protobuf.Timestamp", "2030-01-31T08:00:00", "'2030-01-31T08:00:00' lacks its time zone"),
        ("google.protobuf.Duration", "an hour", "'an hour' is not a number of seconds"),
        ("google.protobuf.Duration", "inf", "'inf' is not a number of seconds"),
        ("acme.v1.Address", "Main", "not JSON: "),
    ],
)
def test_what_the_field_cannot_hold_is_refused(
    kind: str, text: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        _parse(FieldDescription(name="some_field", type=kind), f"--some-field={text}")
    assert caught.value.code == 2
    assert f"argument --some-field: {reason}" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["red", "RED", "Red", "COLOUR_RED", "colour_red", "Colour-Red"])
def test_enums_go_by_word_or_name_in_any_case(text: str) -> None:
    field = FieldDescription(name="colour", type="acme.v1.Colour", enum_values=_COLOURS)
    assert _parse(field, "--colour", text) == {"colour": "COLOUR_RED"}
    field = FieldDescription(name="colours", type="map<string, acme.v1.Colour>", enum_values=_COLOURS)
    assert _parse(field, "--colours", f"a={text}") == {"colours": {"a": "COLOUR_RED"}}


def test_an_unknown_enum_word_is_refused_with_those_known(capsys: pytest.CaptureFixture[str]) -> None:
    field = FieldDescription(name="colour", type="acme.v1.Colour", enum_values=_COLOURS)
    assert _parse(field, "--colour", "dark-green") == {"colour": "COLOUR_DARK_GREEN"}
    with pytest.raises(SystemExit):
        _parse(field, "--colour", "dark-gren")
    assert "'dark-gren' is not one of red, dark_green; did you mean dark_green?" in capsys.readouterr().err


def test_truths_are_switches() -> None:
    field = FieldDescription(name="dry_run", type="bool")
    assert _parse(field, "--dry-run") == {"dry_run": True}
    assert _parse(field, "--no-dry-run") == {"dry_run": False}
    assert _parse(field) == {}


def test_lists_are_given_by_repeating() -> None:
    field = FieldDescription(name="sizes", type="int32", repeated=True)
    assert _parse(field, "--sizes", "1", "--sizes", "2") == {"sizes": [1, 2]}
    assert _parse(FieldDescription(name="on", type="bool", repeated=True), "--on", "true", "--on", "False") == {
        "on": [True, False]
    }


def test_maps_are_given_entry_by_entry_or_whole() -> None:
    field = FieldDescription(name="weights", type="map<string, double>")
    assert _parse(field, "--weights", "a=1", "--weights", "b=2.5") == {"weights": {"a": 1.0, "b": 2.5}}
    assert _parse(field, "--weights", '{"a": 1}', "--weights", "a=2") == {"weights": {"a": 2.0}}
    with pytest.raises(SystemExit):
        _parse(field, "--weights", "a")
    with pytest.raises(SystemExit):
        _parse(field, "--weights", "a=much")


def test_the_help_has_descriptions_words_and_rules() -> None:
    parser = argparse.ArgumentParser()
    fields = [
        FieldDescription(name="share", type="double", description="Part,\nin %.", rules=["double.gte: 0"]),
        FieldDescription(name="colours", type="acme.v1.Colour", repeated=True, enum_values=_COLOURS),
    ]
    ContractFlags(fields).add_to(parser)
    text = " ".join(parser.format_help().split())
    assert "--share NUMBER Part, in %. [gte: 0]" in text
    assert "--colours WORD One of red, dark_green. May be given again." in text


def test_a_field_called_like_a_general_option_has_another_flag() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    flags = ContractFlags(
        [FieldDescription(name="json", type="string"), FieldDescription(name="tenant", type="string")]
    )
    flags.add_to(parser)
    given = parser.parse_args(["--json", "--field-json", "x"])
    assert given.json is True
    assert flags.given(given) == {"json": "x"}
    assert flags.names("payload.") == {"payload.json": "--field-json", "payload.tenant": "--tenant"}
