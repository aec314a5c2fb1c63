"""Where data lie: a URI and the job's settings become a filesystem and a path, what storage refuses a `JobError`.

| URI | storage | credentials |
|---|---|---|
| `s3://bucket/key` | Amazon S3, or the store at `spec.storage.endpoint`, `AWS_ENDPOINT_URL_S3` | boto3's chain |
| `gs://bucket/key` | Google Cloud Storage | Google's application default |
| `file:///path`, `path` | this machine; relative paths start at the working directory | |
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pyarrow.fs as pafs

from almanac.api import JobError, Reason, Storage

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for an endpoint to accept a connection."""
REQUEST_TIMEOUT = 20.0
"""Seconds without a byte after which a request is given up."""
ATTEMPTS = 5
"""Times that a request is sent, with growing pauses, as long as the failure may pass by itself."""


@dataclass(frozen=True, slots=True)
class Location:
    """A place in storage. `location / "name"` is a place below it."""

    filesystem: pafs.FileSystem
    path: str
    """The path as `filesystem` has it."""
    uri: str
    field: str
    """The field of the job that names the place, for messages."""
    service: str
    """Who keeps the data, for messages: an endpoint, or the local disk."""
    credentials: str = ""
    """Where credentials came from, for messages."""
    s3_client: Callable[[], Any] | None = dataclass_field(default=None, repr=False, compare=False)
    """Opens botocore's client of the same store, for what `filesystem` cannot do; None where it is not S3."""

    def __truediv__(self, name: str) -> Location:
        shown = quote(name) if self.uri.startswith("file://") else name
        return replace(self, path=f"{self.path.rstrip('/')}/{name}", uri=f"{self.uri.rstrip('/')}/{shown}")

    @property
    def bucket(self) -> str | None:
        """The bucket; None on the local disk."""
        return None if isinstance(self.filesystem, pafs.LocalFileSystem) else self.path.split("/", 1)[0]


def open_location(uri: str, storage: Storage | None, *, field: str) -> Location:
    """The place that `uri` names; nothing is read or written yet. `field` is the job's field that holds it.

    Raises:
        JobError: InvalidSpec for a URI that cannot be, AccessDenied where credentials are set up but cannot be had.
    """
    scheme, separator, rest = uri.partition("://")
    if not uri:
        raise JobError(Reason.INVALID_SPEC, f"{field} is empty: write a path or a URI such as s3://bucket/folder")
    if not separator or scheme == "file":
        path = str(Path(unquote(urlsplit(uri).path) if separator else uri).absolute())
        return Location(pafs.LocalFileSystem(), path, uri, field, "the local disk")
    if scheme not in ("s3", "gs"):
        raise JobError(Reason.INVALID_SPEC, f"{field}: `{uri}` is not supported: write s3://, gs://, file:// or a path")
    if not rest.strip("/"):
        raise JobError(Reason.INVALID_SPEC, f"{field}: `{uri}` names no bucket: write {scheme}://bucket/folder")
    opened = _open_s3(field, storage) if scheme == "s3" else _open_gcs(storage)
    return replace(opened, path=re.sub("/+", "/", rest).strip("/"), uri=uri, field=field)


def _open_s3(field: str, storage: Storage | None) -> Location:
    # pyarrow's AWS SDK otherwise sends checksums as trailers, which older S3-compatible stores refuse or take for data.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    # Imported here: it takes as long as a small job, which may need none of it.
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import Session

    session = Session()
    try:
        profile: dict[str, Any] = session.get_scoped_config()
        credentials, origin = _s3_credentials(session)
    except (BotoCoreError, ClientError) as error:
        raise JobError(Reason.ACCESS_DENIED, f"{field}: the credentials for s3:// cannot be had: {error}") from error
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = ((storage and storage.endpoint) or environment or profile.get("endpoint_url") or "").rstrip("/")
    region = (storage and storage.region) or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    scheme, _, host = endpoint.rpartition("://")
    filesystem = pafs.S3FileSystem(
        **credentials,
        region=region or ("us-east-1" if endpoint else None),
        endpoint_override=host or None,
        scheme=scheme or "https",
        connect_timeout=CONNECT_TIMEOUT,
        request_timeout=REQUEST_TIMEOUT,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE") or profile.get("ca_bundle"),
    )

    def client() -> Any:
        from botocore import UNSIGNED
        from botocore.config import Config

        settings: dict[str, Any] = {"signature_version": UNSIGNED} if credentials.get("anonymous") else {}
        return session.create_client(
            "s3",
            region_name=region or ("us-east-1" if endpoint else None),
            endpoint_url=f"{scheme or 'https'}://{host}" if host else None,
            verify=os.environ.get("AWS_CA_BUNDLE") or profile.get("ca_bundle"),
            config=Config(
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=REQUEST_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                request_checksum_calculation="when_required",
                max_pool_connections=32,
                s3={"addressing_style": "path" if host else "auto"},
                **settings,
            ),
        )

    return Location(filesystem, "", "", field, endpoint or "Amazon S3", origin, client)


