"""The errors of a harvest, each with the stable type that callers see in Temporal, and whether a retry may help."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

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
    "shown_url",
]

HARVESTS_TAKEN = "HarvestsTaken"
"""Type of the ApplicationError if it is not the harvest's turn yet; the harvest waits."""


def shown_url(url: str) -> str:
    """Return a URL without user, password and query, which may contain secrets."""
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in ("http", "https"):
        return url
    # Up to the last @, since an unquoted password may contain anything.
    place, question, _ = rest.rpartition("@")[2].partition("?")
    return f"{scheme}{separator}{place.partition('#')[0]}{question}{'…' if question else ''}"


class HarvestError(ContextUnityError):
    """A harvest cannot continue.

    Attributes:
        type: value of `ApplicationError.type`. It is part of the contract: the retry policies in harvest.proto and
            callers use it, so it stays even if the class is renamed.
        retryable: whether a retry may succeed.
    """

    type: ClassVar[str] = "Harvest"
    retryable: ClassVar[bool] = False


class SupplierUnknownError(HarvestError):
    """No supplier with this code is configured.

    Attributes:
        supplier_code: requested code.
        known: configured codes, sorted.
    """

    type = "SupplierUnknown"

    def __init__(self, supplier_code: str, *, known: Iterable[str] = ()) -> None:
        """Initialize with the requested and the known suppliers."""
        self.supplier_code = supplier_code
        self.known = sorted(known)
        known_text = ", ".join(repr(code) for code in self.known) or "none"
        super().__init__(f"unknown supplier {supplier_code!r}; configured are {known_text}; add it to the settings")


class FeedUnreachableError(HarvestError):
    """The feed could not be fetched; a retry may help.

    Attributes:
        url: URL of the feed.
        status: HTTP status of the response, or 0 without one.
        reason: what happened, in a few words.
        retry_after: seconds of the server's Retry-After; 0 without one.
    """

    type = "FeedUnreachable"
    retryable = True

    def __init__(self, url: str, *, status: int = 0, reason: str = "", retry_after: float = 0.0) -> None:
        """Initialize with the URL of the feed, and what happened."""
        self.url = url
        self.status = status
        self.retry_after = retry_after
        self.reason = reason or (f"the server answered {status}" if status else "no answer")
        super().__init__(
            f"feed {shown_url(url)} cannot be fetched: {self.reason}; check the URL and that the server is up"
        )


class FeedNotFoundError(FeedUnreachableError):
    """The feed does not exist: a missing file, or HTTP 404 or 410."""

    type = "FeedNotFound"
    retryable = False


class FeedForbiddenError(FeedUnreachableError):
    """Access to the feed is denied: a file without read permission, or HTTP 401 or 403."""

    type = "FeedForbidden"
    retryable = False


class FeedRefusedError(HarvestError):
    """The feed is not fetched: this deployment forbids its URL.

    Attributes:
        url: URL of the feed.
        host: forbidden host, maybe from a redirect; empty for a file.
        address: address that the host resolves to, or the path of a file; empty if the name itself is forbidden.
        reason: reason.
        setting: setting that would allow it; empty if there is none.
    """

    type = "FeedRefused"

    def __init__(self, url: str, *, reason: str, host: str = "", address: str = "", setting: str = "") -> None:
        """Initialize with what is forbidden, and how to allow it."""
        self.url, self.host, self.address, self.reason, self.setting = url, host, address, reason, setting
        way_out = setting or "no setting allows it; give the supplier another url"
        super().__init__(f"feed {shown_url(url)} is forbidden: {reason}; {way_out}")


class FeedLimitError(HarvestError):
    """The feed exceeds a limit of its supplier. Nothing of it is kept.

    Attributes:
        url: URL of the feed.
        setting: the supplier's setting of the limit, such as max_bytes.
        seen: how the feed exceeds it.
    """

    type = "FeedLimit"

    def __init__(self, url: str, *, setting: str, seen: str) -> None:
        """Initialize with the limit, and how it is exceeded."""
        self.url, self.setting, self.seen = url, setting, seen
        super().__init__(f"feed {shown_url(url)} {seen}; ask the supplier about it, or change its {setting}")


class FeedFormatError(HarvestError):
    """The content is not a feed in a known format, or not in the configured one.

    Attributes:
        url: URL of the feed.
        expected: what was expected.
        seen: what was found instead.
        line: line of the feed, from 1; 0 if unknown.
    """

    type = "FeedFormat"

    def __init__(self, url: str, *, expected: str, seen: str, line: int = 0) -> None:
        """Initialize with what was expected, and what was found."""
        self.url = url
        self.expected = expected
        self.seen = seen
        self.line = line
        where = f"feed {shown_url(url)}, line {line}" if line else f"feed {shown_url(url)}"
        super().__init__(f"{where}: expected {expected}, but found {seen}; check the supplier's url and format")


class FeedEmptyError(HarvestError):
    """The feed has no entries.

    This is an error, because a harvest of zero products would mark the supplier's whole catalogue as no longer listed.

    Attributes:
        url: URL of the feed.
        detail: what it contains, such as a header without rows.
    """

    type = "FeedEmpty"

    def __init__(self, url: str, *, detail: str = "it has no content") -> None:
        """Initialize with the URL of the empty feed."""
        self.url = url
        self.detail = detail
        super().__init__(f"feed {shown_url(url)} is empty: {detail}; ask the supplier, or check the url")


class FeedChangedError(HarvestError):
    """The feed was replaced during the harvest, so its cursors are invalid.

    Attributes:
        url: URL of the feed.
        expected: version at the start of the harvest.
        seen: version now; empty if the server does not send one.
    """

    type = "FeedChanged"

    def __init__(self, url: str, *, expected: str, seen: str) -> None:
        """Initialize with the old and the new version."""
        self.url = url
        self.expected = expected
        self.seen = seen
        super().__init__(
            f"feed {shown_url(url)} was replaced while it was being harvested: version {expected!r} became "
            f"{seen or 'unknown'!r}; start the harvest again"
        )
