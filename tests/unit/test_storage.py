import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from almanac.api import JobError, Reason, Storage
from almanac_jobs import storage
from almanac_jobs.storage import Location, not_found, open_location, storage_errors
from matrix import Group, Moment, cell
from s3 import Fault, S3Server

TABLE = pa.table({"a": [1, 2, 3]})


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials and no endpoint but what a test sets."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def s3(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("lake")
        yield server


def read(location: Location) -> pa.Table:
    with storage_errors(location), location.filesystem.open_input_file(location.path) as file:
        return pq.read_table(file)


def write(location: Location) -> None:
    with storage_errors(location, writing=True), location.filesystem.open_output_stream(location.path) as file:
        pq.write_table(TABLE, file)


def refused(act: Callable[[], object]) -> JobError:
    with pytest.raises(JobError) as caught:
        act()
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    return caught.value


@pytest.mark.parametrize("form", ["{}/a b.parquet", "file://{}/a%20b.parquet", "file://localhost{}/a b.parquet"])
def test_local_paths_and_file_uris(form: str, tmp_path: Path) -> None:
    uri = form.format(tmp_path)
    location = open_location(uri, None, field="spec.source.uri")
    assert (location.path, location.uri, location.bucket) == (str(tmp_path / "a b.parquet"), uri, None)
    write(location)
    assert read(location).equals(TABLE)


def test_relative_paths_start_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_location("data/x", None, field="f").path == str(tmp_path / "data/x")


def test_a_place_below_another() -> None:
    below = open_location("/data/", None, field="f") / "runs" / "1"
    assert (below.path, below.uri) == ("/data/runs/1", "/data/runs/1")
    below = open_location("file:///data", None, field="f") / "a%2Fb"
    assert (below.path, below.uri) == ("/data/a%2Fb", "file:///data/a%252Fb")


@pytest.mark.parametrize(
    ("uri", "words"), [("abfs://x/y", "s3://, gs://, file://"), ("s3://", "no bucket"), ("", "empty")]
)
def test_uris_that_cannot_be(uri: str, words: str) -> None:
    error = refused(lambda: open_location(uri, None, field="spec.output.uri"))
    assert error.reason is Reason.INVALID_SPEC
    assert error.message.startswith("spec.output.uri")
    assert words in error.message


def test_s3_by_environment_variables(s3: S3Server) -> None:
    location = open_location("s3://lake//raw/t.parquet", None, field="spec.source.uri")
    assert (location.path, location.bucket, location.service) == ("lake/raw/t.parquet", "lake", s3.endpoint)
    write(location)
    assert s3.keys("lake") == ["raw/t.parquet"]
    assert read(location).equals(TABLE)


