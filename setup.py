"""The part of the build that pyproject.toml cannot say: the compiled core and the packages.

The core (`collector/engine/_core.pyx` over the plain C of `collector/engine/core/`) is optional:
without it the collector runs on its pure-Python engine. The variable COLLECTOR_NATIVE decides:

    auto (default)   build it when its source is there and a compiler works; else say so and go on
    yes              build it, or fail
    no               leave it out

One build serves every Python from 3.11 on: the core keeps to the limited API (abi3).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

SWITCH = "COLLECTOR_NATIVE"
CORE = Path("collector/engine/_core.pyx")
CORE_IN_C = Path("collector/engine/core")


def stop(problem: str) -> NoReturn:
    """End the build with one line, which pip shows, instead of a traceback."""
    raise SystemExit(f"collector: {problem}")


def core_extensions(native: str) -> list[Extension]:
    """The compiled core as `native` asks for it: one extension, or none."""
    if native not in ("auto", "yes", "no"):
        stop(f"{SWITCH}={native!r} is none of the allowed values: auto, yes, no")
    if native == "no":
        return []
    if not CORE.exists():
        problem = f"the source of the compiled core, {CORE}, is missing"
        if native == "yes":
            stop(f"{SWITCH}=yes, but {problem}")
        print(f"collector: no compiled core: {problem}", file=sys.stderr)
        return []
    return [
        Extension(
            "collector.engine._core",
            sources=[str(CORE), *sorted(map(str, CORE_IN_C.glob("*.c")))],
            depends=[
                *sorted(map(str, CORE_IN_C.glob("*.h"))),
                *sorted(map(str, CORE.parent.glob("*.px[di]"))),
            ],
            include_dirs=[str(CORE_IN_C)],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-std=c11", "-O3", "-pthread"],  # the core starts threads of its own
            extra_link_args=["-pthread"],
            py_limited_api=True,
            optional=native == "auto",  # lets setuptools miss the file that was not built
        )
    ]


class BuildCore(build_ext):
    """Builds the core; a failure ends the build only where the operator asked for the core."""

    def build_extension(self, ext: Extension) -> None:
        """Any failure counts: no Cython, no compiler, no headers, a mistake in the source."""
        try:
            super().build_extension(ext)
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            if not ext.optional:
                stop(f"{SWITCH}=yes, but the compiled core did not build: {why}")
            print(f"collector: no compiled core: it did not build: {why}", file=sys.stderr)


extensions = core_extensions(os.environ.get(SWITCH, "auto"))
setup(
    packages=[*find_packages(include=["collector", "collector.*"]), "collector.shipped"],
    ext_modules=extensions,
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if extensions else {},
)
