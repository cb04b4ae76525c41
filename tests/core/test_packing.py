"""Packing messages into bytes, within bounds."""

from __future__ import annotations

import zlib

import pytest
from contextunity.gen.contextunity.worker import TaskContext

from contextunity.core import CodecError
from contextunity.core.packing import pack, unpack


def test_what_is_packed_comes_out_again() -> None:
    context = TaskContext(tenant_id="acme", provenance=["a:b"] * 100)
    packed = pack(context)
    assert unpack(TaskContext, packed) == context
    assert len(packed) < 100


def test_what_is_no_packed_message_is_refused() -> None:
    for data, says in (
        (b"nonsense", "not compressed"),
        (b"", "break off"),
        (zlib.compress(b"\xff"), "truncated|ends|wire|field|bytes"),
    ):
        with pytest.raises(CodecError, match=says):
            unpack(TaskContext, data)


def test_what_unpacks_to_more_than_it_may_is_refused_before_it_is_there() -> None:
    with pytest.raises(CodecError, match="unpack to more than 1000 bytes"):
        unpack(TaskContext, zlib.compress(b"a" * 10_000_000), max_bytes=1000)
