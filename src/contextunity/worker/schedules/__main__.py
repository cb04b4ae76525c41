"""`python -m contextunity.worker.schedules ACTION`: the same as `contextworker schedules ACTION`."""

import sys

from contextunity.worker.cli import main

if __name__ == "__main__":
    sys.exit(main(["schedules", *sys.argv[1:]]))
