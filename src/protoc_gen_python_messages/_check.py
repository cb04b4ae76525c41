"""Refuses, before anything is generated, what betterproto2's and Google's generators would write wrong.

Neither of them says so: the module breaks when it is imported, or a class is there that stands for something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf import descriptor_pb2

from ._check_members import field_faults, value_faults
from ._check_packages import class_faults, module_faults, reference_faults
from ._declarations import Declaration, declarations
from ._faults import Fault, raise_faults

_FIELDS, _VALUES = 2, 2
"""Numbers of DescriptorProto.field and EnumDescriptorProto.value."""


def check(files: Sequence[descriptor_pb2.FileDescriptorProto], targets: Sequence[str]) -> None:
    """Checks the files to generate, and those of the same packages.

    Args:
        files: the targets and all that they import.
        targets: names of the files to generate.

    Raises:
        UsageError: something in them cannot be generated; all faults are in its text.
    """
    asked = [file for file in files if file.name in targets]
    packages = {file.package for file in asked}
    every = declarations(file for file in files if not file.name.startswith("google/protobuf/"))
    own = [declaration for declaration in every if declaration.file.package in packages]
    raise_faults(
        (
            *module_faults(asked),
            *reference_faults(every),
            *class_faults(own, {file.package for file in files}),
            *_member_faults(own),
        )
    )


def _member_faults(own: Iterable[Declaration]) -> Iterator[Fault]:
    for declaration in own:
        if isinstance(declaration.proto, descriptor_pb2.EnumDescriptorProto):
            for index, text in value_faults(declaration.proto):
                yield declaration.fault(f"value {declaration.proto.value[index].name} {text}", (_VALUES, index))
        else:
            for index, text in field_faults(declaration.proto, declaration.name):
                yield declaration.fault(f"field {declaration.proto.field[index].name} {text}", (_FIELDS, index))
