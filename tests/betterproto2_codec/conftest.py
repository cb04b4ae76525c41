"""The test protos, generated as any project generates its own, and random messages of all their shapes."""

from __future__ import annotations

import importlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import betterproto2
import pytest
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

# Google's way by itself.
from betterproto2_codec._binary import _fill as _fill_proto  # pyright: ignore[reportPrivateUsage]
from betterproto2_codec._binary import _read  # pyright: ignore[reportPrivateUsage]
from betterproto2_codec._compile import conversions_of
from contextunity.core import codec

PROTO = Path(__file__).parent / "proto"
PACKAGE = "codec_shapes"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The generated tree of the protos in `proto/`; a tree of its own, beside ContextUnity's."""
    folder = tmp_path_factory.mktemp("generated")
    out = folder / PACKAGE
    out.mkdir()
    beside = Path(sys.executable).parent / "protoc-gen-python_messages"
    plugin = str(beside) if beside.exists() else shutil.which("protoc-gen-python_messages")
    assert plugin is not None, "the project is not installed: its script protoc-gen-python_messages is missing"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--plugin=protoc-gen-python_messages={plugin}"]
    command += [f"--python_messages_out={out}", f"--python_messages_opt=package={PACKAGE}"]
    files = [path.relative_to(PROTO).as_posix() for path in sorted(PROTO.rglob("*.proto"))]
    done = subprocess.run(
        [*command, *files], cwd=PROTO, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module(PACKAGE)
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def shapes(tree: ModuleType) -> Any:
    """The dataclasses of shapes.v1."""
    return importlib.import_module(f"{tree.__name__}.shapes.v1")


@pytest.fixture(scope="session")
def names(tree: ModuleType) -> Any:
    """The dataclasses of names.v1."""
    return importlib.import_module(f"{tree.__name__}.names.v1")


@pytest.fixture(scope="session")
def wkt(tree: ModuleType) -> Any:
    """The dataclasses of google.protobuf in the test protos' own tree."""
    return importlib.import_module(f"{tree.__name__}.google.protobuf")


_INTEGERS = {
    **dict.fromkeys(("INT32", "SINT32", "SFIXED32"), (-(2**31), 2**31 - 1)),
    **dict.fromkeys(("INT64", "SINT64", "SFIXED64"), (-(2**63), 2**63 - 1)),
    **dict.fromkeys(("UINT32", "FIXED32"), (0, 2**32 - 1)),
    **dict.fromkeys(("UINT64", "FIXED64"), (0, 2**64 - 1)),
}
_LARGEST_FLOAT = float.fromhex("0x1.fffffep+127")
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(),
    # The largest float is left out: Google's JSON parser refuses the very text that its writer gives for it.
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32).filter(lambda number: abs(number) != _LARGEST_FLOAT),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=6),
    # Open enums hold any number that an int32 can.
    FieldDescriptor.TYPE_ENUM: st.sampled_from([0, 1, 2, -1, -(2**31), 2**31 - 1, 77]),
    **{
        getattr(FieldDescriptor, f"TYPE_{name}"): st.one_of(
            st.sampled_from([0, 1, low, high]), st.integers(min_value=low, max_value=high)
        )
        for name, (low, high) in _INTEGERS.items()
    },
}

Fill = Callable[[st.DataObject, Message], None]


@pytest.fixture(scope="session")
def fill() -> Fill:
    """Fills one of Google's messages with random values that also have a JSON form."""
    return _fill


def _fill(data: st.DataObject, pb: Message, depth: int = 3) -> None:
    name = pb.DESCRIPTOR.full_name
    special = _SPECIAL.get(name)
    if special is not None:
        special(data, pb, depth)
        return
    used: set[str] = set()
    for field in pb.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if not data.draw(st.booleans()) or (oneof is not None and oneof.name in used):
            continue
        if oneof is not None:
            used.add(oneof.name)
        _fill_field(data, pb, field, depth)


def _fill_field(data: st.DataObject, pb: Any, field: Any, depth: int) -> None:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        _fill_map(data, getattr(pb, field.name), message, depth)
    elif message is not None and depth == 0:
        return
    elif message is not None and field.is_repeated:
        for _ in range(data.draw(st.integers(0, 2))):
            _fill(data, getattr(pb, field.name).add(), depth - 1)
    elif message is not None:
        inner = getattr(pb, field.name)
        inner.SetInParent()
        _fill(data, inner, depth - 1)
    elif field.is_repeated:
        getattr(pb, field.name).extend(data.draw(st.lists(_SCALARS[field.type], max_size=3)))
    elif field.enum_type is not None and field.enum_type.full_name == "google.protobuf.NullValue":
        setattr(pb, field.name, 0)  # Whatever its number, JSON writes null.
    else:
        setattr(pb, field.name, data.draw(_SCALARS[field.type]))


