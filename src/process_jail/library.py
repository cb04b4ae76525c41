"""What of the interpreter a program finds: modules that are loaded before it, and files that it may read."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import sysconfig
from typing import cast

from . import kernel, landlock

__all__ = ["load", "reach", "readable"]

_EXTENSIONS_LEFT_OUT = (
    *("_test", "_xx", "xx", "_curses", "_tkinter", "_dbm", "_gdbm", "_crypt"),
    *("nis", "ossaudiodev", "readline", "spwd", "syslog"),
)
"""Of no use in a jail; these are not loaded, and what is not loaded before cannot be."""
_MODULES = """
    abc argparse array ast asyncio base64 binascii bisect bz2 calendar cmath codecs collections collections.abc colorsys
    concurrent.futures configparser contextlib contextvars copy csv ctypes dataclasses datetime decimal difflib dis
    email.message encodings.idna encodings.latin_1 enum errno fnmatch fractions functools gc getpass glob graphlib gzip
    hashlib heapq hmac html html.parser importlib.metadata inspect io ipaddress itertools json keyword linecache locale
    logging lzma math mimetypes numbers operator os pathlib pickle platform pprint queue random re sched secrets select
    selectors shlex shutil signal socket sqlite3 statistics string struct subprocess tarfile tempfile textwrap threading
    time timeit tokenize tomllib traceback types typing unicodedata unittest urllib.parse uuid warnings weakref
    xml.etree.ElementTree zipfile zlib zoneinfo
"""
_LEFT_OUT_OF_READING = ("site-packages", "dist-packages", "lib-dynload", "__pycache__")
"""What lies beside the standard library and is not of it: packages of the deployment. Machine code is loaded before."""
_OTHERS = (("/usr/share/zoneinfo", landlock.READ), ("/dev/null", landlock.USE))


def load() -> None:
    """Imports what programs usually do, and every extension module: later no machine code can be loaded."""
    for name in _MODULES.split():
        importlib.import_module(name)
    for name in _extensions():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _extensions() -> list[str]:
    folder = sysconfig.get_config_var("DESTSHARED")
    if not isinstance(folder, str) or not os.path.isdir(folder):
        return []
    names = sorted(entry.partition(".")[0] for entry in os.listdir(folder) if entry.endswith(".so"))
    return [name for name in names if not name.startswith(_EXTENSIONS_LEFT_OUT)]


def reach(user: tuple[int, int] | None) -> int | None:
    """Makes sure that the standard library can still be read once this process has become another user.

    Where the way to it is barred to that user, such as when root has an interpreter in its own home, the library is
    from now on reached through an open folder instead.

    Returns:
        That folder, which must stay open; None where none is needed.
    """
    folder = os.path.dirname(os.__file__)
    if user is None or open_to_all(folder):
        return None
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    kept = kernel.keep(descriptor)
    _move_imports(folder, f"/proc/self/fd/{kept}")
    return kept


def open_to_all(folder: str) -> bool:
    """Whether any user gets to a folder, going by the modes of those on the way."""
    path: str = os.path.realpath(folder)
    while True:
        if not os.stat(path).st_mode & 0o001:
            return False
        if path == "/":
            return True
        path = os.path.dirname(path)


def _move_imports(old: str, new: str) -> None:
    def moved(path: str) -> str:
        return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path

    sys.path[:] = [moved(path) for path in sys.path]
    sys.path_importer_cache.clear()
    for module in list(sys.modules.values()):
        folders = getattr(module, "__path__", None)
        if isinstance(folders, list):
            module.__path__ = [moved(str(path)) for path in cast("list[object]", folders)]


def readable() -> list[tuple[int, int]]:
    """The files and folders that a program may read, as Landlock takes them."""
    folder = os.path.dirname(os.__file__)
    rules = [
        landlock.rule_for(os.path.join(folder, name), landlock.READ)
        for name in sorted(os.listdir(folder))
        if name not in _LEFT_OUT_OF_READING
    ]
    for path, rights in _OTHERS:
        with contextlib.suppress(FileNotFoundError):
            rules.append(landlock.rule_for(path, rights))
    return rules