def test_s3_endpoint_of_the_job_comes_first(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    location = open_location("s3://lake/t.parquet", Storage(endpoint=s3.endpoint, region="eu-west-1"), field="f")
    write(location)
    assert "/eu-west-1/s3/" in s3.requests[-1]["HTTP_AUTHORIZATION"]


def test_s3_by_profile(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in s3.environment:
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text("[ledger]\naws_access_key_id = ledger-key\naws_secret_access_key = s\n")
    (tmp_path / "config").write_text(f"[profile ledger]\nregion = eu-north-1\nendpoint_url = {s3.endpoint}\n")
    monkeypatch.setenv("AWS_PROFILE", "ledger")
    write(open_location("s3://lake/t.parquet", None, field="f"))
    assert "Credential=ledger-key/" in s3.requests[-1]["HTTP_AUTHORIZATION"]
    assert "/eu-north-1/s3/" in s3.requests[-1]["HTTP_AUTHORIZATION"]


def test_s3_without_credentials_is_anonymous(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    location = open_location("s3://lake/t.parquet", None, field="f")
    s3.faults.append(Fault(status=403, code="AccessDenied", times=9))
    error = refused(lambda: read(location))
    assert "HTTP_AUTHORIZATION" not in s3.requests[-1]
    assert error.reason is Reason.ACCESS_DENIED
    assert "credentials: none found" in error.message
    assert error.message.endswith("as keys of the Secret that spec.storage.secretName names")


def test_credentials_of_a_workload_are_left_to_the_store_client(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyarrow fetches and renews them itself, here from a container's endpoint."""

    class Provider(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def answer(env: object, start: Callable[..., object]) -> list[bytes]:
        start("200 OK", [("Content-Type", "application/json")])
        return [b'{"AccessKeyId":"pod","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}']

    with make_server("127.0.0.1", 0, answer, handler_class=Provider) as provider:
        threading.Thread(target=provider.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{provider.server_port}/")
        write(open_location("s3://lake/t.parquet", None, field="f"))
        provider.shutdown()
    assert "Credential=pod/" in s3.requests[-1]["HTTP_AUTHORIZATION"]


def test_a_profile_that_is_not_there(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    error = refused(lambda: open_location("s3://lake/x", None, field="spec.source.uri"))
    assert error.reason is Reason.ACCESS_DENIED
    assert "nobody" in error.message


def test_no_checksum_trailers_are_sent(s3: S3Server) -> None:
    write(open_location("s3://lake/t.parquet", None, field="f"))
    assert not [env for env in s3.requests if "HTTP_X_AMZ_TRAILER" in env]


@pytest.mark.parametrize(
    "fault", [Fault(status=503, times=2), Fault(reset=True), Fault(truncate=10)], ids=["503", "reset", "cut"]
)
def test_faults_that_pass_are_ridden_out(s3: S3Server, fault: Fault) -> None:
    location = open_location("s3://lake/t.parquet", None, field="f")
    write(location)
    fault.matches = lambda method, _: method == "GET"
    s3.faults.append(fault)
    assert read(location).equals(TABLE)


def test_an_unknown_bucket(s3: S3Server) -> None:
    location = open_location("s3://pond/t.parquet", None, field="spec.source.uri")
    error = not_found(location)
    assert (error.reason, error.exit_code) == (Reason.SOURCE_NOT_FOUND, 66)
    assert "spec.source.uri" in error.message
    assert f"{s3.endpoint} has no bucket `pond`" in error.message
    error = refused(lambda: write(location))
    assert error.reason is Reason.INVALID_SPEC
    assert "no bucket `pond`" in error.message


def test_an_unknown_key(s3: S3Server) -> None:
    location = open_location("s3://lake/nothing", None, field="spec.source.uri")
    assert "`s3://lake/nothing` does not exist" in not_found(location).message
    assert refused(lambda: read(location)).reason is Reason.SOURCE_NOT_FOUND


REFUSALS = [
    (403, "AccessDenied", Reason.ACCESS_DENIED, 77),
    (403, "InvalidAccessKeyId", Reason.ACCESS_DENIED, 77),
    (403, "SignatureDoesNotMatch", Reason.ACCESS_DENIED, 77),
    (400, "ExpiredToken", Reason.CREDENTIALS_EXPIRED, 75),
    (403, "RequestTimeTooSkewed", Reason.ACCESS_DENIED, 77),
    (301, "PermanentRedirect", Reason.INVALID_SPEC, 64),
    (400, "AuthorizationHeaderMalformed", Reason.INVALID_SPEC, 64),
    (507, "XMinioStorageFull", Reason.STORAGE_FULL, 75),
    (403, "QuotaExceeded", Reason.STORAGE_FULL, 75),
    (400, "TeapotRefusal", Reason.STORAGE_UNAVAILABLE, 75),
]


@pytest.mark.parametrize(("status", "code", "reason", "exit_code"), REFUSALS, ids=lambda value: str(value))
def test_what_s3_refuses(s3: S3Server, status: int, code: str, reason: Reason, exit_code: int) -> None:
    location = open_location("s3://lake/t.parquet", None, field="spec.output.uri")
    s3.faults.append(Fault(status=status, code=code, times=9))
    error = refused(lambda: write(location))
    assert (error.reason, error.exit_code) == (reason, exit_code)
    assert error.message.startswith("spec.output.uri: ")
    assert "`s3://lake/t.parquet`" in error.message
    assert code.lower() in error.message.replace("_", "").lower()


def test_a_store_that_stays_overloaded(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    location = open_location("s3://lake/t.parquet", None, field="spec.source.uri")
    s3.faults.append(Fault(status=503, times=99))
    error = refused(lambda: read(location))
    assert (error.reason, error.exit_code) == (Reason.STORAGE_UNAVAILABLE, 75)
    assert s3.endpoint in error.message


@cell(
    Group.STORAGE,
    "Nobody is at the endpoint",
    Moment.READING,
    "StorageUnavailable, tried again; it names the endpoint.",
)
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_an_endpoint_that_nobody_answers(no_aws: None, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    monkeypatch.setattr(storage, "REQUEST_TIMEOUT", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    location = open_location(f"{scheme}://lake/t.parquet", Storage(endpoint=endpoint), field="spec.source.uri")
    for act in (lambda: read(location), lambda: not_found(location)):
        error = refused(act)
        assert (error.reason, error.exit_code) == (Reason.STORAGE_UNAVAILABLE, 75)
        assert endpoint in error.message
        assert "spec.storage.endpoint" in error.message
        assert "connect to server" in error.message


@cell(
    Group.STORAGE,
    "The store takes requests, and never answers",
    Moment.READING,
    "Each is given up after 20 s without a byte; StorageUnavailable, tried again.",
)
def test_an_endpoint_that_accepts_and_says_nothing(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    monkeypatch.setattr(storage, "REQUEST_TIMEOUT", 1.0)
    location = open_location("s3://lake/t.parquet", None, field="spec.source.uri")
    s3.faults.append(Fault(delay=4.0, times=9))
    begun = time.monotonic()
    assert refused(lambda: read(location)).reason is Reason.STORAGE_UNAVAILABLE
    assert time.monotonic() - begun < 4.0


@pytest.mark.parametrize(
    ("status", "reason"), [(403, Reason.ACCESS_DENIED), (401, Reason.ACCESS_DENIED), (404, Reason.SOURCE_NOT_FOUND)]
)
def test_what_google_refuses(no_aws: None, status: int, reason: Reason) -> None:
    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    def answer(env: object, start: Callable[..., object]) -> list[bytes]:
        start(f"{status} Injected", [("Content-Type", "application/json")])
        return [b'{"error": {"message": "injected"}}']

    with make_server("127.0.0.1", 0, answer, handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = Storage(endpoint=f"http://127.0.0.1:{server.server_port}")
        error = refused(lambda: read(open_location("gs://lake/t.parquet", endpoint, field="spec.source.uri")))
        server.shutdown()
    assert error.reason is reason
    assert "injected" in error.message


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    location = open_location(str(tmp_path / "nothing"), None, field="spec.source.uri")
    assert refused(lambda: read(location)).reason is Reason.SOURCE_NOT_FOUND
    assert not_found(location).exit_code == 66


def test_no_permission_on_the_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no mode stops: the system's refusal is injected."""
    location = open_location(str(tmp_path / "secret"), None, field="spec.source.uri")
    for number in (errno.EACCES, errno.EPERM, errno.EROFS):
        with pytest.raises(JobError, match="no permission to write") as caught, storage_errors(location, writing=True):
            raise OSError(number, os.strerror(number), location.path)
        assert caught.value.exit_code == 77


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk() -> None:
    error = refused(lambda: write(open_location("/dev/full", None, field="spec.output.uri")))
    assert (error.reason, error.exit_code) == (Reason.STORAGE_FULL, 75)
    assert "no space is left on the local disk" in error.message


def test_errors_of_other_kinds_pass() -> None:
    location = open_location("/x", None, field="f")
    with pytest.raises(OSError, match="deserialize"), storage_errors(location):
        raise OSError("Couldn't deserialize thrift")
    with pytest.raises(pa.ArrowInvalid), storage_errors(location):
        raise pa.ArrowInvalid("not Parquet")


def test_locations_are_filesystems_of_pyarrow(no_aws: None) -> None:
    assert isinstance(open_location("gs://lake/x", None, field="f").filesystem, pafs.GcsFileSystem)
    assert open_location("gs://lake/x", None, field="f").service == "Google Cloud Storage"
    assert open_location("s3://lake/x", None, field="f").service == "Amazon S3"
