"""What an image has of the machine that it is built on: Python that runs, and no shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from images import root

UNWANTED = re.compile(r"(ba|da|z|k|c|tc)?sh|busybox|apt.*|dpkg.*|perl.*|gcc.*|cc|ld|as|make|env|getent|ldconfig")
"""Programs that whoever breaks into a container would like to find."""

pytestmark = pytest.mark.skipif(
    not (root.DPKG / "status").exists(), reason="images are built on Debian or Ubuntu, which this machine is not"
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of an image for an empty environment, which is in it."""
    folder = tmp_path_factory.mktemp("image")
    folder.chmod(0o755)
    environment = folder / "opt" / "almanac"
    made = tmp_path_factory.mktemp("made") / "almanac"
    venv.create(made, symlinks=True)
    root.main(folder, made)
    environment.parent.mkdir()
    made.rename(environment)
    return folder


def files(image: Path) -> list[Path]:
    return [path for path in image.rglob("*") if path.is_file() and not path.is_symlink()]


def test_no_program_but_python(image: Path) -> None:
    programs = [path for path in files(image) if os.access(path, os.X_OK) and not re.search(r"\.(so|py)\b", path.name)]
    assert [path.name for path in programs if not path.is_relative_to(image / "opt")] == [
        Path(sys.executable).resolve().name
    ]
    assert not [path for path in programs if UNWANTED.fullmatch(path.name)]


def test_every_link_leads_somewhere(image: Path) -> None:
    def inside(path: Path) -> Path:
        to = path.readlink()
        return image / to.relative_to("/") if to.is_absolute() else path.parent / to

    links = [path for path in image.rglob("*") if path.is_symlink()]
    assert not [path for path in links if not os.path.lexists(inside(path))]


def test_packages_are_those_that_files_are_of(image: Path) -> None:
    said = {path.name for path in (image / "var/lib/dpkg/status.d").iterdir()}
    assert "libc6" in said
    assert not said & {"apt", "bash", "coreutils", "dash", "dpkg", "perl-base"}
    for name in said:
        command = ["/usr/bin/dpkg-query", "--show", "--showformat=${Status}", name]
        status = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        assert status.startswith("install ok installed"), name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder the root of a process")
def test_python_runs_there(image: Path) -> None:
    """With what an image is used for: TLS with certificates, time zones, other processes, every library of its own."""
    program = (
        "import asyncio, ctypes, multiprocessing, ssl, sys, zoneinfo;"
        "zoneinfo.ZoneInfo('Europe/Berlin');"
        "print(len(ssl.create_default_context().get_ca_certs()) > 0, sys.getfilesystemencoding())"
    )
    command = ["/usr/sbin/chroot", "--userspec=10001:10001", str(image), "/opt/almanac/bin/python", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env={"LANG": "C.UTF-8"}, check=False)
    assert (done.stdout.split(), done.stderr) == (["True", "utf-8"], "")
