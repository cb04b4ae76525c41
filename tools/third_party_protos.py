"""Collects the protos that ours import (Temporal's, Protovalidate's) into an ignored folder beside buf.yaml.

Run as `python tools/third_party_protos.py FOLDER`. The folder is replaced as a whole, so it never holds a stale file.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from contextunity.worker.protos import export_third_party

if __name__ == "__main__":
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    export_third_party(Path(sys.argv[1]))
