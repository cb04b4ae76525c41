"""Compiles the codec's extension when the package is installed or a wheel of it is built.

It is optional: where there is no C compiler, no Python.h or no Cython, and where CONTEXTWORKER_PURE_PYTHON=1 asks for
it, the package is installed without it, and bytes go by way of google.protobuf.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE = "betterproto2_codec._wire"
_FOLDER = Path("src/betterproto2_codec")
# The interpreter's own flags come first, so that these have the last word.
_FLAGS = ("-O3", "-g0", "-fstack-protector-strong") if os.name == "posix" else ()


class CodecBuildHook(BuildHookInterface[Any]):
    """What hatchling calls before it packs a wheel, or sets up an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Puts the compiled module into the wheel, or for an `editable` install beside its source."""
        beside = Path(self.root) / _FOLDER / f"_wire{sysconfig.get_config_var('EXT_SUFFIX')}"
        if version == "editable":
            # One of an earlier build would be used in place of a newer source, or against the wish to do without.
            beside.unlink(missing_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix="contextworker-"))
        built = self._build()
        if built is None:
            return
        if version == "editable":
            # Put there in one step: processes that run may be about to import it.
            fresh = beside.with_name(f".{beside.name}.fresh")
            shutil.copy2(built, fresh)
            fresh.replace(beside)
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(built)] = str(_FOLDER.relative_to("src") / beside.name)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was needed for building."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _build(self) -> Path | None:
        if os.environ.get("CONTEXTWORKER_PURE_PYTHON", "0") not in ("", "0"):
            self.app.display_info("the codec's extension is left out, as CONTEXTWORKER_PURE_PYTHON asks")
            return None
        try:
            return compile_extension(Path(self.root), self._scratch)
        except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and none is a reason not to install
            reason = str(error).strip().splitlines() or [""]
            self.app.display_warning(
                f"the codec's extension was not compiled, and google.protobuf does its work, several times slower: "
                f"{type(error).__name__}: {reason[-1]}"
            )
            return None


def compile_extension(root: Path, scratch: Path) -> Path:
    """Compiles the module into the folder `scratch` and returns its path there."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    # Cython leaves C beside its source, so it works on a copy.
    sources = scratch / "sources"
    sources.mkdir()
    for path in (root / _FOLDER).glob("_wire*.p[yx][xi]"):
        shutil.copy2(path, sources)
    extension = Extension(_MODULE, [str(sources / "_wire.pyx")], extra_compile_args=list(_FLAGS))
    [extension] = cythonize([extension], quiet=True, language_level=3)
    command = build_ext(Distribution({"name": "contextworker", "ext_modules": [extension]}))
    command.build_lib, command.build_temp = str(scratch / "built"), str(scratch / "objects")
    command.ensure_finalized()
    command.run()
    [built] = command.get_outputs()
    return Path(built)
