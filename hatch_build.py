"""Compiles the numerical kernel (jobs/almanac_jobs/kernel/*.c) while the wheel, or the editable install, is built.

The kernel is plain C without Python's headers, loaded with ctypes: one wheel serves every Python of a platform. The
system's C compiler is used ($CC, or cc, gcc, clang); where there is none, the build asks pip for `ziglang`, whose wheel
is one.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNEL = Path(__file__).parent / "jobs" / "almanac_jobs" / "kernel"
# No contraction of a*b+c into one rounding: the same data give the same bytes on every processor.
FLAGS = [
    "-O3",
    "-std=c11",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
]
# Files that are compiled once for every level of vector instructions; the library picks one when it is loaded.
LEVELS = {"x86_64": ["x86_64_v4", "x86_64_v3", "x86_64_v2"], "amd64": ["x86_64_v4", "x86_64_v3", "x86_64_v2"]}


def _system_compiler() -> list[str] | None:
    named = os.environ.get("CC")
    if named:
        return shlex.split(named)
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return [found] if found else None


def compile_kernel(output: Path) -> None:
    """Compile every C file of the kernel into one shared library at `output`, which is replaced in one step."""
    compiler = _system_compiler() or [sys.executable, "-m", "ziglang", "cc"]
    zig = "ziglang" in compiler
    levels = LEVELS.get(platform.machine().lower(), [])
    with tempfile.TemporaryDirectory() as folder:
        objects: list[str] = []
        commands: list[list[str]] = []

        def add(source: Path, name: str, *flags: str) -> None:
            objects.append(str(Path(folder) / f"{name}.o"))
            commands.append([*compiler, *FLAGS, *flags, "-c", str(source), "-o", objects[-1]])

        for source in sorted(KERNEL.glob("*.c")):
            if source.stem.endswith("_simd") and levels:
                for level in levels:
                    march = f"-mcpu={level}" if zig else f"-march={level.replace('_v', '-v').replace('x86_', 'x86-')}"
                    # Half of the time of compiling would go into a few percent for processors of before 2013.
                    effort = ["-O2"] if level == levels[-1] else []
                    add(source, f"{source.stem}.{level}", march, f"-DLEVEL={level}", *effort)
            elif source.stem.endswith("_simd"):
                add(source, source.stem, "-DLEVEL=generic")
            else:
                add(source, source.stem, *(["-DX86_LEVELS"] if levels else []))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # The slowest come last in LEVELS, and start first.
            list(pool.map(partial(subprocess.run, check=True), reversed(commands)))
        library = Path(folder) / output.name
        subprocess.run([*compiler, "-shared", "-o", str(library), *objects, "-lm"], check=True)
        shutil.copy(library, output.with_suffix(".new"))
        output.with_suffix(".new").replace(output)


class KernelBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled kernel to the wheel and marks the wheel with this platform."""

    def dependencies(self) -> list[str]:
        return [] if _system_compiler() else ["ziglang>=0.13"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = KERNEL / "libkernel.so"
        compile_kernel(library)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
        build_data["artifacts"].append(f"/{library.relative_to(self.root)}")


if __name__ == "__main__":
    compile_kernel(KERNEL / "libkernel.so")
