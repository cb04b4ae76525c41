"""Names of time zones, as the IANA database has them."""

from __future__ import annotations

import functools
import zoneinfo

__all__ = ["zone_fault"]

_OF_THE_MACHINE = frozenset({"Factory", "Local", "localtime", "posixrules"})
"""Names that mean another zone on each machine."""


def zone_fault(name: str) -> str:
    """What keeps a text from being the name of a time zone; empty where nothing does.

    Where the machine has no time zone database at all, the Temporal server is left to judge.
    """
    known = _known()
    if not known or name in known:
        return ""
    alike = next((each for each in sorted(known) if each.lower() == name.lower()), "")
    if alike:
        return f"{name!r} is written {alike!r}"
    return f"{name!r} is not a time zone of the IANA database, such as 'Europe/Berlin' or 'UTC'"


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _OF_THE_MACHINE
