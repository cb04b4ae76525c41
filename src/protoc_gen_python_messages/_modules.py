"""Names of the Python modules that stand for proto files, and the imports among them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

_FROM_FOLDER = re.compile(r"^(\s*from )([\w.]+)( import (\w*))", re.MULTILINE)
_FROM_NOWHERE = re.compile(r"^import (\w+)", re.MULTILINE)


def module_of(proto: str) -> str:
    """Dotted name of the `_pb2` module that Google's generator writes for a file; dots in file names make folders."""
    return proto.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"


def is_speakable(name: str) -> bool:
    """Whether an import statement can say a name."""
    return name.isidentifier() and not keyword.iskeyword(name)


def rewrite_imports(text: str, targets: Iterable[str], package: str) -> str:
    """Puts `package` before the imports of modules generated from `targets`.

    Google's generator takes Python's import path from the proto's file name. To change the name in the descriptor
    instead would show the changed name to every client of gRPC reflection, and clash in the process of a client that
    has generated the same protos under their own names.
    """
    if not package:
        return text
    modules = {module_of(target) for target in targets}

    def from_folder(match: re.Match[str]) -> str:
        # `from folder import x_pb2`, or `from folder.x_pb2 import name` for a public import.
        own = match[2] in modules or f"{match[2]}.{match[4]}" in modules
        return f"{match[1]}{package}.{match[2]}{match[3]}" if own else match[0]

    def from_nowhere(match: re.Match[str]) -> str:
        return f"from {package} {match[0]}" if match[1] in modules else match[0]

    text = _FROM_FOLDER.sub(from_folder, text)
    return _FROM_NOWHERE.sub(from_nowhere, text)
