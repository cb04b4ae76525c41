"""The generated descriptors: the files as their authors wrote them, whole and self-contained."""

from __future__ import annotations

import base64
import bz2
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.compiler import plugin_pb2

from protoc_gen_python_temporal import generate

_COMMON = """
syntax = "proto3";
package acme.common.v1;
// Money.
message Money {
  // Cents.
  int64 cents = 1;
}
"""
_SHOP = """
syntax = "proto3";
package acme.shop.v1;
import "acme/common/v1/common.proto";
import "temporal/v1/temporal.proto";
service Shop {
  option (temporal.v1.service) = {task_queue: "shop"};
  // Sells.
  rpc Sell(acme.common.v1.Money) returns (acme.common.v1.Money) {
    option (temporal.v1.workflow) = {name: "sell" execution_timeout: {seconds: 60}};
  }
}
"""
_FILES = {"acme/common/v1/common.proto": _COMMON, "acme/shop/v1/shop.proto": _SHOP}


def _descriptors(text: str) -> descriptor_pb2.FileDescriptorSet:
    module: dict[str, Any] = {}
    exec(compile(text, "", "exec"), module)
    data = bz2.decompress(base64.b64decode(module["FILE_DESCRIPTOR_SET"]))
    return descriptor_pb2.FileDescriptorSet.FromString(data)


@pytest.fixture
def request_of_shop(request_for: Callable[..., plugin_pb2.CodeGeneratorRequest]) -> plugin_pb2.CodeGeneratorRequest:
    return request_for(_FILES)


@pytest.fixture
def found(request_of_shop: plugin_pb2.CodeGeneratorRequest) -> descriptor_pb2.FileDescriptorSet:
    texts = {file.name: file.content for file in generate(request_of_shop).file}
    assert 'descriptors="gen.acme.shop.v1.shop_descriptors"' in texts["acme/shop/v1/shop_temporal.py"].replace("'", '"')
    assert "acme/common/v1/common_descriptors.py" not in texts, "a file without a contract needs none"
    return _descriptors(texts["acme/shop/v1/shop_descriptors.py"])


def test_they_are_self_contained_with_every_annotation(found: descriptor_pb2.FileDescriptorSet) -> None:
    pool = descriptor_pool.DescriptorPool()
    for file in found.file:
        # Each file's imports are there before it, or this raises.
        pool.Add(file)
    message_factory.GetMessageClassesForFiles([file.name for file in found.file], pool)
    options = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.protobuf.MethodOptions"))
    method = pool.FindServiceByName("acme.shop.v1.Shop").methods_by_name["Sell"]
    told: Any = options.FromString(method.GetOptions().SerializeToString())
    workflow = told.Extensions[pool.FindExtensionByName("temporal.v1.workflow")]
    assert (workflow.name, workflow.execution_timeout.seconds) == ("sell", 60)


def test_they_have_the_comments_of_the_authors_alone(found: descriptor_pb2.FileDescriptorSet) -> None:
    comments = {
        file.name: [each.leading_comments.strip() for each in file.source_code_info.location] for file in found.file
    }
    assert comments["acme/common/v1/common.proto"] == ["Money.", "Cents."]
    assert comments["acme/shop/v1/shop.proto"] == ["Sells."]
    assert comments["temporal/v1/temporal.proto"] == []


def test_they_do_not_depend_on_what_else_is_asked_for(
    request_of_shop: plugin_pb2.CodeGeneratorRequest, found: descriptor_pb2.FileDescriptorSet
) -> None:
    request_of_shop.file_to_generate[:] = ["acme/shop/v1/shop.proto"]
    # A request may have its files in another order, as long as imports come first.
    files = list(request_of_shop.proto_file)
    common = next(file for file in files if file.name.endswith("common.proto"))
    files.remove(common)
    del request_of_shop.proto_file[:]
    request_of_shop.proto_file.extend([common, *files])
    texts = {file.name: file.content for file in generate(request_of_shop).file}
    assert _descriptors(texts["acme/shop/v1/shop_descriptors.py"]) == found


def test_a_package_without_a_contract_gets_them_where_asked_for(
    request_of_shop: plugin_pb2.CodeGeneratorRequest,
) -> None:
    request_of_shop.parameter = "descriptors=acme.common.v1,code=false"
    [file] = generate(request_of_shop).file
    assert file.name == "acme/common/v1/package_descriptors.py"
    [common] = _descriptors(file.content).file
    assert common.name == "acme/common/v1/common.proto"
    assert "Money." in common.source_code_info.location[0].leading_comments


def test_buf_takes_them(found: descriptor_pb2.FileDescriptorSet, tmp_path: Path) -> None:
    image = tmp_path / "shop.binpb"
    image.write_bytes(found.SerializeToString())
    buf = Path(sys.executable).parent / "buf"
    command = [str(buf), "build", str(image), "--path", "acme", "-o", "shop.json"]
    # Without a home it has no cache of its own.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"acme/shop/v1/shop.proto"' in (tmp_path / "shop.json").read_text(encoding="utf-8")
