"""The bill of materials of an image: valid CycloneDX, complete, and the same every time."""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from images import sbom

STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl (3.0.15-1)
Version: 3.0.15-1~deb12u1
Description: Secure Sockets Layer toolkit - shared libraries
 This package is part of the OpenSSL project's implementation of SSL.

Package: zlib1g
Status: install ok installed
Architecture: amd64
Source: zlib
Version: 1:1.2.13.dfsg-1

Package: perl-base
Status: deinstall ok config-files
Architecture: amd64
Version: 5.36.0-7
"""
RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
LIBSSL = "pkg:deb/debian/libssl3@3.0.15-1~deb12u1?arch=amd64&distro=debian-12&upstream=openssl%403.0.15-1"
ZLIB = "pkg:deb/debian/zlib1g@1:1.2.13.dfsg-1?arch=amd64&distro=debian-12&upstream=zlib"


YAML = version("pyyaml")


def made_root(folder: Path) -> Path:
    """A root with two packages of Debian, and one that is gone; and a wheel."""
    (folder / "etc").mkdir()
    (folder / "etc/os-release").write_text(RELEASE)
    (folder / "var/lib/dpkg").mkdir(parents=True)
    (folder / "var/lib/dpkg/status").write_text(STATUS)
    (folder / f"PyYAML-{YAML}-cp311-cp311-linux_x86_64.whl").write_bytes(b"a wheel")
    return folder


def written(root: Path) -> str:
    """The bill of the environment that runs this test."""
    return sbom.written(sbom.bill("image", "1.2.3", Path(sys.prefix), root, root))


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(made_root(tmp_path_factory.mktemp("root")))


def components(text: str) -> dict[str, dict[str, Any]]:
    """What a bill lists, by its package URL."""
    return {one["purl"]: one for one in json.loads(text)["components"] if "purl" in one}


def test_it_is_valid_cyclonedx(bill: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None


def test_every_python_package_is_listed(bill: str) -> None:
    listed = {PackageURL.from_string(purl) for purl in components(bill) if purl.startswith("pkg:pypi/")}
    paths = [path for path in sys.path if path.startswith(sys.prefix)]
    assert listed == {
        PackageURL("pypi", name=canonicalize_name(one.name), version=one.version) for one in distributions(path=paths)
    }


def test_a_package_has_its_licence_and_the_wheel_that_it_came_from(bill: str) -> None:
    found = components(bill)
    yaml = found[f"pkg:pypi/pyyaml@{YAML}"]
    assert yaml["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"a wheel").hexdigest()}]
    assert yaml["licenses"] == [{"license": {"id": "MIT"}}]
    assert "hashes" not in found[f"pkg:pypi/pydantic@{version('pydantic')}"]


def test_what_a_package_needs(bill: str) -> None:
    graph = {one["ref"]: one.get("dependsOn", []) for one in json.loads(bill)["dependencies"]}
    assert f"pkg:pypi/pydantic-core@{version('pydantic-core')}" in graph[f"pkg:pypi/pydantic@{version('pydantic')}"]


def test_libraries_that_wheels_say_they_bring_along(bill: str) -> None:
    found = components(bill)[f"pkg:pypi/scikit-learn@{version('scikit-learn')}"]
    assert [one["name"] for one in found["components"]] == ["libgomp"]


def test_packages_of_debian(bill: str) -> None:
    """In the form that scanners match."""
    assert {PackageURL.from_string(one) for one in components(bill) if one.startswith("pkg:deb/")} == {
        PackageURL.from_string(one) for one in (LIBSSL, ZLIB)
    }
    (system,) = [one for one in json.loads(bill)["components"] if one["type"] == "operating-system"]
    assert (system["name"], system["version"]) == ("debian", "12")


def test_images_without_dpkg_have_the_same(bill: str, tmp_path: Path) -> None:
    """They have a file for each package. And a bill is the same every time."""
    status = made_root(tmp_path) / "var/lib/dpkg/status"
    (tmp_path / "var/lib/dpkg/status.d").mkdir()
    for number, stanza in enumerate(STATUS.split("\n\n")):
        (tmp_path / f"var/lib/dpkg/status.d/{number}").write_text(stanza)
    status.unlink()
    assert written(tmp_path) == bill
