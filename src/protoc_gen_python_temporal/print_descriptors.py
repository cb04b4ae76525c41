"""Prints the descriptors of files and of all that they import, as a module that is imported when they are asked for.

The `_pb2` modules have the descriptors without temporal.v1's annotations, for which there are no Python modules. A
service returns the original files to its callers.
"""

from __future__ import annotations

import base64
import bz2
from collections.abc import Iterator, Mapping

from google.protobuf import descriptor_pb2

__all__ = ["print_descriptors"]

_VOCABULARY = ("buf/validate/", "google/protobuf/", "temporal/api/", "temporal/v1/")
"""Folders of files that everybody has; their comments would be two thirds of the whole."""
_WIDTH = 112


def print_descriptors(files: Mapping[str, descriptor_pb2.FileDescriptorProto], *sources: str) -> list[str]:
    """The module's lines, without a header.

    Args:
        files: all files of the request by name.
        sources: names of those that are asked for.
    """
    seen = set[str]()
    found = descriptor_pb2.FileDescriptorSet(
        file=[_slim(file) for source in sources for file in _closure(files, source, seen)]
    )
    # bzip2's output is the same everywhere; that of zlib differs between its implementations.
    text = base64.b64encode(bz2.compress(found.SerializeToString(deterministic=True))).decode()
    pieces = [text[start : start + _WIDTH] for start in range(0, len(text), _WIDTH)]
    return [
        f'"""{", ".join(sources)} and all that {"it imports" if len(sources) == 1 else "they import"}, annotations and '
        'comments included."""',
        "",
        "FILE_DESCRIPTOR_SET = (",
        *(f"    {piece!r}" for piece in pieces),
        ")",
        '"""A serialized google.protobuf.FileDescriptorSet, each file after its imports: bzip2 in base64."""',
    ]


def _closure(
    files: Mapping[str, descriptor_pb2.FileDescriptorProto], name: str, seen: set[str]
) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    # The order of the request depends on which files were requested.
    if name in seen:
        return
    seen.add(name)
    for dependency in files[name].dependency:
        yield from _closure(files, dependency, seen)
    yield files[name]


def _slim(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Return a file with its comments, without the locations of everything else."""
    slim = descriptor_pb2.FileDescriptorProto()
    slim.CopyFrom(file)
    slim.ClearField("source_code_info")
    if file.name.startswith(_VOCABULARY):
        return slim
    for location in file.source_code_info.location:
        if location.leading_comments or location.trailing_comments:
            slim.source_code_info.location.add(
                path=location.path,
                span=location.span,
                leading_comments=_text(location.leading_comments),
                trailing_comments=_text(location.trailing_comments),
            )
    return slim


def _text(comment: str | bytes) -> str:
    # protoc passes on comments unchanged even if the file is not in UTF-8.
    return comment.decode(errors="replace") if isinstance(comment, bytes) else comment
