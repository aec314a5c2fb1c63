"""A PostgreSQL of the tests' own: made in a folder, on a free port, and gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbc_driver_postgresql.dbapi as driver

HELP = "there is no PostgreSQL server: install it (Debian: apt-get install postgresql), `make test` does as root"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs. `log` has every statement, with the role and the application that sent it."""

    port: int
    folder: Path

    @property
    def connection(self) -> dict[str, Any]:
        """The fields of a job that name it."""
        return {"host": "127.0.0.1", "port": self.port, "database": "postgres", "user": "postgres"}

    @property
    def url(self) -> str:
        """Its URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def cpu(self) -> float:
        """Seconds of CPU that connections have taken which are over. Linux only."""
        pid = (self.folder / "data" / "postmaster.pid").read_text().split()[0]
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    @property
    def log(self) -> str:
        """All that it has said."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def run(self, *statements: str) -> None:
        """Carry out statements, each in a transaction of its own."""
        with driver.connect(self.url, autocommit=True) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with driver.connect(self.url, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


def binaries() -> Path | None:
    """The folder with PostgreSQL's programs; None if there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: int(one.parts[4]))
    if found:
        return found[-1].parent
    named = shutil.which("initdb")
    return Path(named).resolve().parent if named else None


@contextmanager
def server(*settings: str) -> Iterator[Server]:
    """A new server with some settings (`log_statement=all`).

    Raises:
        FileNotFoundError: there is no PostgreSQL here.
    """
    found = binaries()
    if found is None:
        raise FileNotFoundError(HELP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="almanac-postgres-"))
    as_user = _unprivileged(folder)
    options = ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", "max_connections=50", *settings]
    start = f"-p {port} -k {folder} " + " ".join(f"-c {one}" for one in options)
    data = str(folder / "data")
    try:
        _call([*as_user, str(found / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"])
        _call([*as_user, str(found / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", start, "start"])
        try:
            yield Server(port, folder)
        finally:
            _call([*as_user, str(found / "pg_ctl"), "-D", data, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> Sequence[str]:
    """What makes a command run as somebody else than root, whom PostgreSQL refuses; `folder` becomes theirs."""
    if os.geteuid() != 0:
        return ()
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/", check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
