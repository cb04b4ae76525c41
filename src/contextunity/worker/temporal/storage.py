"""Keeps large payloads outside of Temporal: in a folder that all processes share, or in S3.

The data converter encodes a payload, encrypts it if there are keys, stores it if it is large, and sends a reference to
it. Each process that reads the reference needs the same storage.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.contrib.aws.s3driver import S3StorageDriver, S3StorageDriverClient
from temporalio.converter import (
    ExternalStorage,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from ..errors import SettingsError, missing_extra
from .converter import LARGEST_STORED
from .errors import PayloadStorageError, StoredPayloadError

__all__ = ["folder_storage", "open_storage", "s3_storage"]

_GROWTH = 64 * 1024
"""Bytes by which encryption may make the largest payload larger."""
_LONGEST_NAME = 150
"""Maximum characters of a folder's name; file systems allow 255 bytes."""
_SEGMENT = re.compile(r"[A-Za-z0-9_~%\-][A-Za-z0-9_.~%\-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NOBODYS = "_"
"""Folder of payloads whose workflow is not known when they are written."""


def open_storage(url: str, threshold: int) -> ExternalStorage:
    """Return the storage of the settings.

    Args:
        url: file:///FOLDER or s3://BUCKET/PREFIX, as the settings check it.
        threshold: bytes from which on payloads are stored.

    Raises:
        SettingsError: the folder is missing or cannot be written to, or the client of S3 is not installed.
    """
    scheme, _, place = url.partition("://")
    if scheme == "s3":
        bucket, _, prefix = place.partition("/")
        return s3_storage(bucket, prefix, threshold=threshold)
    folder = Path(unquote(place))
    # It is not created: without its mount, payloads would be on this machine alone.
    if not folder.is_dir():
        raise SettingsError([f"payload_storage = {url!r}: there is no such folder; create it, or mount it"])
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise SettingsError([f"payload_storage = {url!r}: this process may not read and write in the folder"])
    return folder_storage(folder, threshold=threshold)


def folder_storage(folder: Path, *, threshold: int = 256 * 1024) -> ExternalStorage:
    """Return a storage in a folder, for the data converter or `ContextWorkerPlugin`."""
    return ExternalStorage(drivers=[_FolderDriver(folder)], payload_size_threshold=threshold)


def s3_storage(bucket: str, prefix: str = "", *, threshold: int = 256 * 1024) -> ExternalStorage:
    """Return a storage in a bucket of S3, or of a service with the same interface.

    Credentials, region and endpoint are those of the AWS SDK: AWS_PROFILE, AWS_ENDPOINT_URL_S3 and so on.

    Raises:
        SettingsError: the client of S3 is not installed, or lacks the region.
    """
    driver = _S3Driver(_S3Client(_boto3_client(), prefix), bucket, max_payload_size=LARGEST_STORED + _GROWTH)
    return ExternalStorage(drivers=[driver], payload_size_threshold=threshold)


class _FolderDriver(StorageDriver):
    """Keeps payloads as files NAMESPACE/WORKFLOW/SHA-256, so that equal ones of a workflow are kept once.

    Args:
        folder: root of the storage. References are relative to it, so it may be mounted elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name(self) -> str:
        """Name in references."""
        return "contextworker.folder"

    def type(self) -> str:
        """Name of the kind."""
        return "contextworker.folder"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """Write payloads, and return when they are on the disk.

        Raises:
            PayloadStorageError: the folder does not take one.
        """
        folder = _folder_of(context)
        paths = [await asyncio.to_thread(self._write, folder, each.SerializeToString()) for each in payloads]
        return [StorageDriverClaim(claim_data={"path": path}) for path in paths]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Read payloads.

        Raises:
            StoredPayloadError: one is missing, has changed, or cannot be read.
        """
        return [await asyncio.to_thread(self._read, each.claim_data.get("path", "")) for each in claims]

    def _write(self, folder: str, data: bytes) -> str:
        if len(data) > LARGEST_STORED + _GROWTH:
            raise PayloadStorageError(f"a payload of {len(data):,} bytes; the payload storage takes {LARGEST_STORED:,}")
        digest = hashlib.sha256(data).hexdigest()
        path = self._folder / folder / digest
        try:
            if not _is_kept(path, data):
                _write_whole(path, data)
        except OSError as error:
            raise PayloadStorageError(
                f"a payload of {len(data):,} bytes cannot be written to payload_storage: {_reason(error)}; make room, "
                "or check the folder's mount and permissions"
            ) from error
        return f"{folder}/{digest}"

    def _read(self, path: str) -> Payload:
        segments = path.split("/")
        # What is in the history is not trusted: nothing outside of the folder is opened.
        if len(segments) != 3 or not all(map(_SEGMENT.fullmatch, segments)) or not _DIGEST.fullmatch(segments[2]):
            raise StoredPayloadError(f"{path[:200]!r} is not a path of a payload in payload_storage")
        try:
            descriptor = os.open(self._folder.joinpath(*segments), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                data = file.read(LARGEST_STORED + _GROWTH + 1)
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise StoredPayloadError(
                f"the payload {path!r} cannot be read from payload_storage: {_reason(error)}; check the folder's mount "
                "and permissions"
            ) from error
        if hashlib.sha256(data).hexdigest() != segments[2]:
            raise _changed(path)
        try:
            return Payload.FromString(data)
        except DecodeError:
            raise StoredPayloadError(f"the file {path!r} in payload_storage is not a payload") from None


def _folder_of(context: StorageDriverStoreContext) -> str:
    target = context.target
    if target is None:
        return f"{_NOBODYS}/{_NOBODYS}"
    return f"{_name(target.namespace)}/{_name(target.id or '')}"


def _name(text: str) -> str:
    """Return a folder's name for an id: readable, and never a path of several folders, nor hidden."""
    name = quote(text, safe="") or _NOBODYS
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return name


def _is_kept(path: Path, data: bytes) -> bool:
    """Whether a file has the bytes already; its age then begins anew, for rules that delete by age."""
    try:
        if path.read_bytes() != data:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file at once: others see the whole of it or nothing, after a crash too."""
    grown = [path.parent]
    for folder in (path.parent.parent, path.parent):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            grown.append(folder.parent)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    for folder in grown:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _missing(path: str) -> StoredPayloadError:
    return StoredPayloadError(
        f"the payload {path!r} is not in payload_storage: it was deleted before its history, or this process has "
        "another storage than the one that wrote it; restore it from a backup, or correct the setting"
    )


def _changed(path: str) -> StoredPayloadError:
    return StoredPayloadError(
        f"the payload {path!r} in payload_storage has changed since it was stored (its SHA-256 differs); restore it "
        "from a backup"
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


class _S3Driver(S3StorageDriver):
    """The SDK's driver for one bucket, with errors that name the setting."""

    def __init__(self, client: _S3Client, bucket: str, *, max_payload_size: int) -> None:
        super().__init__(client, bucket, max_payload_size=max_payload_size)
        self._only = bucket

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """Write payloads.

        Raises:
            PayloadStorageError: the bucket does not take one.
        """
        try:
            return await super().store(context, payloads)
        except (RuntimeError, ValueError) as error:
            raise PayloadStorageError(
                f"a payload cannot be written to payload_storage, the bucket {self._only!r}: {_cause(error)}; check "
                "its name, the credentials and the endpoint"
            ) from error

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Read payloads.

        Raises:
            StoredPayloadError: one is missing, has changed, or cannot be read.
        """
        for claim in claims:
            # What is in the history is not trusted: nothing outside of the bucket is read.
            if claim.claim_data.get("bucket") != self._only or "key" not in claim.claim_data:
                raise StoredPayloadError(
                    f"the payload is in the bucket {claim.claim_data.get('bucket', '')[:200]!r}, and payload_storage "
                    f"is {self._only!r}"
                )
        try:
            return await super().retrieve(context, claims)
        except (RuntimeError, ValueError, DecodeError) as error:
            key = ", ".join(claim.claim_data["key"][-200:] for claim in claims)
            cause = error.__cause__
            if cause is not None and _code(cause) in ("NoSuchKey", "404"):
                raise _missing(key) from None
            if cause is None:
                raise _changed(key) from None
            raise StoredPayloadError(
                f"the payload {key!r} cannot be read from payload_storage, the bucket {self._only!r}: {_cause(error)}; "
                "check the credentials and the endpoint"
            ) from error


class _S3Client(S3StorageDriverClient):
    """Objects below a prefix; references do not have it, so they cannot leave it.

    Args:
        client: boto3's client. Its calls block, and may be made in several threads.
        prefix: beginning of all keys.
    """

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    async def put_object(self, *, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""
        await asyncio.to_thread(self._client.put_object, Bucket=bucket, Key=self._prefix + key, Body=data)

    async def object_exists(self, *, bucket: str, key: str) -> bool:
        """Always False, so that an object is written again: its age begins anew, for rules that delete by age."""
        return False

    async def get_object(self, *, bucket: str, key: str) -> bytes:
        """Read an object."""

        def read() -> bytes:
            body = self._client.get_object(Bucket=bucket, Key=self._prefix + key)["Body"]
            with contextlib.closing(body):
                data: bytes = body.read(LARGEST_STORED + _GROWTH + 1)
            return data

        return await asyncio.to_thread(read)


def _boto3_client() -> Any:
    try:
        # It has no types, and most processes do not need it.
        boto3: Any = importlib.import_module("boto3")
        config: Any = importlib.import_module("botocore.config")
        exceptions: Any = importlib.import_module("botocore.exceptions")
    except ModuleNotFoundError as error:
        raise missing_extra(error, ("boto3", "botocore"), "payload_storage", "s3") from None
    try:
        return boto3.session.Session().client(
            "s3", config=config.Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard"})
        )
    except (exceptions.BotoCoreError, ValueError) as error:
        raise SettingsError([f"payload_storage: S3 cannot be used: {error}"]) from None


def _code(error: BaseException) -> str:
    response: Any = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def _cause(error: BaseException) -> str:
    """Return why S3 rejected a request: its code, or the client's error, in which there are no credentials."""
    cause = error.__cause__ or error
    return _code(cause) or str(cause)
