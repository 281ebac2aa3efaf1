"""The part of the build that pyproject.toml cannot say: the compiled core and the packages.

The core (`collector/engine/_core.pyx` over the plain C of `collector/engine/core/`) is optional:
without it the collector runs on its pure-Python engine. So are `_packed.pyx` and `_fields.pyx` of the
store, which stand in for `packed.py` and `fields.py` beside them, and `collector/sketch/_compiled.pyx`,
which stands in for `pure.py` there and shares some of the C. The variable COLLECTOR_NATIVE decides:

    auto (default)   build it when its source is there and a compiler works; else say so and go on
    yes              build it, or fail
    no               leave it out

One build serves every Python from 3.11 on: the core keeps to the limited API (abi3).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

SWITCH = "COLLECTOR_NATIVE"
CORE = Path("collector/engine/_core.pyx")
CORE_IN_C = Path("collector/engine/core")
STORE = ("collector.store._packed", "collector.store.reading._fields")
SKETCH = Path("collector/sketch/_compiled.pyx")
SKETCH_IN_C = ("sketch.c", "total.c", "weighted.c")
ARGUMENTS = ["-std=c11", "-O3"]
LIMITED_API: Any = {"py_limited_api": True, "define_macros": [("Py_LIMITED_API", "0x030B0000")]}


def stop(problem: str) -> NoReturn:
    """End the build with one line, which pip shows, instead of a traceback."""
    raise SystemExit(f"collector: {problem}")


def core_extensions(native: str) -> list[Extension]:
    """The compiled core and what else is compiled, as `native` asks for it; none or all of it."""
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
    optional = native == "auto"  # lets setuptools miss the files that were not built
    return [
        Extension(
            "collector.engine._core",
            sources=[str(CORE), *sorted(map(str, CORE_IN_C.glob("*.c")))],
            depends=sorted(map(str, [*CORE_IN_C.glob("*.h"), *CORE.parent.glob("*.px[di]")])),
            include_dirs=[str(CORE_IN_C)],
            extra_compile_args=[*ARGUMENTS, "-pthread"],  # the core starts threads of its own
            extra_link_args=["-pthread"],
            optional=optional,
            **LIMITED_API,
        ),
        *(
            Extension(
                name,
                sources=[name.replace(".", "/") + ".pyx"],
                extra_compile_args=ARGUMENTS,
                optional=optional,
                **LIMITED_API,
            )
            for name in STORE
        ),
        Extension(
            "collector.sketch._compiled",
            sources=[str(SKETCH), *(str(CORE_IN_C / name) for name in SKETCH_IN_C)],
            depends=sorted(map(str, CORE_IN_C.glob("*.h"))),
            include_dirs=[str(CORE_IN_C)],
            extra_compile_args=ARGUMENTS,
            optional=optional,
            **LIMITED_API,
        ),
    ]


class BuildCore(build_ext):
    """Builds the core; a failure ends the build only where the operator asked for the core."""

    told = False  # why something was not built: the next one has the same reason

    def build_extension(self, ext: Extension) -> None:
        """Any failure counts: no Cython, no compiler, no headers, a mistake in the source."""
        try:
            super().build_extension(ext)
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            if not ext.optional:
                stop(f"{SWITCH}=yes, but the compiled core did not build: {why}")
            if not self.told:
                what = "core" if ext.name.endswith("._core") else ext.name
                print(f"collector: no compiled {what}: it did not build: {why}", file=sys.stderr)
            self.told = True


extensions = core_extensions(os.environ.get(SWITCH, "auto"))
setup(
    packages=[*find_packages(include=["collector", "collector.*"]), "collector.shipped"],
    ext_modules=extensions,
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if extensions else {},
)
