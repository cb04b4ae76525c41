"""The command line: `contextworker`, which is also `python -m contextunity.worker`.

Each group of commands is a module with `add_parser(commands)` and `run(arguments) -> int`. Only that of the command at
hand is imported, so that --help and mistakes answer at once.
"""

from .main import main

__all__ = ["main"]
