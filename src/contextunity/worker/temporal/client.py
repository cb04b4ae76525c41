"""The client of the Temporal server: where it is, how long to try, and what is told where it does not answer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from temporalio.client import Client
from temporalio.converter import PayloadCodec
from temporalio.envconfig import ClientConfig
from temporalio.service import RetryConfig, RPCError

from python_temporal.contract import WorkflowContract

from ..errors import TemporalUnreachableError
from ..settings import Settings
from .plugin import ContextWorkerPlugin
from .search_attributes import register_attributes

__all__ = ["connect", "payload_codec", "with_port"]


async def connect(
    settings: Settings, *, address: str | None = None, workflows: Mapping[str, WorkflowContract] | None = None
) -> Client:
    """Connects to the Temporal server that the standard TEMPORAL_* settings name.

    Args:
        settings: `temporal_timeout` bounds the attempt.
        address: host:port to connect to instead.
        workflows: contracts by workflow_type whose search attributes are registered too, where they are missing.

    Raises:
        TemporalUnreachableError: nothing answers there in time, or it does not let us in.
        SettingsError: the file of payload keys cannot be read or used.
        SearchAttributesError: its namespace lacks search attributes, and it does not let us register them.
    """
    plugin = ContextWorkerPlugin(payload_codec=payload_codec(settings))
    config: dict[str, Any] = {**ClientConfig.load_client_connect_config()}
    if address is not None:
        config["target_host"] = address
    # The port may be left out where the deployed system names the host.
    config.setdefault("target_host", with_port(settings.temporal_host or "localhost"))
    try:
        async with asyncio.timeout(settings.temporal_timeout):
            if not config.get("http_connect_proxy_config"):
                await _knock(config["target_host"])
            # A server that refuses connections would otherwise be tried for ten seconds, whatever the setting says.
            retries = RetryConfig(max_elapsed_time_millis=int(settings.temporal_timeout * 1000))
            client = await Client.connect(**config, plugins=[plugin], retry_config=retries)
            await client.service_client.check_health()
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


def payload_codec(settings: Settings) -> PayloadCodec | None:
    """The codec that payloads go through; None where they are written in clear.

    Raises:
        SettingsError: the file of keys cannot be read or used.
    """
    if settings.payload_keys_file is None:
        return None
    # Imported where it is used: most processes have no keys, and cryptography takes a while to load.
    from .encryption import EncryptionCodec

    return EncryptionCodec(settings.payload_keys_file)


def with_port(address: str) -> str:
    """An address of a Temporal server, with the usual port where it names none."""
    host, separator, port = address.rpartition(":")
    if separator and port.isdigit() and (":" not in host or host.endswith("]")):
        return address
    return f"[{address}]:7233" if ":" in address and not address.startswith("[") else f"{address}:7233"


async def _knock(address: str) -> None:
    """Opens a plain connection to see that somebody is there.

    The SDK's own error for that quotes its transport's debug output; and a process that ends just after it may be
    aborted, because a thread of the SDK's is still about to return to an interpreter that is no more.
    """
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()
    await writer.wait_closed()


def _short(error: Exception) -> str:
    """The first telling line of the SDK's error, which otherwise quotes its transport's whole debug output."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
