"""The command line: `python -m contextunity.worker`, also installed as `contextworker`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.registry import WorkerRegistry
    from .settings import Settings
    from .stack import Stack

# What takes long to import is imported by the command that needs it, so that --help and mistakes answer at once.

__all__ = ["main"]

_DESCRIPTION = """\
Durable background work for services in any language.

  python -m contextunity.worker                        the gRPC WorkerService
  python -m contextunity.worker --temporal             Temporal workers for all modules
  python -m contextunity.worker --temporal --modules harvest gardener
                                                       Temporal workers for these modules
  python -m contextunity.worker dev                    both, and a Temporal server, for trying things out
  python -m contextunity.worker protos FOLDER          the proto files that contracts of your own import
"""

_EPILOG = """\
Settings come from contextworker.toml and the environment (WORKER_HOST, WORKER_PORT, WORKER_MODULES, CONTEXTWORKER_…);
how Temporal is reached from TEMPORAL_ADDRESS, TEMPORAL_NAMESPACE and the other variables of Temporal's own.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 used or configured wrongly."""
    arguments = _parser().parse_args(argv)
    command = _command(arguments)
    from contextunity.core.errors import ContextUnityError

    if arguments.command == "protos":
        return _protos(arguments.folder)

    from .core.discovery import boot

    try:
        settings, registry = boot()
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        # One line for each request of a module's, with addresses that may hold secrets, is for debugging alone.
        logging.getLogger("httpx").setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
        asyncio.run(_until_signal(command(settings, registry)))
    except ContextUnityError as error:
        print(f"contextworker: {error}", file=sys.stderr)  # noqa: T201 - what a command line is for
        return int(getattr(error, "exit_code", 1))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m contextunity.worker",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--temporal", action="store_true", help="run Temporal workers instead of the gRPC service")
    parser.add_argument(
        "--modules", nargs="+", metavar="NAME", help="with --temporal: run workers for these modules alone"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    protos = commands.add_parser("protos", help="write the proto files that contracts import, for buf or protoc")
    protos.add_argument("folder", type=Path, help="import folder to write them to")
    dev = commands.add_parser("dev", help="run everything at once: Temporal server, gRPC service, workers")
    dev.add_argument("--modules", nargs="+", metavar="NAME", help="run workers for these modules alone")
    dev.add_argument("--temporal-port", type=int, metavar="PORT", help="port of the Temporal server (7233)")
    dev.add_argument("--ui-port", type=int, metavar="PORT", help="port of Temporal's web UI (8233)")
    return parser


def _command(arguments: argparse.Namespace) -> Callable[[Settings, WorkerRegistry], Coroutine[Any, Any, None]]:
    if arguments.command == "dev":
        return lambda settings, registry: _dev(settings, registry, arguments)
    if arguments.temporal:
        return lambda settings, registry: _temporal(settings, registry, arguments.modules)
    if arguments.modules:
        _parser().error("--modules goes with --temporal or dev: the gRPC service takes work for all modules")
    return _grpc


def _protos(folder: Path) -> int:
    from .protos import export

    _say(f"wrote to {folder}:\n" + "\n".join(f"  {name}" for name in export(folder)))
    return 0


async def _grpc(settings: Settings, registry: WorkerRegistry) -> None:
    from .server import running_server
    from .service import WorkerService
    from .temporal import connect

    client = await connect(settings)
    async with running_server(WorkerService(client, registry), settings) as server:
        temporal = client.service_client.config.target_host
        _say(f"WorkerService listens on {server.host}:{server.port}, Temporal at {temporal}")
        await _forever()


async def _temporal(settings: Settings, registry: WorkerRegistry, names: Sequence[str] | None) -> None:
    from .temporal import connect, running_workers

    modules = registry.select(names)
    client = await connect(settings)
    async with running_workers(client, modules, settings) as workers:
        listed = ", ".join(module.config.name for module in modules) or "none"
        _settle()
        _say(f"Temporal workers run for modules: {listed}; Temporal at {client.service_client.config.target_host}")
        await _forever(workers)


async def _dev(settings: Settings, registry: WorkerRegistry, arguments: argparse.Namespace) -> None:
    from .stack import running_stack

    async with running_stack(
        settings, registry, modules=arguments.modules, temporal_port=arguments.temporal_port, ui_port=arguments.ui_port
    ) as stack:
        _say(_welcome(stack))
        try:
            await _forever(stack.workers)
        finally:
            _say("stopping …")


def _welcome(stack: Stack) -> str:
    target = stack.grpc.target
    return f"""\
ContextWorker runs. Ctrl-C stops it.

  WorkerService   {target}
  Temporal        {stack.temporal.address}
  Temporal web UI {stack.temporal.ui_url}
  modules         {", ".join(module.config.name for module in stack.modules) or "none"}
  state           {stack.temporal.database.parent}

{_examples(stack)}"""


def _examples(stack: Stack) -> str:
    lines = list[str]()
    for module in stack.modules:
        if module.config.example:
            payload = json.dumps({"payload": dict(module.config.example)})
            lines += [
                f"Start the module {module.config.name} from another terminal:",
                "",
                _buf_curl(stack, "StartWorkflow", payload),
                "",
            ]
    if lines:
        payload = json.dumps({"payload": {"workflow_id": "THE WORKFLOW ID IT ANSWERS"}})
        lines += ["Ask how it goes:", "", _buf_curl(stack, "GetTaskStatus", payload), ""]
    return "\n".join(lines)


def _buf_curl(stack: Stack, method: str, data: str) -> str:
    address = f"http://{stack.grpc.target}/contextunity.worker.WorkerService/{method}"
    return f"  {_buf()} curl --protocol grpc --http2-prior-knowledge -d '{data}' {address}"


def _buf() -> str:
    """How to call buf from the current folder; it is beside the interpreter where an environment brings it."""
    beside = Path(sys.executable).parent / "buf"
    if not beside.exists():
        return "buf"
    return str(beside.relative_to(Path.cwd())) if beside.is_relative_to(Path.cwd()) else str(beside)


async def _until_signal(command: Coroutine[Any, Any, None]) -> None:
    """Runs a command; the first Ctrl-C or SIGTERM unwinds it in order, a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(command)
    signals = (signal.SIGINT, signal.SIGTERM)
    asked_to_stop = False

    def stop() -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        for number in signals:
            loop.remove_signal_handler(number)
        task.cancel()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not asked_to_stop:
            raise


async def _forever(*watched: asyncio.Task[None]) -> None:
    """Waits until cancelled, or until a watched task fails."""
    await asyncio.gather(asyncio.get_running_loop().create_future(), *watched)


def _settle() -> None:
    """Takes what is loaded by now out of the garbage collector's rounds.

    It stays until the end, and to go through it again and again took a twentieth of a busy worker's processor time.
    """
    gc.collect()
    gc.freeze()


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what a command line is for
