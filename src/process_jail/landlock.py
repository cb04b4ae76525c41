"""Restrict with Landlock which files a process may access, in addition to the rights of its user."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable

from . import kernel

__all__ = ["SCRATCH", "abi", "readable", "restrict"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls, the same on all machines."""
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14

_ALL_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All file rights of a version of Landlock. A right that no rule grants is denied."""
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
"""The rights that a rule for a single file may grant."""
_NETWORK = 0b11
"""Bind and connect TCP sockets; from version 4."""
_SCOPES = 0b11
"""Abstract unix sockets and signals to processes outside; from version 6."""
_LOG_SAME_EXEC_OFF = 1
"""Keep denials out of the kernel's log, which a hostile program could flood; from version 7."""

_READ = _READ_FILE | _READ_DIR
_USE = _READ_FILE | _WRITE_FILE
"""Read and write a device."""
SCRATCH = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
"""All rights except executing files and creating devices, pipes and sockets."""

_NOT_READABLE = ("site-packages", "dist-packages", "lib-dynload", "__pycache__")
"""Folders inside the standard library's that stay closed. Extension modules are loaded in advance."""
_READABLE_BESIDE = (("/usr/share/zoneinfo", _READ), ("/dev/null", _USE))


def abi() -> int:
    """Return the kernel's version of Landlock; 0 if it has none or it is disabled."""
    try:
        return kernel.syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def readable() -> list[tuple[int, int]]:
    """Open what a program may read: the standard library, time zones and /dev/null. Return rules for `restrict`."""
    folder = os.path.dirname(os.__file__)
    rules = [
        _rule_for(os.path.join(folder, name), _READ) for name in sorted(os.listdir(folder)) if name not in _NOT_READABLE
    ]
    for path, rights in _READABLE_BESIDE:
        with contextlib.suppress(FileNotFoundError):
            rules.append(_rule_for(path, rights))
    return rules


def _rule_for(path: str, rights: int) -> tuple[int, int]:
    descriptor = kernel.keep(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return descriptor, rights if os.path.isdir(descriptor) else rights & _OF_FILES


def restrict(rules: Iterable[tuple[int, int]], version: int) -> None:
    """Restrict this process and all its children to what the rules grant.

    Args:
        rules: pairs of an open file or folder (O_PATH is enough) and the rights to it and everything below it.
        version: of Landlock, as `abi` returns it.

    Raises:
        OSError: the kernel rejected the call, and the process is not restricted.
    """
    handled = _ALL_OF_ABI[max(known for known in _ALL_OF_ABI if known <= version)]
    attributes = struct.pack("=Q", handled)
    if version >= 4:
        attributes += struct.pack("=Q", _NETWORK)
    if version >= 6:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = kernel.syscall("landlock_create_ruleset", _CREATE_RULESET, kernel.buffer(attributes), len(attributes), 0)
    try:
        for descriptor, rights in rules:
            rule = kernel.buffer(struct.pack("=Qi", rights & handled, descriptor))
            kernel.syscall("landlock_add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
        flags = _LOG_SAME_EXEC_OFF if version >= 7 else 0
        kernel.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, flags)
    finally:
        os.close(ruleset)
