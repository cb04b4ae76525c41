"""A program: imports generated packages, sends a message of every kind through the codec, prints what failed as JSON.

Run as `python round_trip.py acme.gen.one acme.gen.two` in the folder that holds `acme`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path.cwd()))

import betterproto2
from google.protobuf.descriptor import FieldDescriptor

from betterproto2_codec._classes import proto_class
from contextunity.core import codec

_SCALARS: dict[int, Any] = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_BYTES: b"bytes",
    FieldDescriptor.TYPE_BOOL: True,
}


def main() -> None:
    print(json.dumps({package: list(_faults(package)) for package in sys.argv[1:]}))


def _faults(package: str) -> Iterator[str]:
    try:
        module = importlib.import_module(package)
        for path in sorted(Path(module.__path__[0]).glob("*_pb2*.py")):
            importlib.import_module(f"{package}.{path.stem}")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        yield f"import: {type(error).__name__}: {error}"
        return
    for url, cls in list(module.default_message_pool.url_to_type.items()):
        if cls.__module__ == package:
            try:
                _try_message(module, cls)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
                yield f"{url}: {type(error).__name__}: {error}"


def _try_message(module: ModuleType, cls: Any) -> None:
    assert getattr(module, cls.__name__) is cls, "another class hides it"
    empty = cls()
    assert codec.encode(empty) == b"", "an empty message has fields"
    assert codec.decode(cls, b"") == empty
    google = proto_class(cls)
    named = {field.name for field in dataclasses.fields(cls)}
    for field in google.DESCRIPTOR.fields:
        # Python changes such names in the body of a class.
        assert not field.name.startswith("__") or field.name in named, f"{field.name} has another name"
        for pb in _filled(google, field):
            data = google.SerializeToString(pb)
            message = codec.decode(cls, data)
            assert codec.encode(message) == data, f"{field.name} is lost"
            assert repr(message)
            if field.enum_type is not None:
                _try_enum(message, field)


def _filled(google: Any, field: Any) -> Iterator[Any]:
    """Google's messages with one field set: to each of its values if it is an enum."""
    if field.enum_type is not None:
        for value in field.enum_type.values:
            yield google(**{field.name: [value.number] if field.is_repeated else value.number})
        return
    pb = google()
    if field.message_type is None:
        value = _SCALARS.get(field.type, 3)
        google.MergeFrom(pb, google(**{field.name: [value] if field.is_repeated else value}))
    elif field.message_type.GetOptions().map_entry:
        key = _SCALARS.get(field.message_type.fields_by_name["key"].type, 3)
        value = field.message_type.fields_by_name["value"]
        if value.message_type is not None:
            getattr(pb, field.name)[key].SetInParent()
        else:
            getattr(pb, field.name)[key] = _SCALARS.get(value.type, 3)
    elif field.is_repeated:
        getattr(pb, field.name).add()
    else:
        getattr(pb, field.name).SetInParent()
    yield pb


def _try_enum(message: Any, field: Any) -> None:
    attribute = next(
        each.name for each in dataclasses.fields(message) if each.metadata["betterproto"].number == field.number
    )
    value = getattr(message, attribute)
    member = value[0] if isinstance(value, list) else value
    assert isinstance(member, betterproto2.Enum)
    assert member.name, f"value {int(member)} of {field.enum_type.name} has no member"
    assert type(member).from_string(member.name) is member
    assert str(member)


main()
