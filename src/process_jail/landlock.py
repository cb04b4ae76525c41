"""Landlock: which files a process may reach, whatever its user may."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from . import kernel

__all__ = ["READ", "SCRATCH", "USE", "abi", "restrict", "rule_for"]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the system calls; the same on all machines."""
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14

_ALL_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights to files that a version of the interface knows: those that are not given by a rule are denied."""
_OF_FILES = _WRITE_FILE | _READ_FILE | _TRUNCATE
"""The rights among them that a rule for a single file may give."""
_NETWORK = 0b11
"""Binding and connecting TCP sockets, from version 4."""
_SCOPES = 0b11
"""Abstract unix sockets and signals of processes outside, from version 6."""
_LOG_SAME_EXEC_OFF = 1
"""What is denied is not written to the kernel's log, from version 7: a hostile program could flood it."""

READ = _READ_FILE | _READ_DIR
"""Reads what is there."""
USE = _READ_FILE | _WRITE_FILE
"""Reads and writes a device."""
SCRATCH = READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER | _TRUNCATE
"""Does as it likes, except for devices, pipes and sockets; nothing may be executed."""


def abi() -> int:
    """Version of the interface that the kernel has; 0 where it has none, or has it switched off."""
    try:
        return kernel.syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def rule_for(path: str, rights: int) -> tuple[int, int]:
    """Opens a file or folder for `restrict`.

    Returns:
        An open file, and those of the rights that a rule for it may give.

    Raises:
        OSError: it cannot be opened.
    """
    descriptor = kernel.keep(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return descriptor, rights if os.path.isdir(descriptor) else rights & _OF_FILES


def restrict(rules: Iterable[tuple[int, int]], version: int) -> None:
    """Restricts this process, and all that will come of it, to what the rules give.

    Args:
        rules: pairs of an open file or folder, O_PATH suffices, and the rights to it and to all beneath it.
        version: of the interface, as `abi` gives it.

    Raises:
        OSError: the kernel refused; the process is then not restricted.
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
