"""The bill of materials of an image, as CycloneDX: Python packages with the wheels that they came from, and Debian's.

`python sbom.py --name NAME --environment FOLDER --root FOLDER [--wheels FOLDER] -o FILE` describes the virtual
environment and what Debian's packages there are below a root. Libraries that a wheel brings along are listed where it
says so (PEP 770). It holds no time and no random number: the same image has the same one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

DPKG = Path("var/lib/dpkg")


def bill(name: str, version: str, environment: Path, root: Path, wheels: Path | None = None) -> Bom:
    """What `name` consists of.

    Args:
        name: What the bill is about, an image.
        version: Its version.
        environment: The virtual environment.
        root: The folder that has what else there is: `/`, or a root that is to be one.
        wheels: Folder of the wheels that the environment was installed from. Without it, the packages have no hashes.
    """
    folders = _site_packages(environment)
    packages = {canonicalize_name(one.name): one for one in distributions(path=[str(one) for one in folders])}
    hashes = {_key(wheel): _sha256(wheel) for wheel in sorted(wheels.rglob("*.whl"))} if wheels else {}
    python = {name: _package(name, one, hashes, folders) for name, one in sorted(packages.items())}
    system = list(debian(root))
    about = Component(name=name, version=version, type=ComponentType.CONTAINER, bom_ref=name)
    interpreter = [] if any(one.name.startswith("python3") for one in system) else [_interpreter()]
    made = Bom(components=[*python.values(), *interpreter, *system])
    made.metadata.component = about
    made.metadata.timestamp = None  # type: ignore[assignment]  # which the schema allows
    made.register_dependency(about, made.components)
    for package, one in packages.items():
        needs = {canonicalize_name(Requirement(text).name) for text in one.requires or ()}
        made.register_dependency(python[package], [python[other] for other in sorted(needs & python.keys())])
    made.serial_number = uuid5(NAMESPACE_URL, "\n".join(sorted(str(one.bom_ref) for one in made.components)))
    return made


def _site_packages(environment: Path) -> list[Path]:
    return sorted(environment.glob("lib/python3.*/site-packages"))


def _key(wheel: Path) -> tuple[str, str]:
    name, version, *_ = parse_wheel_filename(wheel.name)
    return name, str(version)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _package(name: str, one: Distribution, hashes: dict[tuple[str, str], str], folders: list[Path]) -> Component:
    """A Python package, and in it what its wheel says that it brings along."""
    purl = PackageURL("pypi", name=name, version=one.version)
    licence = one.metadata.get("License-Expression") or one.metadata.get("License") or ""
    known = hashes.get((name, one.version))
    return Component(
        name=name,
        version=one.version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=str(purl),
        licenses=[LicenseFactory().make_from_string(licence)] if licence and "\n" not in licence else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=known)] if known else [],
        components=_vendored(name, one.version, folders),
    )


def _vendored(name: str, version: str, folders: list[Path]) -> list[Component]:
    """Libraries in a wheel, by the bills that it has of its own."""
    about = f"{name.replace('-', '_')}-{version}.dist-info"
    bills = [one for folder in folders for one in sorted(folder.glob(f"{about}/sboms/*.json"))]
    listed = [part for one in bills for part in json.loads(one.read_text(encoding="utf-8")).get("components", ())]
    found = {part["purl"]: (part, PackageURL.from_string(part["purl"])) for part in listed if part.get("purl")}
    return [
        _part(part["name"], part.get("version"), purl, name)
        for part, purl in found.values()
        if (purl.type, canonicalize_name(purl.name)) != ("pypi", name)
    ]


def _part(name: str, version: str | None, purl: PackageURL, inside: str = "") -> Component:
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=f"{inside}#{purl}" if inside else str(purl),
    )


def _interpreter() -> Component:
    """The Python that runs this, which is that of the image: images that are made for Python have one of their own."""
    return _part("python", version := platform.python_version(), PackageURL("generic", name="python", version=version))


def debian(root: Path) -> Iterator[Component]:
    """The distribution, and the packages of it that are there: of dpkg, or as images without it have them."""
    release = dict(
        re.findall(r'^(\w+)="?([^"\n]*)', (root / "etc/os-release").read_text(encoding="utf-8"), re.MULTILINE)
    )
    distribution = release["ID"], release.get("VERSION_ID", "")
    yield Component(
        name=distribution[0],
        version=distribution[1],
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref="-".join(distribution),
    )
    for stanza in sorted(_stanzas(root)):
        about = dict(re.findall(r"^([A-Za-z-]+): (.*)$", stanza, re.MULTILINE))
        if not about.get("Status", "").endswith(" installed"):
            continue
        source, _, of = about.get("Source", about["Package"]).partition(" ")
        qualifiers = {"arch": about["Architecture"], "distro": "-".join(distribution)}
        if "Source" in about:
            qualifiers["upstream"] = f"{source}@{of.strip('()')}" if of else source
        purl = PackageURL("deb", distribution[0], about["Package"], about["Version"], qualifiers)
        yield _part(about["Package"], about["Version"], purl)


def _stanzas(root: Path) -> Iterable[str]:
    alone = sorted((root / DPKG / "status.d").glob("*"))
    if alone:
        return [one.read_text(encoding="utf-8") for one in alone if one.suffix != ".md5sums"]
    status = root / DPKG / "status"
    return status.read_text(encoding="utf-8").strip().split("\n\n") if status.exists() else []


def written(made: Bom) -> str:
    """A bill as a document."""
    return JsonV1Dot6(made).output_as_string(indent=1) + "\n"


def main() -> None:
    """Write the bill of an image, whose version is that of the project."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--environment", required=True, type=Path)
    parser.add_argument("--root", required=True, type=Path)
    parser.add_argument("--wheels", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    given = parser.parse_args()
    folders = [str(one) for one in _site_packages(given.environment)]
    (version,) = {one.version for one in distributions(name="almanac", path=folders)}
    made = bill(given.name, version, given.environment, given.root, given.wheels)
    given.output.write_text(written(made), encoding="utf-8")


if __name__ == "__main__":
    main()
