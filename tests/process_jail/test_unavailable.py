"""Where the kernel lacks a part, or only seems to have it, nothing is run, and the error says what is missing."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys

import pytest

import process_jail
from process_jail import kernel, missing

_LACKING = """
import asyncio, sys
from process_jail import Jail, JailUnavailableError, kernel, seccomp
kernel.prctl("PR_SET_NO_NEW_PRIVS", kernel.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(bytes.fromhex(sys.argv[1]))
async def main():
    try:
        async with Jail():
            print("it works")
    except JailUnavailableError as error:
        print(error)
asyncio.run(main())
"""
_CALLS = {
    "x86_64": {
        "pidfd_open": 434,
        "restrict_self": 446,
        "create_ruleset": 444,
        "prctl": 157,
        "setresuid": 117,
        "capset": 126,
    },
    "aarch64": {
        "pidfd_open": 434,
        "restrict_self": 446,
        "create_ruleset": 444,
        "prctl": 167,
        "setresuid": 147,
        "capset": 91,
    },
}
_MACHINE = kernel.architecture()
_works_here = pytest.mark.skipif(bool(missing(False, 65534)), reason=f"the jail needs {missing(False, 65534)}")
_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the user")
_DOES_NOTHING = 0
_SET_SECCOMP = 22


def _filter(call: str, argument: int | None, code: int) -> str:
    """A filter that has one call fail, where its first argument is the one given, and lets all others through."""
    number = _CALLS[_MACHINE][call]
    steps = [(0x20, 0, 0, 0), (0x15, 0, 3 if argument is not None else 1, number)]
    if argument is not None:
        steps += [(0x20, 0, 0, 16), (0x15, 0, 1, argument)]
    steps += [(0x06, 0, 0, 0x00050000 | code), (0x06, 0, 0, 0x7FFF0000)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps).hex()


@_works_here
@pytest.mark.parametrize(
    ("call", "argument", "code", "reason"),
    [
        pytest.param("create_ruleset", None, errno.ENOSYS, "needs Landlock (Linux 5.13 or newer", id="no Landlock"),
        pytest.param(
            "create_ruleset", None, errno.EOPNOTSUPP, "needs Landlock (Linux 5.13", id="Landlock switched off"
        ),
        pytest.param(
            "prctl", _SET_SECCOMP, errno.EINVAL, "needs seccomp filters (CONFIG_SECCOMP_FILTER)", id="no seccomp"
        ),
        pytest.param("pidfd_open", None, errno.ENOSYS, "needs descriptors of processes", id="no pidfd"),
        pytest.param("restrict_self", None, errno.E2BIG, "landlock_restrict_self: ", id="Landlock refuses"),
        pytest.param(
            "restrict_self", None, _DOES_NOTHING, "a program lists the root folder", id="Landlock does nothing"
        ),
        pytest.param("prctl", _SET_SECCOMP, _DOES_NOTHING, "needs seccomp filters", id="seccomp does nothing"),
        pytest.param("setresuid", None, errno.EPERM, "PermissionError: ", id="user stays", marks=_as_root),
        pytest.param(
            "setresuid", None, _DOES_NOTHING, "the user did not change", id="user does nothing", marks=_as_root
        ),
        pytest.param("capset", None, errno.EPERM, "capset: ", id="capabilities stay"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_run(call: str, argument: int | None, code: int, reason: str) -> None:
    command = [sys.executable, "-c", _LACKING, _filter(call, argument, code)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("the jail cannot work here")
    assert reason in ran.stdout
    assert ran.stderr == ""


_OLDER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from process_jail import confinement, kernel, landlock
scratch, null = os.open(sys.argv[3], os.O_RDONLY), os.open("/dev/null", os.O_RDWR)
readable = os.__file__
size = os.stat(readable).st_size
rules = landlock.readable()
same = confinement.Confinement(
    machine=kernel.architecture(), landlock_abi=int(sys.argv[2]), rules=rules, keep=None, user=None, zygote=os.getpid()
)
result, writer = os.pipe()
pid = os.fork()
if pid == 0:
    given = confinement.Descriptors(request=null, stdout=writer, stderr=2, result=writer, scratch=scratch)
    confinement.enter(same, given, confinement.ChildLimits(cpu=9, memory_bytes=1 << 28, file_bytes=1 << 20))
    held = 0
    for attempt in (
        lambda: os.open(readable, os.O_TRUNC | 3),
        lambda: os.open(readable, os.O_TRUNC),
        lambda: os.open(readable, os.O_WRONLY),
        lambda: os.truncate(readable, 0),
        lambda: os.ftruncate(os.open(readable, os.O_RDONLY), 0),
        lambda: os.open("/etc/passwd", os.O_RDONLY),
        lambda: os.open("../outside", os.O_CREAT | os.O_WRONLY),
        lambda: os.link(readable, "linked"),
        lambda: os.rename("../kept", "moved"),
    ):
        try:
            attempt()
        except OSError:
            held += 1
    open("own", "w").write("x")
    os.open("own", os.O_WRONLY | os.O_TRUNC)
    os.write(1, str(held).encode())
    os._exit(0)
os.waitpid(pid, 0)
assert os.stat(readable).st_size == size
print(os.read(result, 9).decode())
"""


@_works_here
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_an_older_landlock_holds_as_well(version: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("older")
    (folder / "scratch").mkdir()
    (folder / "kept").touch()
    sources = os.path.dirname(os.path.dirname(process_jail.__file__))
    command = [sys.executable, "-I", "-S", "-c", _OLDER, sources, str(version), str(folder / "scratch")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("9\n", "")
    assert sorted(os.listdir(folder)) == ["kept", "scratch"]


_WITHOUT_CAPABILITIES = """
import struct, sys
from process_jail import kernel, missing
header, kept = struct.pack("=Ii", 0x20080522, 0), 1 << 6
kernel.libc.capset(kernel.buffer(header), kernel.buffer(struct.pack("=6I", kept, kept, 0, 0, 0, 0)))
print("; ".join(missing(True, 65534)))
"""


@_works_here
@_as_root
def test_what_root_may_not_is_named() -> None:
    ran = subprocess.run([sys.executable, "-c", _WITHOUT_CAPABILITIES], capture_output=True, text=True, check=True)
    assert ran.stdout == (
        "CAP_CHOWN and CAP_DAC_OVERRIDE and CAP_FOWNER and CAP_KILL and CAP_SETUID, for root to run programs as uid "
        "65534; or a worker that is not root\n"
    )


def test_another_processor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    (first, *_) = missing(False, 65534)
    assert first == "a processor of the kinds aarch64 and x86_64 (this one is riscv64)"
