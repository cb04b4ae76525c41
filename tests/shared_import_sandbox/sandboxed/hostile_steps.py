"""Workflow code that tries what the sandbox is there to refuse. The sandbox may import this file once for all runs."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import datetime
import glob
import gzip
import http.client
import importlib
import inspect
import logging
import multiprocessing
import os
import os.path
import pathlib
import random
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import typing
import urllib.request
import uuid
from datetime import datetime as aliased_datetime
from random import randint as aliased_randint
from time import time as aliased_time
from typing import Any

from temporalio import workflow
from temporalio.worker.workflow_sandbox import RestrictedWorkflowAccessError


class Forbidden:
    """What a run must not do, one a method."""

    datetime_now = staticmethod(lambda: datetime.datetime.now())
    datetime_utcnow = staticmethod(lambda: datetime.datetime.utcnow())
    datetime_today = staticmethod(lambda: datetime.datetime.today())
    datetime_by_another_name = staticmethod(lambda: aliased_datetime.now())
    date_today = staticmethod(lambda: datetime.date.today())
    time_time = staticmethod(lambda: time.time())
    time_by_another_name = staticmethod(lambda: aliased_time())
    time_monotonic = staticmethod(lambda: time.monotonic())
    time_sleep = staticmethod(lambda: time.sleep(0))
    time_by_getattr = staticmethod(lambda: getattr(time, "time_ns")())  # noqa: B009 - another way to it
    random_random = staticmethod(lambda: random.random())
    random_choice = staticmethod(lambda: random.choice([1]))
    random_by_another_name = staticmethod(lambda: aliased_randint(1, 1))
    random_from_sys_modules = staticmethod(lambda: sys.modules["random"].random())
    random_by_dunder_import = staticmethod(lambda: __import__("random").random())
    random_by_importlib = staticmethod(lambda: importlib.import_module("random").random())
    secrets_token = staticmethod(lambda: secrets.token_hex(1))
    uuid4 = staticmethod(lambda: uuid.uuid4())
    uuid1 = staticmethod(lambda: uuid.uuid1())
    open_builtin = staticmethod(lambda: open(os.devnull))  # noqa: SIM115
    open_of_builtins = staticmethod(lambda: builtins.open(os.devnull))  # noqa: SIM115
    open_by_the_standard_library = staticmethod(lambda: logging.FileHandler(os.devnull))
    open_by_gzip = staticmethod(lambda: gzip.open(os.devnull))  # noqa: SIM115
    open_by_tarfile = staticmethod(lambda: tarfile.open(os.devnull))  # noqa: SIM115
    input_builtin = staticmethod(lambda: input())
    breakpoint_builtin = staticmethod(lambda: breakpoint())
    os_environ = staticmethod(lambda: os.environ["PATH"])
    os_environ_get = staticmethod(lambda: os.environ.get("PATH"))
    os_environ_set = staticmethod(lambda: os.environ.__setitem__("HOSTILE", "1"))
    os_getcwd = staticmethod(lambda: os.getcwd())
    os_getpid = staticmethod(lambda: os.getpid())
    os_path_exists = staticmethod(lambda: os.path.exists("/"))
    os_urandom = staticmethod(lambda: os.urandom(1))
    os_name_set = staticmethod(lambda: setattr(os, "name", "hostile"))
    os_by_pathlib = staticmethod(lambda: pathlib.Path("/").exists())
    glob_glob = staticmethod(lambda: glob.glob("/"))
    threading_thread = staticmethod(lambda: threading.Thread(target=print))
    threading_lock = staticmethod(lambda: threading.Lock())
    multiprocessing_process = staticmethod(lambda: multiprocessing.Process(target=print))
    executor = staticmethod(lambda: concurrent.futures.ThreadPoolExecutor())
    socket_socket = staticmethod(lambda: socket.socket())
    select_select = staticmethod(lambda: select.select([], [], [], 0))
    http_connection = staticmethod(lambda: http.client.HTTPConnection("localhost"))
    url_request = staticmethod(lambda: urllib.request.Request("http://localhost"))
    subprocess_run = staticmethod(lambda: subprocess.run(["true"]))
    signal_signal = staticmethod(lambda: signal.getsignal(2))
    shutil_which = staticmethod(lambda: shutil.which("sh"))
    tempfile_folder = staticmethod(lambda: tempfile.gettempdir())

    @staticmethod
    def local_import() -> Any:
        import random as again

        return again.random()

    @staticmethod
    def local_import_of_a_name() -> Any:
        from random import random as again

        return again()

    @staticmethod
    def unrestricted_before() -> Any:
        Allowed.unrestricted()
        return time.time()


class Allowed:
    """What has to work, and to have the same outcome in either sandbox."""

    time_by_vars = staticmethod(lambda: vars(time)["perf_counter"]() > 0)
    random_of_its_own = staticmethod(lambda: random.Random(7).randint(1, 6))
    uuid5 = staticmethod(lambda: str(uuid.uuid5(uuid.NAMESPACE_URL, "a")))
    pure_path = staticmethod(lambda: str(pathlib.PurePosixPath("/a") / "b"))
    path_of_text = staticmethod(lambda: str(pathlib.Path("/a") / "b"))
    asyncio_wait = staticmethod(lambda: asyncio.wait([]).close())
    replaced_now = staticmethod(lambda: setattr(datetime.datetime, "now", None))
    unknown_module = staticmethod(lambda: __import__("no_such_module_anywhere"))
    thread_identity = staticmethod(lambda: len(sys.modules) > 0)
    is_a_datetime = staticmethod(lambda: isinstance(workflow.now(), datetime.datetime))
    is_a_date = staticmethod(lambda: issubclass(datetime.datetime, datetime.date))
    is_one_of = staticmethod(lambda: isinstance(1, (datetime.date, int)))
    made_datetime = staticmethod(lambda: datetime.datetime(2024, 1, 2).isoformat())
    time_of_workflow = staticmethod(lambda: workflow.time() > 0)
    types_of_function = staticmethod(lambda: typing.get_type_hints(Hostile.run)["name"].__name__)
    signature = staticmethod(lambda: str(inspect.signature(Hostile.run)))

    @staticmethod
    def local_import_twice() -> Any:
        for _ in range(2):
            try:
                Forbidden.local_import_of_a_name()
            except RestrictedWorkflowAccessError:
                continue
            return "came through"
        return "refused twice"

    @staticmethod
    def unrestricted() -> Any:
        with workflow.unsafe.sandbox_unrestricted():
            return time.time() > 0 and random.random() < 1

    @staticmethod
    def nested_in_unrestricted() -> Any:
        with workflow.unsafe.sandbox_unrestricted(), workflow.unsafe.imports_passed_through():
            import random as again

            return again.random() < 1


@workflow.defn(name="Hostile")
class Hostile:
    @workflow.run
    async def run(self, name: str) -> str:
        try:
            found = getattr(Forbidden if name in FORBIDDEN else Allowed, name)()
        except RestrictedWorkflowAccessError as error:
            return f"refused: {error.qualified_name}: {error}"
        except Exception as error:  # noqa: BLE001 - it is the outcome, whatever it is
            return f"{type(error).__name__}: {error}"
        return f"allowed: {found!r}"


@workflow.defn(name="Careless")
class Careless:
    @workflow.run
    async def run(self) -> float:
        return random.random()


def _methods(cls: type) -> tuple[str, ...]:
    return tuple(name for name in vars(cls) if not name.startswith("_"))


FORBIDDEN, ALLOWED = _methods(Forbidden), _methods(Allowed)
