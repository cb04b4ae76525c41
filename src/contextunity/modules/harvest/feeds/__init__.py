"""Reading supplier feeds: page by page, from any cursor, with memory that does not grow with the feed.

`open_feed` looks at a feed once; `read_page` reads a page from a cursor and gives the cursor of the next one. Both are
plain async functions that know nothing of Temporal. What a format is made of lies in the module named for it.
"""

from ._file import feed_folder_of, file_path
from ._model import FeedBounds, FeedSource, FetchedPage, KnownVersion
from ._open import FeedUnchangedError, open_feed
from ._page import read_page
from ._readahead import Readahead

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