_REFRESHED_BY_PYARROW = {"assume-role-with-web-identity", "container-role", "iam-role"}


_NO_CREDENTIALS = (
    "none found, so the request was anonymous: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in a cluster as keys "
    "of the Secret that spec.storage.secretName names"
)


def _s3_credentials(session: Any) -> tuple[dict[str, Any], str]:
    """Credentials as pyarrow takes them, and where they came from.

    Those of a workload (a service account's web identity, EKS, ECS, EC2) are left to pyarrow, which renews them while a
    run lasts; the others are handed over as they are.
    """
    found = session.get_credentials()
    if found is None:
        return {"anonymous": True}, _NO_CREDENTIALS
    if found.method in _REFRESHED_BY_PYARROW:
        return {}, f"from {found.method}"
    keys = found.get_frozen_credentials()
    named = {"access_key": keys.access_key, "secret_key": keys.secret_key, "session_token": keys.token}
    return named, "from the environment" if found.method == "env" else f"from {found.method}"


def _open_gcs(storage: Storage | None) -> Location:
    endpoint = ((storage and storage.endpoint) or "").rstrip("/")
    scheme, _, host = endpoint.rpartition("://")
    filesystem = pafs.GcsFileSystem(
        anonymous=scheme == "http",  # a token is never sent in the clear; plain HTTP is an emulator's
        endpoint_override=host or None,
        scheme=scheme or "https",
        retry_time_limit=timedelta(seconds=REQUEST_TIMEOUT),
    )
    return Location(filesystem, "", "", "", endpoint or "Google Cloud Storage", "Google's application default")


@contextmanager
def storage_errors(location: Location, *, writing: bool = False) -> Iterator[None]:
    """Turn what storage refuses inside the block into one `JobError` that names the field, the place and what to do.

    Errors that are not about storage (a file that is not Parquet, say) pass through.
    """
    try:
        yield
    except OSError as error:
        found = _classify(error)
        if found is None:
            raise
        raise _refusal(location, found[0], found[1], writing=writing) from error


def not_found(location: Location) -> JobError:
    """The error for a place that holds nothing to read. Asks storage whether at least its bucket exists."""
    with storage_errors(location):
        bucket = location.bucket
        missing = bucket and location.filesystem.get_file_info(bucket).type == pafs.FileType.NotFound
    return _refusal(location, "bucket" if missing else "missing", "", writing=False)


