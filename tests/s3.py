"""An S3 server inside the test process, with faults on demand."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import boto3
import pyarrow.fs as pafs
import pytest
from botocore.config import Config
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Matches = Callable[[str, str], bool]


@dataclass
class Fault:
    """What happens to the next `times` requests whose (method, path) match: an error, a wait, a cut, a hang-up.

    Only to those that are signed with the key of that id, where `signed_by` names one.
    """

    matches: Matches = lambda method, path: True
    status: int = 0
    code: str = "SlowDown"
    times: int = 1
    delay: float = 0.0
    truncate: int | None = None
    reset: bool = False
    signed_by: str = ""

    def befalls(self, env: dict[str, Any]) -> bool:
        """Whether it happens to a request; `matches` is asked only where nothing else speaks against that."""
        signed = f"Credential={self.signed_by}/" in env.get("HTTP_AUTHORIZATION", "") or not self.signed_by
        return bool(self.times) and signed and self.matches(env["REQUEST_METHOD"], env["PATH_INFO"])


@dataclass
class _Application:
    """moto, with faults before it."""

    moto: Callable[..., Iterable[bytes]]
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False

    def __call__(self, env: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append(env)
        for fault in self.faults:
            if fault.befalls(env):
                fault.times -= 1
                return self._fail(fault, env, start)
        return self.moto(env, start)

    def _fail(self, fault: Fault, env: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        time.sleep(fault.delay)
        if self.closed:  # what was asked is not to happen in the next server: buckets are the process's
            raise ConnectionResetError
        if fault.reset:
            env["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        if fault.status:
            env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
            told = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(told)))]
            start(f"{fault.status} Injected", headers)
            return [told]
        body = b"".join(self.moto(env, start))
        return [body[: fault.truncate]]


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        pass


class S3Server:
    """An S3 endpoint on this machine, empty at first. Buckets are the process's: one server at a time.

    `address` is where it listens: another than the default is for those who are not on this machine.

    with S3Server() as s3:
        s3.make_bucket("lake")
        s3.faults.append(Fault(status=503, times=2))
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        self._address = address

    def __enter__(self) -> Self:
        self._application = _Application(DomainDispatcherApplication(create_backend_app))
        self._server = make_server(self._address, 0, self._application, threaded=True, request_handler=_Quiet)
        self.endpoint = f"http://{self._address}:{self._server.port}"
        self.faults, self.requests = self._application.faults, self._application.requests
        self.environment = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
        }
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="secret",  # noqa: S106 - moto takes any
            region_name="us-east-1",
            config=Config(retries={"max_attempts": 0}, request_checksum_calculation="when_required"),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._application.closed = True
        self._server.shutdown()
        self._server.server_close()
        moto_api_backend.reset()

    def make_bucket(self, name: str) -> None:
        self.client.create_bucket(Bucket=name)

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=body)

    def keys(self, bucket: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    @property
    def filesystem(self) -> pafs.S3FileSystem:
        host = self.endpoint.removeprefix("http://")
        return pafs.S3FileSystem(
            access_key="test",
            secret_key="secret",  # noqa: S106 - moto takes any
            endpoint_override=host,
            scheme="http",
            region="us-east-1",
        )


@contextmanager
def lake() -> Iterator[S3Server]:
    """An S3 endpoint with an empty bucket `lake`; the environment of this process leads there, and nowhere else."""
    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "ALMANAC_"))]:
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in server.environment.items():
            patch.setenv(name, value)
        server.make_bucket("lake")
        yield server
