"""Whole files in storage, each replaced in one step: a reader sees the old file or the new one, never a part.

On the local disk that is a file beside it, written through to the disk and renamed; in object stores, one put. Whatever
storage refuses is a `JobError`, see `storage.storage_errors`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from almanac_jobs.storage import Location, storage_errors

CONFLICTS = 20
"""Times that an update is begun anew because another writer came first."""
THREADS = 16
"""Requests under way at a time where there are many small files."""
_CHUNK = 8 << 20
_TYPES = {".json": "application/json", ".html": "text/html; charset=utf-8"}
_LOST = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409"}
_UNCONDITIONAL = {"NotImplemented", "501"}


def read(location: Location) -> bytes | None:
    """The content of a file; None if there is none."""
    with storage_errors(location):
        try:
            with location.filesystem.open_input_file(location.path) as file:
                return bytes(file.read())
        except (FileNotFoundError, NotADirectoryError):
            return None


def write(location: Location, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write or replace a file, and the folders that it needs. `durable` waits until the local disk has it for good."""
    with storage_errors(location, writing=True):
        if location.bucket is None:
            _write_local(Path(location.path), data, durable=durable)
        elif location.s3_client is not None:
            _put(location, data)
        else:
            with location.filesystem.open_output_stream(location.path) as file:
                file.write(data)


def move(file: Path, location: Location) -> None:
    """Make a local file the one at a place, whole and for good; it is gone where it was. Folders are made."""
    with storage_errors(location, writing=True):
        if location.bucket is None:
            path = Path(location.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
            shutil.move(file, path)
            with _opened(path.parent) as folder:
                os.fsync(folder)
            return
        with file.open("rb") as source, location.filesystem.open_output_stream(location.path) as target:
            shutil.copyfileobj(source, target, _CHUNK)
        file.unlink()


def sync(location: Location) -> None:
    """Wait until all that was written to a local disk is there for good."""
    if location.bucket is None:
        os.sync()


def update(location: Location, change: Callable[[bytes | None], bytes | None]) -> None:
    """Replace a file by what `change` makes of its content (None: there is none); nothing happens if that is None.

    Writers that meet take turns, on the local disk by a lock on the folder, in S3 by conditional puts. A store that has
    none of these gets a plain put.
    """
    with storage_errors(location, writing=True):
        if location.bucket is None:
            path = Path(location.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(path.parent):
                changed = change(path.read_bytes() if path.exists() else None)
                if changed is not None:
                    _write_local(path, changed, durable=True)
        elif location.s3_client is not None:
            _update_s3(location, change)
        else:
            changed = change(read(location))
            if changed is not None:
                write(location, changed)


def remove(location: Location) -> None:
    """Delete a file or a folder with all that it holds; nothing happens if there is none."""
    with storage_errors(location, writing=True):
        if location.bucket is None:
            path = Path(location.path)
            with suppress(FileNotFoundError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif location.s3_client is not None:
            # pyarrow would put an empty object in the place of the folder above.
            found = location.filesystem.get_file_info(location.path).type
            paths = [location.path] if found == pafs.FileType.File else [info.path for info in files(location)]
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda path: _delete(location, path), paths))
        else:
            found = location.filesystem.get_file_info(location.path).type
            if found == pafs.FileType.File:
                location.filesystem.delete_file(location.path)
            elif found == pafs.FileType.Directory:
                location.filesystem.delete_dir(location.path)


def files(location: Location) -> list[pafs.FileInfo]:
    """All files below a place, with the paths of its filesystem."""
    with storage_errors(location):
        selector = pafs.FileSelector(location.path, allow_not_found=True, recursive=True)
        return [info for info in location.filesystem.get_file_info(selector) if info.type == pafs.FileType.File]


def folders(location: Location) -> list[str]:
    """Names of the folders below a place."""
    with storage_errors(location):
        found = location.filesystem.get_file_info(pafs.FileSelector(location.path, allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


def _write_local(path: Path, data: bytes | memoryview, *, durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")  # readers of folders skip dot files
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if durable:
        with _opened(path.parent) as folder:
            os.fsync(folder)  # the name is to last as long as the content


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep out whoever else locks the folder. Some network disks have no locks, and do without."""
    with _opened(folder) as descriptor:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@lru_cache(maxsize=8)
def _client(make: Callable[[], Any]) -> Any:
    return make()


def _put(location: Location, data: bytes | memoryview, **condition: str) -> None:
    """One request, where pyarrow would make three."""
    bucket, _, key = location.path.partition("/")
    kind = _TYPES.get(Path(key).suffix, "application/octet-stream")
    _call(location, "put_object", Bucket=bucket, Key=key, Body=bytes(data), ContentType=kind, **condition)


def _delete(location: Location, path: str) -> None:
    bucket, _, key = path.partition("/")
    _call(location, "delete_object", Bucket=bucket, Key=key)


def _get(location: Location) -> tuple[bytes, str] | None:
    """An object with its version; None if there is none."""
    from botocore.exceptions import BotoCoreError

    bucket, _, key = location.path.partition("/")
    try:
        found = _call(location, "get_object", Bucket=bucket, Key=key)
        return found["Body"].read(), found["ETag"]
    except _RefusedError as refused:
        if refused.code in ("NoSuchKey", "404"):
            return None
        raise
    except BotoCoreError as error:  # the body was cut short
        raise OSError(errno.EIO, str(error)) from error


def _call(location: Location, operation: str, **arguments: Any) -> Any:
    """A request to S3. Raises OSError in the words of pyarrow's filesystem, which `storage_errors` understands."""
    from botocore.exceptions import BotoCoreError, ClientError

    assert location.s3_client is not None  # noqa: S101 - for the type checker; callers have looked
    try:
        return getattr(_client(location.s3_client), operation)(**arguments)
    except ClientError as error:
        raise _RefusedError(error) from error
    except BotoCoreError as error:
        raise OSError(errno.EIO, str(error)) from error


class _RefusedError(OSError):
    """An answer of S3 that is an error; `code` is S3's word for it."""

    def __init__(self, error: Any) -> None:
        said, status = error.response.get("Error", {}), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        self.code = str(said.get("Code", status))
        text = f"AWS Error {self.code} (HTTP status {status}) during {error.operation_name} operation: "
        super().__init__(text + said.get("Message", ""))


def _update_s3(location: Location, change: Callable[[bytes | None], bytes | None]) -> None:
    for _ in range(CONFLICTS):
        found = _get(location)
        changed = change(found and found[0])
        if changed is None:
            return
        condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
        try:
            _put(location, changed, **condition)
        except _RefusedError as refused:
            if refused.code in _UNCONDITIONAL:
                _put(location, changed)
            elif refused.code in _LOST:
                continue
            else:
                raise
        return
    raise OSError(errno.EBUSY, f"{CONFLICTS} other writers came first")
