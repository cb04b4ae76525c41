"""`python -m bench._feed_process FOLDER`: serves a folder's feeds on loopback until its standard input is closed."""

from __future__ import annotations

import sys
from pathlib import Path

from contextunity.modules.harvest.feed_server import FeedServer

if __name__ == "__main__":
    with FeedServer(Path(sys.argv[1])) as server:
        print(f"serving {server.url('')}", flush=True)
        sys.stdin.read()