def check_output(location: Location) -> None:
    """Refuse a place that cannot be written to, as far as that can be told before a run has computed anything.

    Raises:
        JobError: InvalidSpec for a bucket that is not there or a file in the way, AccessDenied on the local disk.
    """
    if location.bucket is not None:
        with suppress(OSError):  # who may write objects need not be allowed to look at the bucket
            if location.filesystem.get_file_info(location.bucket).type == pafs.FileType.NotFound:
                raise _refusal(location, "bucket", "", writing=True)
        return
    path = Path(location.path)
    nearest = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        words = f"`{location.uri}` cannot be a folder, because `{nearest}` is a file: choose another place"
        raise JobError(Reason.INVALID_SPEC, f"{location.field}: {words}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise _refusal(location, "denied", f"`{nearest}` is closed to this user", writing=True)


def _refusal(location: Location, what: str, detail: str, *, writing: bool) -> JobError:
    uri, said = f"`{location.uri}`", f" ({detail})" if detail else ""
    reason, words = {
        "missing": (Reason.SOURCE_NOT_FOUND, f"{uri} does not exist{said}: check the path"),
        "bucket": (
            Reason.INVALID_SPEC if writing else Reason.SOURCE_NOT_FOUND,
            f"{location.service} has no bucket `{location.bucket}`, which {uri} names: check the name, or create it",
        ),
        "denied": (
            Reason.ACCESS_DENIED,
            f"no permission to {'write' if writing else 'read'} {uri} on {location.service}{said}"
            + (f"; credentials: {location.credentials}" if location.credentials else ""),
        ),
        "expired": (
            Reason.CREDENTIALS_EXPIRED,
            f"the credentials for {uri} on {location.service} have expired{said}: another attempt takes those of then; "
            "renew them in time, or use a workload's identity, which is renewed while a run lasts"
            + (f"; credentials: {location.credentials}" if location.credentials else ""),
        ),
        "clock": (
            Reason.ACCESS_DENIED,
            f"{location.service} refuses to {'store' if writing else 'serve'} {uri}{said}: the clocks of this machine "
            "and of the store differ by minutes: set the one that is wrong",
        ),
        "region": (
            Reason.INVALID_SPEC,
            f"the bucket of {uri} is in another region{said}: set spec.storage.region to the bucket's",
        ),
        "full": (Reason.STORAGE_FULL, f"no space is left on {location.service} to write {uri}{said}"),
        "unavailable": (
            Reason.STORAGE_UNAVAILABLE,
            f"{location.service} does not {'store' if writing else 'serve'} {uri}{said}: try again"
            + (", or check spec.storage.endpoint" if location.bucket else ""),
        ),
    }[what]
    return JobError(reason, f"{location.field}: {words}")


_AWS = re.compile(
    r"AWS Error (?P<name>\w+)(?: \(HTTP status (?P<status>-?\d+)\))? during \w+ operation: (?P<detail>.*)", re.S
)
_UNKNOWN_TO_AWS_SDK = re.compile(r"Unable to parse ExceptionName: (?P<name>\w+) Message: (?P<detail>.*)", re.S)
_GOOGLE = re.compile(
    r"google::cloud::Status\((?P<name>\w+): .*?last message of (?P<detail>.*?)(?: error_info=|$)", re.S
)
_ERRNO = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EROFS: "denied",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
}
# Error codes of S3 and of stores that speak its protocol, in lower case without underscores, and HTTP statuses.
_CODES = {
    code: kind
    for kind, codes in {
        "bucket": "nosuchbucket xminiobucketnotfound",
        "missing": "nosuchkey resourcenotfound 404",
        "denied": "accessdenied allaccessdisabled invalidaccesskeyid signaturedoesnotmatch invalidtoken "
        "missingauthenticationtoken unrecognizedclient 401 403",
        "expired": "expiredtoken expiredtokenexception tokenrefreshrequired requestexpired",
        "clock": "requesttimetooskewed",
        "region": "permanentredirect authorizationheadermalformed illegallocationconstraint 301",
        "full": "insufficientstorage xminiostoragefull quotaexceeded xminioadminbucketquotaexceeded 507",
    }.items()
    for code in codes.split()
}


def _classify(error: OSError) -> tuple[str, str] | None:
    """What kind of refusal an error is, with the storage's own words; None if it is not about storage."""
    text = str(error)
    aws = _AWS.search(text)
    if aws:
        unknown = _UNKNOWN_TO_AWS_SDK.match(aws["detail"])
        name, detail = (unknown["name"], unknown["detail"]) if unknown else (aws["name"], aws["detail"])
        codes = (name.replace("_", "").lower(), aws["status"])
        return next((_CODES[code] for code in codes if code in _CODES), "unavailable"), _plain(name, detail)
    google = _GOOGLE.search(text)
    if google:
        return _ERRNO.get(error.errno or 0, "unavailable"), _plain(google["name"], google["detail"])
    if error.errno is None:
        return None
    return _ERRNO.get(error.errno, "unavailable"), re.sub(r"^\[Errno \d+\] ", "", text.split(". Detail: ")[0])


def _plain(name: str, detail: str) -> str:
    """A store's error on one line: its name, and its message without request ids and curl's repetition."""
    detail = re.split(r" \(Request ID: |; Details: ", detail)[0].replace("No response body.", "").strip()
    return f"{name}: {detail}" if detail else name
