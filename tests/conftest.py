"""Fixtures that several folders of tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kube.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Kubernetes API with the project's kinds and a fresh namespace: see `kube.cluster`."""
    from kube.cluster import embedded

    with embedded(tmp_path) as made:
        yield made