def _fill_map(data: st.DataObject, target: Any, entry: Any, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for name in data.draw(st.lists(_SCALARS[key.type], max_size=2, unique=True)):
        if value.message_type is None:
            target[name] = data.draw(_SCALARS[value.type])
        elif depth > 0:
            target[name].SetInParent()
            _fill(data, target[name], depth - 1)


def _fill_timestamp(data: st.DataObject, pb: Any, depth: int) -> None:
    pb.seconds = data.draw(st.one_of(st.integers(-62_135_596_800, 253_402_300_799), st.sampled_from([0, -1])))
    pb.nanos = data.draw(
        st.one_of(st.integers(0, 999_999_999), st.integers(0, 999_999).map(lambda micros: 1000 * micros))
    )


def _fill_duration(data: st.DataObject, pb: Any, depth: int) -> None:
    nanos = data.draw(st.one_of(st.integers(-(10**18), 10**18), st.sampled_from([0, -1, -1000, -1_500_000_000])))
    seconds, rest = divmod(abs(nanos), 10**9)
    sign = -1 if nanos < 0 else 1
    pb.seconds, pb.nanos = sign * seconds, sign * rest


def _fill_value(data: st.DataObject, pb: Any, depth: int) -> None:
    kinds = ["null_value", "number_value", "string_value", "bool_value", "struct_value", "list_value"]
    kind = data.draw(st.sampled_from(kinds if depth > 0 else kinds[:4]))
    if kind == "number_value":
        pb.number_value = data.draw(st.floats(allow_nan=False, allow_infinity=False))
    elif kind in ("struct_value", "list_value"):
        inner = getattr(pb, kind)
        inner.SetInParent()
        _fill(data, inner, depth - 1)
    else:
        _fill_field(data, pb, pb.DESCRIPTOR.fields_by_name[kind], depth)


def _message_class(name: str) -> type[Message]:
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))


def _fill_any(data: st.DataObject, pb: any_pb2.Any, depth: int) -> None:
    inner = _message_class("shapes.v1.Optionals")()
    _fill(data, inner, 1)
    pb.Pack(inner, deterministic=True)


def _fill_mask(data: st.DataObject, pb: Any, depth: int) -> None:
    pb.paths.extend(data.draw(st.lists(st.sampled_from(["a", "some_path", "a.b_c"]), max_size=2)))


_SPECIAL: dict[str, Callable[[st.DataObject, Any, int], None]] = {
    "google.protobuf.Any": _fill_any,
    "google.protobuf.Duration": _fill_duration,
    "google.protobuf.FieldMask": _fill_mask,
    "google.protobuf.Timestamp": _fill_timestamp,
    "google.protobuf.Value": _fill_value,
}


@pytest.fixture(scope="session")
def native_decoding() -> Callable[[type, bytes], bool]:
    """Whether the extension takes the bytes; then it is asserted that it takes them as google.protobuf does."""
    return _native_decoding


@pytest.fixture(scope="session")
def native_encoding() -> Callable[[Any], bool]:
    """Whether the extension takes the instance; then it is asserted that it writes what google.protobuf writes."""
    return _native_encoding


def _native_decoding(cls: type, data: bytes) -> bool:
    made = _schema(cls).decode(data)
    if made is None:
        return False
    pb = codec.proto_class(cls).FromString(data)
    assert _exact(made) == _exact(_read(cls, pb, conversions_of(cls))), data
    return True


def _native_encoding(message: Any) -> bool:
    data = _schema(type(message)).encode(message)
    if data is None:
        return False
    pb = _fill_proto(message, conversions_of(type(message)))
    google = type(pb)
    assert google.SerializeToString(google.FromString(data), deterministic=True) == google.SerializeToString(
        pb, deterministic=True
    ), message
    # Maps can be in another order, and nothing else; the length is the same even so.
    assert len(data) == google.ByteSize(pb)
    return True


def _schema(cls: type) -> Any:
    schema = conversions_of(cls).schema
    assert schema is not None
    return schema


def _exact(value: Any) -> Any:
    """A value with all that `==` passes over: types, the bits of floats, time zones, what is kept of unknown fields."""
    match value:
        case betterproto2.Message():
            return type(value), {name: _exact(inner) for name, inner in vars(value).items()}
        case list():
            return [_exact(element) for element in value]
        case dict():
            return sorted((repr(key), str(type(key)), repr(_exact(inner))) for key, inner in value.items())
        case float():
            return float, struct.pack("<d", value)
        case datetime():
            return type(value), value.isoformat(), value.tzinfo is UTC, value.fold
        case _:
            return type(value), value
