"""`contextworker completion`: prints what a shell needs to complete commands and flags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from .commands import COMMANDS, Commands
from .output import say

__all__ = ["add_parser", "complete", "is_asked", "run", "words_so_far"]

_DESCRIPTION = """\
Prints what a shell needs to complete commands and flags. Have it read at its start:

  bash:  echo 'eval "$(contextworker completion bash)"' >> ~/.bashrc
  zsh:   echo 'eval "$(contextworker completion zsh)"' >> ~/.zshrc        (after compinit)
  fish:  contextworker completion fish > ~/.config/fish/completions/contextworker.fish
"""
_ASKED = "_ARGCOMPLETE"
"""Set by the shell's function when it asks what a word may become."""


def add_parser(commands: Commands) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "completion",
        help=COMMANDS["completion"][1],
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from argcomplete.shell_integration import shellcode

    say(shellcode(["contextworker"], shell=arguments.shell).strip())
    return 0


def is_asked() -> bool:
    """Whether a shell runs this process to complete a word."""
    return _ASKED in os.environ


def words_so_far() -> Sequence[str]:
    """The words of the line that is completed."""
    return os.environ.get("COMP_LINE", "").split()[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell, and ends the process."""
    import argcomplete

    argcomplete.autocomplete(parser)
