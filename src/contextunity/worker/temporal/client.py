"""The client of the Temporal server: its address, its timeout, and the errors if the server cannot be reached."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from typing import Any

from temporalio.client import Client
from temporalio.converter import ExternalStorage, PayloadCodec
from temporalio.envconfig import ClientConfig
from temporalio.service import RetryConfig, RPCError

from python_temporal.contract import WorkflowContract

from ..errors import SettingsError, TemporalUnreachableError
from ..settings import Settings
from .plugin import ContextWorkerPlugin
from .search_attributes import register_attributes

__all__ = ["connect", "connection_config", "payload_codec", "payload_storage", "with_port"]


_TEMPORAL_SETTINGS = "correct the TEMPORAL_ variables, or the file of TEMPORAL_CONFIG_FILE"
_QUOTED_LINE = re.compile(r"\s*\d*\s*\|")


async def connect(
    settings: Settings,
    *,
    address: str | None = None,
    workflows: Mapping[str, WorkflowContract] | None = None,
    register: bool = True,
) -> Client:
    """Connect to the Temporal server of the standard TEMPORAL_* settings.

    Args:
        settings: `temporal_timeout` limits the attempt.
        address: host:port to use instead.
        workflows: contracts by workflow_type whose missing search attributes are registered too.
        register: whether to register search attributes at all; False changes nothing on the server.

    Raises:
        TemporalUnreachableError: nothing answers in time, or access is denied.
        SettingsError: the payload keys, the payload storage or the settings of Temporal's SDK cannot be used.
        SearchAttributesError: the namespace lacks search attributes, and registering them is not permitted.
    """
    plugin = ContextWorkerPlugin(payload_codec=payload_codec(settings), external_storage=payload_storage(settings))
    config = connection_config(settings, address)
    try:
        async with asyncio.timeout(settings.temporal_timeout):
            if not config.get("http_connect_proxy_config"):
                await _knock(config["target_host"])
            # The SDK retries a refused connection for ten seconds, regardless of the setting, so check it first.
            retries = RetryConfig(max_elapsed_time_millis=int(settings.temporal_timeout * 1000))
            client = await Client.connect(**config, plugins=[plugin], retry_config=retries)
            await client.service_client.check_health()
            if register:
                await register_attributes(client, (workflows or {}).values())
            return client
    except TimeoutError:
        reason = f"no answer within {settings.temporal_timeout:g} s"
    except ValueError:
        reason = "that is no address; it should read host:port"
    except OSError as error:
        known = error.errno is not None and error.errno > 0
        reason = (os.strerror(error.errno or 0) if known else error.strerror or str(error)).lower()
    except (RuntimeError, RPCError) as error:
        reason = _short(error)
    raise TemporalUnreachableError(config["target_host"], reason)


def connection_config(settings: Settings, address: str | None = None) -> dict[str, Any]:
    """Return the arguments of `Client.connect` that the standard TEMPORAL_* settings and ours give; some are secrets.

    Args:
        settings: `temporal_host` counts where no TEMPORAL_ADDRESS or profile names a server.
        address: host:port to use instead.

    Raises:
        SettingsError: the settings or the file of Temporal's SDK cannot be read; its text quotes no line of the file.
    """
    try:
        config: dict[str, Any] = {**ClientConfig.load_client_connect_config()}
    except OSError as error:
        reason = f"{error.filename} cannot be read: {(error.strerror or str(error)).lower()}"
        raise SettingsError([f"Temporal's own settings: {reason}; {_TEMPORAL_SETTINGS}"]) from None
    except (RuntimeError, ValueError) as error:
        # Of a file that is wrong, the lines with a bar show its text, which may be a key.
        lines = [line for line in str(error).splitlines() if line.strip() and not _QUOTED_LINE.match(line)]
        raise SettingsError([f"Temporal's own settings: {': '.join(lines)}; {_TEMPORAL_SETTINGS}"]) from None
    if address is not None:
        config["target_host"] = address
    # `temporal_host` of the deployed system may omit the port.
    config.setdefault("target_host", with_port(settings.temporal_host or "localhost"))
    return config


def payload_codec(settings: Settings) -> PayloadCodec | None:
    """Return the codec for payloads; None if they are not encrypted.

    Raises:
        SettingsError: the file of keys cannot be read or is invalid.
    """
    if settings.payload_keys_file is None:
        return None
    # Imported on demand: most processes have no keys, and importing cryptography takes a while.
    from .encryption import EncryptionCodec

    return EncryptionCodec(settings.payload_keys_file)


def payload_storage(settings: Settings) -> ExternalStorage | None:
    """Return the storage of large payloads; None if all are sent to Temporal.

    Raises:
        SettingsError: the folder is missing or cannot be written to, or the client of S3 is not installed.
    """
    if not settings.payload_storage:
        return None
    # Imported on demand: most processes have no storage.
    from .storage import open_storage

    return open_storage(settings.payload_storage, settings.payload_storage_threshold)


def with_port(address: str) -> str:
    """Return an address of a Temporal server with the default port if it has none."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit() and (":" not in host or host.endswith("]")):
        return address
    return f"[{address}]:7233" if ":" in address and not address.startswith("[") else f"{address}:7233"


async def _knock(address: str) -> None:
    """Open a plain connection, to check that the server is reachable.

    The SDK's own error quotes its transport's debug output. Also, a process that ends just after it may be aborted,
    because a thread of the SDK returns to an interpreter that no longer exists.
    """
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()
    await writer.wait_closed()


def _short(error: Exception) -> str:
    """Return the first useful line of the SDK's error, which otherwise quotes its transport's debug output."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
