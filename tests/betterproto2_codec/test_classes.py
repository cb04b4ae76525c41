"""Full names and classes, in ContextUnity's generated tree and in others."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import betterproto2
import pytest
from contextunity.gen.contextunity.harvest.v1 import Money, harvest_pb2
from contextunity.gen.google.protobuf import Struct
from google.protobuf import struct_pb2

from betterproto2_codec import import_pb2
from contextunity.core import codec


def test_the_full_name_is_that_of_the_proto(shapes: Any, tree: ModuleType) -> None:
    assert codec.full_name(Money) == codec.full_name(Money()) == "contextunity.harvest.v1.Money"
    assert codec.full_name(shapes.OuterInnerInnermost) == "shapes.v1.Outer.Inner.Innermost"
    assert codec.full_name(tree.Bare) == "Bare"
    assert codec.full_name(tree.BareInside) == "Bare.Inside"


def test_a_class_is_found_by_its_full_name(shapes: Any, tree: ModuleType) -> None:
    assert codec.message_class("contextunity.harvest.v1.Money") is Money
    assert codec.message_class("shapes.v1.Outer.Inner.Innermost") is shapes.OuterInnerInnermost
    assert codec.message_class("Bare.Inside") is tree.BareInside


def test_contextunitys_own_tree_comes_first(wkt: Any) -> None:
    assert codec.message_class("google.protobuf.Struct") is Struct
    assert wkt.Struct is not Struct


def test_a_package_of_a_loaded_tree_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys; from contextunity.core import codec; "
        "assert 'contextunity.gen.contextunity.harvest.v1' not in sys.modules; "
        "print(codec.message_class('contextunity.harvest.v1.Money'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(Money), done.stderr


@pytest.mark.parametrize("name", ["no.such.Message", "", "contextunity.harvest.v1.Nope", "contextunity.harvest.v1"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(codec.CodecError, match="no loaded tree has a message"):
        codec.message_class(name)


def test_googles_class_is_the_generated_one(tree: ModuleType) -> None:
    assert codec.proto_class(Money) is harvest_pb2.Money
    assert codec.proto_class(Struct) is struct_pb2.Struct
    bare = codec.proto_class(tree.Bare)
    assert bare is importlib.import_module(f"{tree.__name__}.bare_pb2").Bare
    assert codec.decode(tree.Bare, codec.encode(tree.Bare(inside=tree.BareInside(number=3)))).inside.number == 3


def test_a_class_that_was_not_generated_is_refused() -> None:
    class Homemade(betterproto2.Message):
        """In no pool."""

    refused = pytest.raises(codec.CodecError, match="Homemade is not a generated betterproto2 message")
    with refused:
        codec.full_name(Homemade)
    with refused:
        codec.proto_class(Homemade)
    with refused:
        codec.encode(Homemade())
    with refused:
        codec.decode(Homemade, b"")


def test_dataclasses_without_pb2_modules_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("lonely")
    pool = betterproto2.MessagePool()  # type: ignore[no-untyped-call]  # betterproto2 does not type it
    module.__dict__["default_message_pool"] = pool
    monkeypatch.setitem(sys.modules, "lonely", module)
    alone = type("Alone", (betterproto2.Message,), {"__module__": "lonely"})
    pool.register_message("lonely.v1", "Alone", alone)
    with pytest.raises(codec.CodecError, match=r"lonely\.v1\.Alone: .*generate both with protoc-gen-python_messages"):
        codec.decode(alone, b"")


def test_a_dataclass_that_disagrees_with_its_pb2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from betterproto2_codec import _model

    monkeypatch.setattr(_model, "_models", {})

    def another(name: str, module: str) -> object:
        return harvest_pb2.Product

    monkeypatch.setattr(_model, "proto_class_by_name", another)
    with pytest.raises(codec.CodecError, match="disagree on the fields numbered 4, 5"):
        _model.model_of(Money)


def test_googles_method_names_are_good_names_for_fields(names: Any) -> None:
    message = names.GoogleMethods(has_field="a", list_fields="b", descriptor="c", copy_from=names.GoogleMethods())
    assert codec.decode(names.GoogleMethods, codec.encode(message)) == message
    # Google's JSON stumbles over its own names, and says so instead of writing something wrong.
    with pytest.raises(codec.CodecError, match="it has no JSON form"):
        codec.to_json(message)


def test_methods_of_betterproto2_are_good_names_for_fields(names: Any) -> None:
    message = names.Methods(parse="a", to_dict="b", load="c", is_set="d", inner=names.Methods(from_json="e"))
    assert codec.decode(names.Methods, codec.encode(message)) == message
    assert codec.from_json(names.Methods, codec.to_json(message)) == message


def test_first_use_from_many_threads_at_once(tree: ModuleType) -> None:
    code = f"""
