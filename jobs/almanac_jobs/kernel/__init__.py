"""The compiled kernel: plain C, built by hatch_build.py with the wheel, loaded once a process."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path


@cache
def library() -> ctypes.CDLL:
    """The kernel's shared library.

    Raises ImportError if it was not built for this machine.
    """
    path = Path(__file__).with_name("libkernel.so")
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(
            f"the kernel {path} cannot be loaded ({error}): build it with `python hatch_build.py`"
        ) from error
