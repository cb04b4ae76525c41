"""The protos for callers: complete, clean, with comments, and without annotations and internals."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from contextunity.worker import protos
from contextunity.worker.cli import main
from contextunity.worker.proto_text import Symbols, print_file

_ROOT = Path(__file__).resolve().parents[2]
_BUF = Path(sys.executable).parent / "buf"


def _compile(folder: Path, *names: str, comments: bool = False) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    image = folder.with_name(f"{folder.name}.binpb")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={folder}", f"--descriptor_set_out={image}"]
    more = ["--include_source_info"] if comments else []
    done = subprocess.run([*command, *more, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes()).file}


def _buf(folder: Path, *arguments: str) -> str:
    # Without a home it has no cache of its own.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent)}
    done = subprocess.run(
        [str(_BUF), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client") / "protos"
    assert main(["protos", str(folder), "--client"]) == 0
    return folder


@pytest.fixture(scope="module")
def compiled(exported: Path) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    return _compile(exported, *(path.relative_to(exported).as_posix() for path in exported.rglob("*.proto")))


def test_they_are_what_callers_need_and_nothing_else(exported: Path) -> None:
    names = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert names == {
        "buf.yaml",
        *("contextunity/core/context_unit.proto", "contextunity/code/v1/code.proto"),
        *("contextunity/gardener/v1/gardener.proto", "contextunity/harvest/v1/harvest.proto"),
        *(f"contextunity/worker/{name}.proto" for name in ("code", "schedules", "tasks", "worker")),
        *("google/rpc/error_details.proto", "google/rpc/status.proto"),
    }
    for name in names:
        text = (exported / name).read_text(encoding="utf-8")
        assert "temporal/" not in text
        assert "buf/validate" not in text
        assert "(temporal" not in text
        assert "(buf." not in text
        assert "(contextunity." not in text
    harvest = (exported / "contextunity/harvest/v1/harvest.proto").read_text(encoding="utf-8")
    assert "rpc Harvest(HarvestRequest) returns (HarvestResponse);" in harvest
    assert "rpc SetPageSize(SetPageSizeRequest) returns (SetPageSizeResponse);" in harvest
    assert "FetchProducts" not in harvest, "an activity is no caller's"
    assert '  reserved 5;\n  reserved "resume";' in harvest, "the internal field"
    assert "message HarvestState" not in harvest, "only an internal field is of this type"


def test_buf_finds_them_clean(exported: Path) -> None:
    assert _buf(exported, "lint") == ""
    # Google's own are written as Google writes them.
    assert _buf(exported, "format", "--diff", "--path", "contextunity") == ""


def test_they_mean_on_the_wire_what_ours_mean(
    exported: Path, compiled: dict[str, descriptor_pb2.FileDescriptorProto], tmp_path: Path
) -> None:
    ours = _compile(tmp_path / "whole", *protos.export(tmp_path / "whole"))
    hidden = list[str]()
    for name, file in compiled.items():
        if name.startswith("google/"):
            continue
        assert file.options.go_package == ours[name].options.go_package != ""
        whole = {message.name: message for message in ours[name].message_type}
        for message in file.message_type:
            hidden += _compare(f"{file.package}.{message.name}", message, whole[message.name])
        enums = {enum.name: enum for enum in ours[name].enum_type}
        assert all(enum == enums[enum.name] for enum in file.enum_type)
        services = {service.name: service for service in ours[name].service}
        for service in file.service:
            methods = {method.name: method for method in services[service.name].method}
            for method in service.method:
                original = methods[method.name]
                original.ClearField("options")
                assert method == original
    assert set(hidden) >= {"contextunity.harvest.v1.HarvestRequest.resume"}
    assert {name.rpartition(".")[2] for name in hidden} == _internal_fields()


def _internal_fields() -> set[str]:
    """Names of the fields that our protos mark as internal."""
    texts = [path.read_text(encoding="utf-8") for path in (_ROOT / "proto/contextunity").rglob("*.proto")]
    return {
        name for text in texts for name in re.findall(r"(\w+) = \d+ \[\(contextunity\.worker\.internal\) = true", text)
    }


def _compare(name: str, made: descriptor_pb2.DescriptorProto, whole: descriptor_pb2.DescriptorProto) -> list[str]:
    """Checks that all fields are as they were; gives the names of those that are not there."""
    fields = {field.name: field for field in made.field}
    for field in whole.field:
        # Rules are annotations, and all of ours.
        field.ClearField("options")
        assert fields.get(field.name) in (field, None)
    nested = {message.name: message for message in made.nested_type}
    missing = [f"{name}.{field.name}" for field in whole.field if field.name not in fields]
    for each in whole.nested_type:
        missing += _compare(f"{name}.{each.name}", nested[each.name], each)
    return missing


def test_comments_are_kept(exported: Path) -> None:
    tasks = (exported / "contextunity/worker/tasks.proto").read_text(encoding="utf-8")
    assert "// Typed bodies of the WorkerService methods for tasks." in tasks
    assert "  // It ended with a result.\n  TASK_STATE_COMPLETED = 3;\n" in tasks
    assert (
        "  // Name of the query: its Temporal name, or its method's name in the proto.\n  string query = 4;\n" in tasks
    )


def test_a_buf_yaml_of_somebody_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "buf.yaml").write_text("version: v2\n", encoding="utf-8")
    assert main(["protos", str(tmp_path), "--client"]) == 1
    assert f"{tmp_path / 'buf.yaml'} is not from this command" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["buf.yaml"]


def test_they_are_written_again_over_those_of_before(exported: Path) -> None:
    harvest = exported / "contextunity/harvest/v1/harvest.proto"
    before = harvest.read_text(encoding="utf-8")
    harvest.write_text("", encoding="utf-8")
    assert main(["protos", str(exported), "--client"]) == 0
    assert harvest.read_text(encoding="utf-8") == before


class _Everything:
    """Selects all of a file, but fields that are called `hidden`."""

    def keeps(self, full_name: str) -> bool:
        return True

    def hides(self, field: descriptor_pb2.FieldDescriptorProto) -> bool:
        return field.name == "hidden"

    def imports(self, file: descriptor_pb2.FileDescriptorProto) -> list[str]:
        return [name for name in file.dependency if name != "google/protobuf/descriptor.proto"]


_PROTO3 = """\
// Whose it is.
syntax = "proto3";

