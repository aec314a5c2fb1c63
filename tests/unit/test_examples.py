"""Whatever the examples and the documentation show is a valid job."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from almanac.api import API_VERSION, KINDS

ROOT = Path(__file__).parents[2]
FENCED = re.compile(r"^```ya?ml[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documents() -> Iterator[tuple[str, str]]:
    """Every document of our API in examples, benchmarks and documentation: where it stands, and its YAML."""
    files = [
        *ROOT.glob("examples/**/*.yaml"),
        *ROOT.glob("benchmarks/*.yaml"),
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
    ]
    for file in sorted(files):
        text = file.read_text(encoding="utf-8")
        blocks = FENCED.findall(text) if file.suffix == ".md" else [text]
        for number, block in enumerate(blocks, start=1):
            if re.search(rf"^apiVersion: {API_VERSION}$", block, re.MULTILINE):
                yield f"{file.relative_to(ROOT)}:{number}", block


@pytest.mark.parametrize(("place", "text"), [pytest.param(*found, id=found[0]) for found in documents()])
def test_valid(place: str, text: str) -> None:
    for document in yaml.safe_load_all(text):
        KINDS[document["kind"]].parse(document)


def test_examples_are_found() -> None:
    places = [place for place, _ in documents()]
    assert {"examples/cdnow.yaml:1", "README.md:1"} <= set(places)
    assert any(place.startswith("docs/") for place in places)
