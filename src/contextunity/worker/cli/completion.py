"""`contextworker completion`: print a shell's completion script for commands and flags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from .commands import COMMANDS, Commands
from .output import say

__all__ = ["add_parser", "complete", "is_asked", "run", "words_so_far"]

_DESCRIPTION = """\
Prints a shell's completion script for commands and flags. Load it when the shell starts:

  bash:  echo 'eval "$(contextworker completion bash)"' >> ~/.bashrc
  zsh:   echo 'eval "$(contextworker completion zsh)"' >> ~/.zshrc        (after compinit)
  fish:  contextworker completion fish > ~/.config/fish/completions/contextworker.fish
"""
_ASKED = "_ARGCOMPLETE"
"""The shell's function sets this variable when it requests completions of a word."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help=COMMANDS["completion"][1],
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    from argcomplete.shell_integration import shellcode

    say(shellcode(["contextworker"], shell=arguments.shell).strip())
    return 0


def is_asked() -> bool:
    """Return whether a shell runs this process for completion."""
    return _ASKED in os.environ


def words_so_far() -> Sequence[str]:
    """Return the words of the line to complete."""
    return os.environ.get("COMP_LINE", "").split()[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Print completions for the shell, and exit."""
    import argcomplete

    argcomplete.autocomplete(parser)
