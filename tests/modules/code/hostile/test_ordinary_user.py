"""The same as an ordinary user: the jail must hold without root's help."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from ..opened import NAMES

_ROOT = Path(__file__).resolve().parents[4]
_NOBODY = 65534


def _interpreter() -> str:
    """An interpreter of this version that the user gets to; root's own may lie in root's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/local/bin/{version}", f"/usr/bin/{version}"):
        if not os.path.exists(candidate):
            continue
        try:
            subprocess.run([candidate, "-c", "import ctypes"], user=_NOBODY, group=_NOBODY, cwd="/", check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    pytest.skip(f"no {version} that uid {_NOBODY} gets to")


@pytest.mark.skipif(os.geteuid() != 0, reason="the tests run as an ordinary user already")
@pytest.mark.parametrize("name", NAMES)
async def test_hostile_programs_are_contained_by_an_ordinary_user(name: str) -> None:
    folders = [str(_ROOT), sysconfig.get_path("purelib"), str(_ROOT / "src"), str(_ROOT / "gen")]
    process = await asyncio.create_subprocess_exec(
        *(_interpreter(), "-B", "-m", "tests.modules.code.hostile.as_user", name),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env={"PYTHONPATH": ":".join(folders), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        user=_NOBODY,
        group=_NOBODY,
        extra_groups=[],
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    found = json.loads(output)
    if "unavailable" in found:
        pytest.skip(found["unavailable"])
    assert (found["uid"], found["faults"], found["afterwards"]) == (_NOBODY, {}, [])