import sys, threading
sys.path.insert(0, {str(next(iter(tree.__path__)) + "/..")!r})
import {tree.__name__}.shapes.v1 as shapes
from contextunity.core import codec
sys.setswitchinterval(1e-6)
barrier, done = threading.Barrier(8), []
def use():
    barrier.wait()
    message = shapes.Maps(recursive={{1: shapes.Maps(string_keys={{"a": "b"}})}})
    done.append(codec.decode(shapes.Maps, codec.encode(message)) == message)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(done)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([True] * 8), done.stderr


def test_the_public_names_are_these() -> None:
    assert codec.__all__ == [
        *("CodecError", "JsonValue", "Violation", "decode", "decode_apart", "dict_to_struct", "encode", "encode_apart"),
        *("from_dict", "from_json", "from_proto", "full_name", "list_fields", "message_class", "pack_any"),
        *(
            "proto_class",
            "serialize",
            "struct_to_dict",
            "timestamp_to_datetime",
            "to_dict",
            "to_json",
            "to_proto",
            "type_url",
            "unpack_any",
        ),
    ]


def test_googles_class_is_found_where_the_file_does_not_lie_as_its_package_says(tree: ModuleType) -> None:
    lost = importlib.import_module(f"{tree.__name__}.elsewhere.v1").Lost
    assert codec.decode(lost, codec.encode(lost(number=5))).number == 5


_SHARED = """syntax = "proto3";
package shared.v1;
message Money { string currency = 1; int64 units = 2; %s }
enum Side { SIDE_UNSPECIFIED = 0; %s }
"""


def _python_of(folder: Path, package: str, name: str, text: str) -> None:
    """Generates a proto below a package of its own, as a team would."""
    out = folder / package
    (out / "protos" / name).parent.mkdir(parents=True)
    (out / "protos" / name).write_text(text)
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{out}/protos", f"--python_out={out}", name]
    subprocess.run(command, check=True)


def _import_both(folder: Path, one: str, two: str) -> str:
    program = f"""
from betterproto2_codec import DescriptorConflictError, import_pb2
import_pb2({one!r})
try:
    import_pb2({two!r})
except DescriptorConflictError as error:
    print(error, error.file, error.modules, len(error.differences), sep=" | ")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("fields", "value", "difference"),
    [
        pytest.param(
            "int32 nanos = 3;",
            "",
            "only b.shared.v1.shared_pb2 has shared.v1.Money.nanos, int32 = 3",
            id="field of the one",
        ),
        pytest.param(
            "repeated Money parts = 4;",
            "",
            "shared.v1.Money.parts is shared.v1.Money = 4 in a.shared.v1.shared_pb2 and "
            "repeated shared.v1.Money = 4 in b.shared.v1.shared_pb2",
            id="another field",
        ),
        pytest.param(
            "Money parts = 4;",
            "SIDE_BUY = 1;",
            "only b.shared.v1.shared_pb2 has shared.v1.Side.SIDE_BUY, value 1",
            id="value",
        ),
        pytest.param("Money parts = 4 [deprecated = true];", "", "options or names in JSON differ", id="option"),
    ],
)
def test_copies_of_a_file_that_differ_are_told_with_their_modules(
    tmp_path: Path, fields: str, value: str, difference: str
) -> None:
    name = "shared/v1/shared.proto"
    _python_of(tmp_path, "a", name, _SHARED % ("" if "nanos" in fields else "Money parts = 4;", ""))
    _python_of(tmp_path, "b", name, _SHARED % (fields, value))
    modules = ("a.shared.v1.shared_pb2", "b.shared.v1.shared_pb2")
    count = int("options" not in difference)
    assert _import_both(tmp_path, *modules) == (
        f"{modules[0]} and {modules[1]} have different copies of {name}: {difference}. One process can only load one "
        f"copy; generate both from the same release of the file | {name} | {modules} | {count}"
    )


def test_a_message_in_two_files_is_told_with_both(tmp_path: Path) -> None:
    _python_of(tmp_path, "a", "shared/v1/shared.proto", _SHARED % ("", ""))
    _python_of(tmp_path, "b", "other/v1/money.proto", _SHARED % ("", ""))
    assert _import_both(tmp_path, "a.shared.v1.shared_pb2", "b.other.v1.money_pb2").startswith(
        "a.shared.v1.shared_pb2 has package shared.v1 in shared/v1/shared.proto, and b.other.v1.money_pb2 has it in "
        "other/v1/money.proto."
    )


def test_other_errors_of_a_module_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_pb2.py").write_text("len(3)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TypeError, match="has no len"):
        import_pb2("broken_pb2")
