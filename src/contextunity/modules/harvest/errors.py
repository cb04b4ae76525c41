"""The errors of a harvest, each with the stable type that callers see in Temporal and whether trying again may help."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

from contextunity.core.errors import ContextUnityError

__all__ = [
    "HARVESTS_TAKEN",
    "FeedChangedError",
    "FeedEmptyError",
    "FeedForbiddenError",
    "FeedFormatError",
    "FeedLimitError",
    "FeedNotFoundError",
    "FeedRefusedError",
    "FeedUnreachableError",
    "HarvestError",
    "SupplierUnknownError",
]

HARVESTS_TAKEN = "HarvestsTaken"
"""Type of the ApplicationError of an activity where it is not the harvest's turn; the harvest waits."""


def _shown(url: str) -> str:
    """An address as callers may see it: without the user, password and query, where feeds keep their secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Not an address that anything was fetched from; what stands before a query helps to mend it.
        return url.partition("?")[0]
    query = "…" if parts.query else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


class HarvestError(ContextUnityError):
    """A harvest cannot go on.

    Attributes:
        type: the word that goes into `ApplicationError.type`. It is part of the contract: the retry policies in
            harvest.proto name it, and so do callers, so it stays although a class may be renamed.
        retryable: whether the same attempt may succeed later without anybody doing something.
    """

    type: ClassVar[str] = "Harvest"
    retryable: ClassVar[bool] = False


class SupplierUnknownError(HarvestError):
    """No supplier of this code is configured.

    Attributes:
        supplier_code: what was asked for.
        known: the codes that are configured, sorted.
    """

    type = "SupplierUnknown"

    def __init__(self, supplier_code: str, *, known: Iterable[str] = ()) -> None:
        """Say which supplier was asked for, and which there are."""
        self.supplier_code = supplier_code
        self.known = sorted(known)
        known_text = ", ".join(repr(code) for code in self.known) or "none"
        super().__init__(f"unknown supplier {supplier_code!r}; configured are: {known_text}; add it to the settings")


class FeedUnreachableError(HarvestError):
    """The feed could not be fetched this time.

    Attributes:
        url: where it should be.
        status: the HTTP status that came back, or 0 where none did.
        reason: what happened, in a few words.
        retry_after: seconds that the server asks to be left alone for; 0 where it asks for none.
    """

    type = "FeedUnreachable"
    retryable = True

    def __init__(self, url: str, *, status: int = 0, reason: str = "", retry_after: float = 0.0) -> None:
        """Say where the feed should be, and what came instead."""
        self.url = url
        self.status = status
        self.retry_after = retry_after
        self.reason = reason or (f"the server answered {status}" if status else "no answer")
        super().__init__(
            f"feed {_shown(url)} cannot be fetched: {self.reason}; check the address and that the server is up"
        )


class FeedNotFoundError(FeedUnreachableError):
    """There is no feed at the address: a missing file, or an answer of 404 or 410."""

    type = "FeedNotFound"
    retryable = False


class FeedForbiddenError(FeedUnreachableError):
    """The feed is not for us: a file that may not be read, or an answer of 401 or 403."""

    type = "FeedForbidden"
    retryable = False


class FeedRefusedError(HarvestError):
    """The feed is not fetched, whatever is there: its address is none that this deployment fetches from.

    Attributes:
        url: where it should be.
        host: the host that is refused, which a redirect may have named; empty for a file.
        address: the address that the host leads to, or the path of a file; empty where the name alone is refused.
        reason: why.
        setting: what would have to be set; empty where no setting opens it.
    """

    type = "FeedRefused"

    def __init__(self, url: str, *, reason: str, host: str = "", address: str = "", setting: str = "") -> None:
        """Say what is refused, and how to have it allowed."""
        self.url, self.host, self.address, self.reason, self.setting = url, host, address, reason, setting
        way_out = setting or "no setting opens it; give the supplier another url"
        super().__init__(f"feed {_shown(url)} is refused: {reason}; {way_out}")


class FeedLimitError(HarvestError):
    """The feed goes beyond a bound of its supplier. Nothing of it is kept.

    Attributes:
        url: where it is.
        setting: the supplier's setting that bounds it, such as max_bytes.
        seen: how it goes beyond it.
    """

    type = "FeedLimit"

    def __init__(self, url: str, *, setting: str, seen: str) -> None:
        """Say which bound, and how it is passed."""
        self.url, self.setting, self.seen = url, setting, seen
        super().__init__(
            f"feed {_shown(url)} {seen}; ask the supplier what became of it, or set another {setting} for it"
        )


class FeedFormatError(HarvestError):
    """What is at the address is not a feed in a format we read, or not in the one that was configured.

    Attributes:
        url: where it is.
        expected: what would have been right.
        seen: what was there instead.
        line: line of the feed, from 1; 0 where no line can be told.
    """

    type = "FeedFormat"

    def __init__(self, url: str, *, expected: str, seen: str, line: int = 0) -> None:
        """Say what should be there, and what is."""
        self.url = url
        self.expected = expected
        self.seen = seen
        self.line = line
        where = f"feed {_shown(url)}, line {line}" if line else f"feed {_shown(url)}"
        super().__init__(f"{where}: expected {expected}, but found {seen}; check the supplier's url and format")


class FeedEmptyError(HarvestError):
    """The feed can be fetched, but lists nothing.

    It is an error and no harvest of zero products, because a harvest of zero products would mark the whole catalogue
    of the supplier as no longer listed.

    Attributes:
        url: where it is.
        detail: what is there, such as a header without rows.
    """

    type = "FeedEmpty"

    def __init__(self, url: str, *, detail: str = "it has no content") -> None:
        """Say where nothing is."""
        self.url = url
        self.detail = detail
        super().__init__(f"feed {_shown(url)} is empty: {detail}; ask the supplier, or check the url")


class FeedChangedError(HarvestError):
    """The feed was replaced while it was being harvested, so that cursors into it mean nothing any more.

    Attributes:
        url: where it is.
        expected: version that the harvest began with.
        seen: version that is there now; empty where the server does not tell.
    """

    type = "FeedChanged"

    def __init__(self, url: str, *, expected: str, seen: str) -> None:
        """Say which version there was, and which there is."""
        self.url = url
        self.expected = expected
        self.seen = seen
        super().__init__(
            f"feed {_shown(url)} was replaced while it was being harvested: version {expected!r} became "
            f"{seen or 'unknown'!r}; start the harvest again"
        )
