"""Which modules the workflow sandbox has to share with the process, seen from a contract."""

from __future__ import annotations

import sys

from ._model import ServiceContract

__all__ = ["generated_modules"]


def generated_modules(service: ServiceContract) -> set[str]:
    """Import paths to pass through the workflow sandbox for a service.

    A message that is decoded outside the sandbox must be an instance of the class that the workflow's code names, so
    generated classes cannot be imported a second time.

    Returns:
        The packages that betterproto2 generated the service's dataclasses into, each as a whole: it is known by the
        module `message_pool`, which lies at its root. Dataclasses outside such a package are named by their modules.
    """
    contracts = (*service.workflows.values(), *service.activities.values(), *service.queries.values())
    contracts += (*service.signals.values(), *service.updates.values())
    messages = [message for each in contracts for message in (each.input_type, each.output_type) if message is not None]
    return {_root(message.__module__) for message in messages}


def _root(module: str) -> str:
    package = module
    while package and f"{package}.message_pool" not in sys.modules:
        package = package.rpartition(".")[0]
    return package or module
