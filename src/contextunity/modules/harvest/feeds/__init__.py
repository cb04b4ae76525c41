"""Read supplier feeds page by page, from any cursor, with constant memory.

`open_feed` inspects a feed once; `read_page` reads a page from a cursor and returns the cursor of the next one. Both
are plain async functions without Temporal. Each format has its own module.
"""

from .files import feed_folder_of, file_path
from .model import FeedBounds, FeedSource, FetchedPage, KnownVersion, Readahead
from .open import FeedUnchangedError, open_feed
from .page import read_page

__all__ = [
    "FeedBounds",
    "FeedSource",
    "FeedUnchangedError",
    "FetchedPage",
    "KnownVersion",
    "Readahead",
    "feed_folder_of",
    "file_path",
    "open_feed",
    "read_page",
]
