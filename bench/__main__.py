"""`python -m bench [NAME ...]`: runs benchmarks, prints what they found, and keeps it in bench/results/."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from rich.console import Console

from . import _report, _summary
from ._machine import describe_machine
from ._model import Options, Result

_RESULTS = Path(__file__).resolve().parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is asked for; 1 where a benchmark could not be run, and never because something was slow."""
    names = _names()
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures ContextWorker beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run, of {', '.join(names)} (all)")
    parser.add_argument("--quick", action="store_true", help="small sizes and two rounds, to see that it works")
    parser.add_argument("--rounds", type=_positive, help="how often everything is measured")
    parser.add_argument("--products", type=_positive, help="products in the harvested feed (100,000)")
    parser.add_argument("--million", action="store_true", help="harvest a million products as well, once")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in names]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(names)}")
    # SIGTERM unwinds as Ctrl-C does, so that processes and folders of a benchmark go with it.
    signal.signal(signal.SIGTERM, _exit)
    # Where the output is a file, tables need not fit a terminal.
    console = Console(width=None if sys.stdout.isatty() else 160)
    machine = describe_machine()
    console.print(
        f"{machine['cores']} cores, {machine['processor']}, {machine['python']}, load {machine['load_average']}"
    )
    results = dict[str, Result]()
    for name in arguments.names or names:
        try:
            results[name] = _run(console, name, arguments, machine)
        # What the others found in minutes is not to be lost.
        except Exception:  # noqa: BLE001
            console.print_exception()
    _summary.show(console, results)
    for path in _summary.write(_RESULTS, results, machine):
        console.print(f"→ {_shown(path)}", highlight=False)
    return 0 if len(results) == len(arguments.names or names) else 1


def _run(console: Console, name: str, arguments: argparse.Namespace, machine: dict[str, object]) -> Result:
    run = _find_run(importlib.import_module(f"{__package__}.{name}"))
    assert run is not None
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder, console.status(f"{name} …"):
        result = run(
            Options(
                quick=arguments.quick,
                rounds=arguments.rounds,
                products=arguments.products or (5_000 if arguments.quick else 100_000),
                million=arguments.million,
                folder=Path(folder),
            )
        )
    _report.show(console, result)
    path = _report.write(_RESULTS, name, result, machine)
    console.print(f"→ {_shown(path)}", highlight=False)
    return result


def _shown(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _names() -> list[str]:
    """The benchmarks of this package, by file name alone: importing them all would make `--help` slow."""
    return sorted(
        module.name for module in pkgutil.iter_modules([str(_RESULTS.parent)]) if not module.name.startswith("_")
    )


def _find_run(module: ModuleType) -> Callable[[Options], Result]:
    run: Callable[[Options], Result] | None = getattr(module, "run", None)
    if run is None:
        raise TypeError(f"{module.__name__} has no function run(options) -> Result; see bench/__init__.py")
    return run


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())
