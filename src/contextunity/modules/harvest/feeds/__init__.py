"""Reading supplier feeds: page by page, from any cursor, with memory that does not grow with the feed.

`open_feed` looks at a feed once; `read_page` reads a page from a cursor and gives the cursor of the next one. Both are
plain async functions that know nothing of Temporal. What a format is made of lies in the module named for it.
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
