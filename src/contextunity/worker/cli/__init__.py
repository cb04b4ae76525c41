"""The command line: `contextworker`, which is also `python -m contextunity.worker`.

Each group of commands is a module with `add_parser(commands)` and `run(arguments) -> int`. Only the module of the
current command is imported, so that --help and usage errors are fast.
"""

from .main import main

__all__ = ["main"]
