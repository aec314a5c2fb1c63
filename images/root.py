"""The root of an image that has Python and nothing else of this machine: no shell, no package manager, no compiler.

`python3 root.py FOLDER ENVIRONMENT` copies into FOLDER what the virtual environment ENVIRONMENT needs besides itself:
this interpreter with its standard library, the shared libraries that any of them is linked with, certificates and time
zones. What Debian's packages say of these files comes along, in the place where scanners look for it. Needs nothing but
Python, and a Debian or Ubuntu around it.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

DATA = (
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/os-release",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/usr/lib/locale/C.utf8",
    "/usr/lib/ssl/cert.pem",
    "/usr/lib/ssl/certs",
    "/usr/lib/ssl/openssl.cnf",
    "/usr/share/zoneinfo",
)
"""What is read at run time, where there is such a thing."""
UNUSED = re.compile(
    r"(__pycache__|config-.*|dist-packages|ensurepip|idlelib|lib2to3|macholib|pydoc_data|site-packages|test|tests|tkinter|turtledemo"
    r"|(_curses|_curses_panel|_dbm|_gdbm|_sqlite3|_tkinter|nis|readline)\..*\.so)"
)
"""Names in the standard library that no run needs: terminals, windows, databases in files, tests, other packages."""
WRITTEN = {
    "etc/group": "root:x:0:\nalmanac:x:10001:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/passwd": "root:x:0:0:root:/:/nologin\nalmanac:x:10001:10001::/tmp:/nologin\n",
}
DPKG = Path("/var/lib/dpkg")


class Root:
    """A folder that gets files of this machine at the same paths, and links as links."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: set[str] = set()
        """Files that were copied, by their paths without links."""

    def take(self, path: Path) -> None:
        """Copy a file, a folder with all that is in it, or what a link leads to."""
        path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
        for part in (*reversed(path.parents), path):
            if part.is_symlink():
                self._link(part)
                self.take(part.parent / part.readlink() / path.relative_to(part))
                return
        if path.is_dir():
            (self.folder / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
            for inside in sorted(path.iterdir()):
                if inside.exists() and not UNUSED.fullmatch(inside.name):
                    self.take(inside)
        elif str(path) not in self.taken:
            to = self.folder / path.relative_to("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to)
            self.taken.add(str(path))

    def _link(self, path: Path) -> None:
        to = self.folder / path.relative_to("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        if not to.is_symlink():
            to.symlink_to(path.readlink())


def libraries(folders: Iterable[Path]) -> Iterator[Path]:
    """The shared libraries outside of these folders that anything in them is linked with."""
    inside = tuple(f"{folder}/" for folder in folders)
    for folder in folders:
        for path in [folder] if folder.is_file() else sorted(folder.rglob("*")):
            if UNUSED.fullmatch(path.name) or path.is_symlink() or not path.is_file() or not _is_linked(path):
                continue
            said = subprocess.run(["/usr/bin/ldd", str(path)], capture_output=True, text=True, check=False).stdout
            yield from (Path(one) for one in re.findall(r"(/\S+) \(0x", said) if not one.startswith(inside))


def _is_linked(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def owners(taken: set[str]) -> list[str]:
    """The packages of Debian that these files are of."""

    def is_ours(listed: Path) -> bool:
        return any(os.path.realpath(line) in taken for line in listed.read_text(encoding="utf-8").splitlines())

    return [one.stem for one in sorted(DPKG.glob("info/*.list")) if is_ours(one)]


def describe(root: Root) -> None:
    """Say in the image which packages its files are of, and under which licences."""
    stanzas = (DPKG / "status").read_text(encoding="utf-8").strip().split("\n\n")
    about = {re.findall(r"^Package: (.+)$", one, re.MULTILINE)[0]: one for one in stanzas}
    folder = root.folder / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True)
    for owner in owners(root.taken):
        name = owner.partition(":")[0]  # libc6:amd64, where a package may be there for several architectures
        (folder / name).write_text(about[name] + "\n", encoding="utf-8")
        licence = Path("/usr/share/doc") / name / "copyright"
        if licence.exists():
            root.take(licence)


def main(folder: Path, environment: Path) -> None:
    """Make the root of an image for this environment."""
    root = Root(folder)
    python, standard = environment / "bin" / "python", Path(sysconfig.get_path("stdlib"))
    for path in (python.resolve(), standard, *(Path(one) for one in DATA)):
        if path.exists():
            root.take(path)
    link = python
    while link.is_symlink():
        if not link.is_relative_to(environment):
            root.take(link)
        link = link.parent / link.readlink()
    for path in sorted(set(libraries([environment, standard, python.resolve()]))):
        root.take(path)
    describe(root)
    for name, text in WRITTEN.items():
        (folder / name).write_text(text, encoding="utf-8")
    copied = folder / standard.relative_to("/")
    # Right whatever a copy does to the times of files: nothing can be compiled where it runs.
    compileall.compile_dir(copied, quiet=1, stripdir=folder, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    subprocess.run(["/sbin/ldconfig", "-r", str(folder)], check=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
