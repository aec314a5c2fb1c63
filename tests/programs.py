"""Programs of others that tests call, from the environment of the tests or from the PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def found(name: str) -> str:
    """The path of a program; the test is skipped where there is none."""
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if path is None:
        pytest.skip(f"needs {name}")
    return path