// All that proto3 has.
package acme.all.v1;

import "acme/all/v1/base.proto";
import public "google/protobuf/any.proto";
import "google/protobuf/descriptor.proto";

option go_package = "acme.example/all;allv1";
option optimize_for = SPEED;

extend google.protobuf.FieldOptions {
  string note = 50999;
}

// Trades.
service Trade {
  option deprecated = true;
  // Streams both ways.
  rpc Talk(stream Message) returns (stream Message.Inner) {
    option deprecated = true;
    option idempotency_level = NO_SIDE_EFFECTS;
  }
  rpc Say(.acme.all.v1.acme) returns (google.protobuf.Any);
}

// A name that hides the package.
message acme {
  acme.deep below = 1;
  message deep {
    .acme.all.v1.Base base = 1;
    deep again = 2;
  }
}

/* A block
 * of lines. */
message Message {
  // Below the brace.

  option deprecated = true;
  reserved 2, 10 to 12, 1000 to max;
  reserved "old", "older";
  // An inner one.
  message Inner {
    enum Mood {
      option allow_alias = true;
      MOOD_UNSPECIFIED = 0;
      MOOD_GOOD = 1 [deprecated = true]; // happy
      MOOD_FINE = 1;
      reserved 5, 8 to max;
      reserved "MOOD_BAD";
    }
    Mood mood = 1;
    optional Mood maybe = 2;
  }
  string name = 1 [json_name = "Name\\"d", (note) = "x"]; // its name
  repeated int32 numbers = 3 [packed = false];
  map<string, Inner> inners = 4;
  map<int64, Inner.Mood> moods = 5;
  // One of them.
  oneof one {
    string text = 6;
    // Bytes.
    bytes data = 7;
  }
  optional double ratio = 8;
  oneof other {
    Base base = 9;
  }
  uint64 hidden = 20;
  google.protobuf.Any any = 21 [deprecated = true];
  fixed32 some_long_name = 22;
}
"""
_BASE = 'syntax = "proto3";\npackage acme.all.v1;\nmessage Base {}\n'
_PROTO2 = """\
syntax = "proto2";
package acme.two;
message Two {
  required string name = 1 [default = "a\\"b\\\\c\\n\\001"];
  optional bytes data = 2 [default = "\\000\\377"];
  optional double ratio = 3 [default = inf];
  repeated sint32 values = 4 [packed = true];
  optional Kind kind = 5 [default = KIND_B];
  oneof one {
    string text = 6;
  }
  extensions 100 to 199, 500 to max;
  extend Two {
    optional string inside = 101;
  }
}
enum Kind {
  KIND_A = 1;
  KIND_B = -2;
}
extend Two {
  optional Two more = 100;
  repeated int32 counts = 102 [packed = true];
}
"""
_EDITIONS = """\
edition = "2023";
package acme.edition;
option features.field_presence = IMPLICIT;
message Edition {
  string name = 1 [features.field_presence = EXPLICIT];
  Edition inner = 2 [features.message_encoding = DELIMITED];
  reserved gone;
  reserved 7;
}
enum Open {
  option features.enum_type = CLOSED;
  OPEN_A = 1;
}
"""
_FILES = {
    "acme/all/v1/all.proto": _PROTO3,
    "acme/all/v1/base.proto": _BASE,
    "acme/two/two.proto": _PROTO2,
    "acme/edition/edition.proto": _EDITIONS,
}


def _print_again(files: dict[str, str], folder: Path) -> dict[str, str]:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    found = _compile(folder, *files, comments=True)
    symbols = Symbols(list(found.values()))
    return {name: print_file(file, _Everything(), symbols) for name, file in found.items()}


def _without_what_is_left_out(file: descriptor_pb2.FileDescriptorProto) -> Any:
    """A file as it should come out: no annotations and what they need, and a hidden field reserved."""
    bare: Any = descriptor_pb2.FileDescriptorProto()
    bare.CopyFrom(file)
    bare.ClearField("source_code_info")
    names = [name for name in bare.dependency if name != "google/protobuf/descriptor.proto"]
    bare.public_dependency[:] = [names.index(bare.dependency[index]) for index in bare.public_dependency]
    bare.dependency[:] = names
    kept = [each for each in bare.extension if not each.extendee.startswith(".google.protobuf.")]
    del bare.extension[:]
    bare.extension.extend(kept)
    for message in bare.message_type:
        for field in message.field:
            if field.HasField("options"):
                field.options.DiscardUnknownFields()
            if field.name == "hidden":
                message.reserved_range.add(start=field.number, end=field.number + 1)
                message.reserved_name.append(field.name)
                message.field.remove(field)
        ranges = sorted(message.reserved_range, key=lambda each: each.start)
        del message.reserved_range[:]
        message.reserved_range.extend(ranges)
    return bare


@pytest.mark.parametrize("name", _FILES)
def test_printed_text_means_the_same(name: str, tmp_path: Path) -> None:
    printed = _print_again(_FILES, tmp_path / "before")
    for each, text in printed.items():
        (tmp_path / "after" / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "after" / each).write_text(text, encoding="utf-8")
    before, after = _compile(tmp_path / "before", *_FILES), _compile(tmp_path / "after", *_FILES)
    expected = _without_what_is_left_out(before[name])
    for message in expected.message_type:
        for field in message.field:
            if field.HasField("options") and not field.options.ListFields():
                field.ClearField("options")
    assert after[name] == expected, printed[name]


def test_printed_text_has_every_comment(tmp_path: Path) -> None:
    text = _print_again(_FILES, tmp_path / "proto")["acme/all/v1/all.proto"]
    assert text.startswith('// Whose it is.\nsyntax = "proto3";\n\n// All that proto3 has.\npackage acme.all.v1;\n')
    for comment in (
        "// Trades.\nservice Trade {",
        "  // Streams both ways.\n  rpc Talk(stream Message) returns (stream Message.Inner) {",
        "// A block\n// of lines.\nmessage Message {\n  // Below the brace.\n",
        "  // An inner one.\n  message Inner {",
        "MOOD_GOOD = 1 [deprecated = true]; // happy\n",
        '"Name\\"d"]; // its name\n',
        "  // One of them.\n  oneof one {\n    string text = 6;\n    // Bytes.\n    bytes data = 7;\n  }\n",
    ):
        assert comment in text


def test_a_group_is_refused_by_its_place(tmp_path: Path) -> None:
    text = 'syntax = "proto2";\npackage a;\nmessage M { optional group Old = 1 {} }\n'
    with pytest.raises(Exception, match=r"a\.proto: a\.M\.old is a group"):
        _print_again({"a.proto": text}, tmp_path / "proto")
